"""Videos made on the spot, and the shared real ones."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from harness.errors import UserError
from harness.video.container import BACKENDS, reader_class

ENCODING = {
    "libx264": {"preset": "ultrafast", "crf": "12"},
    "libx265": {"preset": "ultrafast", "crf": "12", "x265-params": "log-level=none"},
    "libaom-av1": {"cpu-used": "8", "crf": "20"},
}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "videos"


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that works on this machine."""
    try:
        reader_class(request.param)
    except UserError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def qwen_reads_with_decord(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As FORCE_QWENVL_VIDEO_READER=decord does, which the package reads when it is imported; torchcodec goes first."""
    pytest.importorskip("decord")
    from qwen_vl_utils import vision_process

    monkeypatch.setattr(vision_process, "FORCE_QWENVL_VIDEO_READER", "decord")
    chosen = vision_process.get_video_reader_backend
    chosen.cache_clear()
    yield
    chosen.cache_clear()


@pytest.fixture
def shared_video() -> Callable[[str], Path]:
    """Path of a real video by name; skips without the shared folder."""

    def find(name: str) -> Path:
        if not (SHARED / name).is_file():
            pytest.skip(f"{SHARED / name} is not on this machine")
        return SHARED / name

    return find


def _gray_levels(n: int) -> np.ndarray:
    return (16 + 37 * np.arange(n)) % 208 + 16


@pytest.fixture
def gray_levels() -> Callable[[int], np.ndarray]:
    """Level of each of n frames: neighbours are far enough apart to tell them from each other after compression."""
    return _gray_levels


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Writes a video whose frame i is plain gray, of level `gray_levels(n)[i]`, but for a brighter top left quarter."""

    def make(
        name: str = "video.mp4",
        *,
        n: int = 50,
        size: tuple[int, int] = (64, 48),
        rate: Fraction = Fraction(25),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        times: list[float] | None = None,
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height = size
            stream.pix_fmt = pix_fmt
            stream.codec_context.thread_count = 1
            time_base = Fraction(1, 10_000) if times else 1 / rate
            stream.codec_context.time_base = stream.time_base = time_base
            stream.options = ENCODING.get(codec, {}) | (options or {})
            for i, level in enumerate(_gray_levels(n)):
                picture = np.full((size[1], size[0], 3), level, dtype=np.uint8)
                picture[: size[1] // 2, : size[0] // 2] += 24
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = round(times[i] / time_base) if times else i
                frame.time_base = time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make
