"""The frames that `harness.video.VERSION` stands for are stored here: other ones need another version.

After a change that is meant: raise the version and run `python tests/video/test_pinned_frames.py` to store the frames.
"""

import base64
import json
import re
import struct
import tempfile
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from harness import video as room
from harness.video import decode, windows
from harness.video.container import reader_class
from harness.video.decode import open_video
from harness.video.sampling import SamplingPolicy, StockPolicy

STORED = Path(__file__).with_name("pinned_frames.json")
# Colour conversion may differ in the last bits between processors; a neighbouring pixel or frame differs by far more.
SAME = 4

LOSSLESS = {"preset": "ultrafast", "qp": "0"}  # so that what is decoded does not depend on the encoder
UNEVEN = [round(i / 12 + 0.4 * (i // 7), 3) for i in range(36)]
CASES = {
    "constant rate, scaled": ({"n": 75}, SamplingPolicy(fps=2, max_frames=64, long_side=50)),
    "capped, odd": ({"n": 80, "rate": 50}, SamplingPolicy(fps=4, max_frames=5, even=False, long_side=None)),
    "uneven times": ({"name": "video.mkv", "times": UNEVEN}, SamplingPolicy(fps=1.3, max_frames=64, long_side=48)),
    "late": ({"name": "video.mkv", "n": 60, "start": 7.3}, SamplingPolicy(fps=1.9, max_frames=64, long_side=40)),
    "turned": ({"n": 40, "turned": True}, SamplingPolicy(fps=3, max_frames=64, long_side=60)),
    "full range": ({"n": 40, "pix_fmt": "yuvj420p"}, SamplingPolicy(fps=2.5, max_frames=64, long_side=None)),
    "BT.709": ({"n": 40, "options": {"colorspace": "bt709"}}, SamplingPolicy(fps=2.5, max_frames=64, grid_fps=10)),
    "stock": ({"n": 61, "rate": 30}, StockPolicy(240, 8, min_pixels=784, max_pixels=2400)),
}


def picture(i: int, width: int, height: int) -> np.ndarray:
    """Blocks of 2 x 2 pixels that differ from their neighbours, in each channel otherwise, and from frame to frame."""
    y, x = np.mgrid[: height // 2, : width // 2]
    channels = [(31 * x + 59 * y + 17 * i) % 211 + 20, (43 * x + 23 * y + 29 * i) % 181 + 10, (x + 2 * y + 5 * i) % 240]
    return np.stack(channels, axis=-1).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)


def render(
    folder: Path,
    *,
    name="video.mp4",
    n=0,
    rate=25,
    times=None,
    start=0.0,
    pix_fmt="yuv420p",
    options=None,
    turned=False,
) -> Path:
    path = folder / name
    times = times or [i / rate for i in range(n)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options=LOSSLESS | (options or {}))
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(i, 64, 48), format="rgb24")
            frame.pts, frame.time_base = round(1000 * (start + time)), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if turned:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 44
        data[at : at + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
    return path


def decoded(case: str, backend: str, folder: Path) -> tuple[dict, np.ndarray]:
    """Plan of a case, and every third row and column of its frames."""
    made, policy = CASES[case]
    if isinstance(policy, StockPolicy) and backend != "decord":
        pytest.skip("lmms-eval counts frames with decord")
    video = open_video(render(folder, **made), policy, backend=backend)
    plan = video.plan
    facts = {
        "indices": list(plan.indices),
        "timestamps": [round(time, 6) for time in plan.timestamps],
        "sampling_fps": round(plan.sampling_fps, 6),
        "second_per_grid": round(plan.second_per_grid, 6),
    }
    return facts | {"size": [video.width, video.height]}, np.concatenate(list(video.windows(4)))[:, 1::3, 1::3]


def check(case: str, backend: str, folder: Path) -> None:
    stored = json.loads(STORED.read_text())
    wanted = stored["cases"][case]
    facts, frames = decoded(case, backend, folder)
    pinned = np.frombuffer(zlib.decompress(base64.b64decode(wanted["frames"])), np.uint8).reshape(wanted["shape"])
    same = facts == {name: wanted[name] for name in facts} and frames.shape == pinned.shape
    same = same and np.abs(frames.astype(int) - pinned).max() <= SAME
    assert same, (
        f"{backend} gives other frames for '{case}' than harness.video.VERSION={stored['version']} stands for; if that "
        f"is meant, raise harness.video.VERSION and run: python tests/video/{Path(__file__).name}"
    )


def test_the_stored_frames_are_those_of_this_version():
    stored = json.loads(STORED.read_text())
    assert stored["version"] == room.VERSION, f"run: python tests/video/{Path(__file__).name}"
    assert set(stored["cases"]) == set(CASES)


@pytest.mark.usefixtures("qwen_reads_with_decord")
@pytest.mark.parametrize("case", CASES)
def test_frames_are_those_of_this_version(case, backend, tmp_path):
    check(case, backend, tmp_path)


def plant(fault: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def smooth(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))

    reader = reader_class(backend)
    frame, plan, sources = reader.frame, decode.plan_grid, decode.grid_sources
    faults = {
        "flipped": (reader, "frame", lambda self, index: frame(self, index)[::-1]),
        "mirrored": (reader, "frame", lambda self, index: frame(self, index)[:, ::-1]),
        "swapped channels": (reader, "frame", lambda self, index: frame(self, index)[:, :, ::-1]),
        "brighter": (reader, "frame", lambda self, index: frame(self, index) // 2 + 100),
        "shifted by one": (decode, "grid_sources", lambda *args: np.minimum(sources(*args) + 1, sources(*args).max())),
        "rounded times": (decode, "plan_grid", lambda n, policy: plan(n - 1, policy)),
        "scaled smoothly": (windows.FramePass, "_scaled", lambda self, f: smooth(f, self._size)),
    }
    monkeypatch.setattr(*faults[fault])


@pytest.mark.parametrize(
    "fault",
    ["flipped", "mirrored", "swapped channels", "brighter", "shifted by one", "rounded times", "scaled smoothly"],
)
def test_a_planted_fault_asks_for_another_version(fault, backend, tmp_path, monkeypatch):
    check("constant rate, scaled", backend, tmp_path)
    plant(fault, backend, monkeypatch)
    with pytest.raises(AssertionError, match=re.escape("raise harness.video.VERSION")):
        check("constant rate, scaled", backend, tmp_path)


def store() -> None:
    """Write the frames of this version, once."""
    known = json.loads(STORED.read_text()) if STORED.exists() else {"version": None, "cases": {}}
    if known["version"] == room.VERSION and set(known["cases"]) == set(CASES):
        raise SystemExit(f"the frames of harness.video.VERSION={room.VERSION} are stored; raise it to store other ones")
    kept = known["cases"] if known["version"] == room.VERSION else {}
    cases = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            facts, frames = decoded(case, "decord", Path(folder))
        packed = base64.b64encode(zlib.compress(frames.tobytes(), 9)).decode()
        cases[case] = kept.get(case) or facts | {"shape": list(frames.shape), "frames": packed}
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(facts)}" for case, facts in cases.items())
    STORED.write_text(f'{{"version": {room.VERSION}, "cases": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    store()
