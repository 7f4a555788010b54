"""Opening a video under a sampling policy.

Threads: any number of passes may run at once, each decodes in a thread of its own. Forks: no decoder survives one (a
decord reader used in the child hangs), so fork while no pass is under way, or start processes by spawn or forkserver.
"""

from functools import partial
from pathlib import Path

from harness.errors import VideoError
from harness.settings.groups import DEFAULT_READER
from harness.video.container import FrameReader, Track, VideoInfo, check_format, reader_class
from harness.video.sampling import (
    MAX_ASPECT,
    Policy,
    SamplingPolicy,
    StockPolicy,
    grid_sources,
    plan_frames,
    plan_grid,
    resized,
)  # fmt: skip
from harness.video.scan import scan
from harness.video.stock import LEAST, open_stock, stock_count, stock_size
from harness.video.windows import FramePass, TimeLimit, Video, too_long

TIMEOUT_S = 600.0
RATE = 25.0  # of a video of which only the length is known


def probe(path: str | Path, backend: str = DEFAULT_READER, *, timeout_s: float = TIMEOUT_S) -> VideoInfo:
    """What is in the file; it is read to its end but only a few of its frames are decoded.

    Raises:
        VideoError: as `open_video`, except for what only decoding shows and what the policy asks for.
    """
    return _scan(path, backend, timeout_s).info


def open_video(
    path: str | Path, policy: Policy, *, backend: str = DEFAULT_READER, timeout_s: float = TIMEOUT_S
) -> Video:
    """Reads the file's frame times and plans which frames to take. Nothing is kept open until `Video.windows`.

    Raises:
        UserError: the backend is unknown or not installed.
        VideoError: the file is missing, empty, cut short, without video, in a format that the backend cannot decode,
            not usable under the policy (see `check_usable`), or reading takes longer than timeout_s.
    """
    reader = reader_class(backend)
    track = _scan(path, backend, timeout_s)
    video = (
        open_stock(track, policy, backend, timeout_s)
        if isinstance(policy, StockPolicy)
        else _open_release(track, policy, reader, backend, timeout_s)
    )
    check_usable(video, policy)
    return video


def _open_release(
    track: Track, policy: SamplingPolicy, reader: type[FrameReader], backend: str, timeout_s: float
) -> Video:
    pts = [p - track.origin for p in track.pts]
    sources = grid_sources(pts, track.end - track.origin, track.time_base, policy.grid_fps)
    plan = plan_grid(len(sources), policy)
    size = resized(track.info.width, track.info.height, policy)
    start_pass = partial(FramePass, reader, track, sources[list(plan.indices)].tolist(), size)
    return Video(track, plan, size, backend, timeout_s, start_pass)


def check_usable(video: Video, policy: Policy) -> None:
    """Whether a sound video can be shown to a model under the policy that it was opened with.

    Raises:
        VideoError: it is too short for the frames that the model needs at least, or too narrow or flat.
    """
    info = video.info
    if not video.plan.indices:
        if isinstance(policy, StockPolicy):
            raise VideoError(f"{video.path}: has {info.n_frames} frame, the model needs {LEAST}; leave the video out")
        needed = 2 if policy.even else 1
        if info.n_frames < needed:
            raise VideoError(f"{video.path}: has {info.n_frames} frame, the model needs {needed}; leave the video out")
        least = needed / min(policy.fps, policy.grid_fps)
        raise VideoError(
            f"{video.path}: {info.duration_s:.2f} s are too short at {policy.fps:g} frames per second, the model "
            f"needs {needed} (at least {least:g} s); raise video.fps or leave the video out"
        )
    if max(video.width, video.height) > MAX_ASPECT * min(video.width, video.height):
        raise VideoError(
            f"{video.path}: pictures of {video.width}x{video.height} (scaled from {info.width}x{info.height}) are too "
            f"long, vision encoders take sides of at most {MAX_ASPECT}:1; cut the video, or leave it out"
        )


def expected(policy: Policy, duration_s: float | None, width: int, height: int) -> tuple[int, tuple[int, int]]:
    """Frames that a video of this length and size gives, and their (width, height), for estimates.

    duration_s: None where it is not known; then the most that the policy takes
    """
    if isinstance(policy, StockPolicy):
        n = policy.max_frames if duration_s is None else stock_count(round(duration_s * RATE), RATE, policy)
        return n, stock_size(width, height, n, policy)
    n = policy.max_frames if duration_s is None else len(plan_frames(duration_s, policy).indices)
    return n, resized(width, height, policy)


def check_video(
    path: str | Path, policy: Policy, *, backend: str = DEFAULT_READER, timeout_s: float = TIMEOUT_S
) -> Video:
    """Opens a video as a run does and decodes the first, the middle and the last of the frames that it would see.

    Raises:
        UserError, VideoError: as `open_video` and `Video.windows`.
    """
    video = open_video(path, policy, backend=backend, timeout_s=timeout_s)
    last = len(video.plan.indices) - 1
    for _ in video.spans((position, position + 1) for position in sorted({0, last // 2, last})):
        pass
    return video


def _scan(path: str | Path, backend: str, timeout_s: float) -> Track:
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):  # a pipe would be waited for
        raise VideoError(f"{path}: is not a regular file; leave it out")
    with TimeLimit(timeout_s) as limit:
        try:
            track = limit.call(scan, path)
        except TimeoutError:
            raise VideoError(too_long(path, "the container reader", timeout_s)) from None
    check_format(track.path, track.info, backend)
    return track
