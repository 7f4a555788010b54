"""Opening a video under a sampling policy.

Threads: any number of passes may run at once, each decodes in a thread of its own. Forks: no decoder survives one (a
decord reader used in the child hangs), so fork while no pass is under way, or start processes by spawn or forkserver.
"""

from functools import partial
from pathlib import Path

from harness.errors import VideoError
from harness.settings.groups import DEFAULT_READER
from harness.video.container import check_format, reader_class
from harness.video.sampling import MAX_ASPECT, Policy, StockPolicy, grid_sources, plan_frames, plan_grid, resized
from harness.video.scan import scan
from harness.video.stock import LEAST, open_stock, stock_count, stock_size
from harness.video.windows import FramePass, TimeLimit, Video, too_long

TIMEOUT_S = 600.0
RATE = 25.0  # of a video of which only the length is known


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
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):  # a pipe would be waited for
        raise VideoError(f"{path}: is not a regular file; leave it out")
    with TimeLimit(timeout_s) as limit:
        try:
            track = limit.call(scan, path)
        except TimeoutError:
            raise VideoError(too_long(path, "the container reader", timeout_s)) from None
    check_format(track.path, track.info, backend)
    if isinstance(policy, StockPolicy):
        video = open_stock(track, policy, backend, timeout_s)
    else:
        pts = [p - track.origin for p in track.pts]
        sources = grid_sources(pts, track.end - track.origin, track.time_base, policy.grid_fps)
        plan, size = plan_grid(len(sources), policy), resized(track.info.width, track.info.height, policy)
        start_pass = partial(FramePass, reader, track, sources[list(plan.indices)].tolist(), size)
        video = Video(track, plan, size, backend, timeout_s, start_pass)
    check_usable(video, policy)
    return video


def check_usable(video: Video, policy: Policy) -> None:
    """Raises VideoError where the video is too short for the model's fewest frames, or its pictures are too long."""
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

    A video whose length is not known gives the most that the policy takes.
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

    Raises as `open_video` and `Video.windows`.
    """
    video = open_video(path, policy, backend=backend, timeout_s=timeout_s)
    last = len(video.plan.indices) - 1
    for _ in video.spans((position, position + 1) for position in sorted({0, last // 2, last})):
        pass
    return video
