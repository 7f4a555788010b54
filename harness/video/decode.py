"""Opening a video under a sampling policy.

Threads: any number of passes may run at once, each decodes in a thread of its own. Forks: no decoder survives one (a
decord reader used in the child hangs), so fork while no pass is under way, or start processes by spawn or forkserver.
"""

from functools import partial
from pathlib import Path

from harness.errors import VideoError
from harness.video.container import Track, VideoInfo
from harness.video.readers import check_format, reader_class
from harness.video.sampling import MAX_ASPECT, FramePlan, SamplingPolicy, grid_sources, plan_grid, resized
from harness.video.scan import scan
from harness.video.time_limit import TimeLimit
from harness.video.windows import FramePass, Video, too_long

TIMEOUT_S = 600.0


def probe(path: str | Path, backend: str = "decord", *, timeout_s: float = TIMEOUT_S) -> VideoInfo:
    """What is in the file; it is read to its end but only a few of its frames are decoded.

    Raises:
        VideoError: as `open_video`, except for what only decoding shows and what the policy asks for.
    """
    return _scan(path, backend, timeout_s).info


def open_video(
    path: str | Path, policy: SamplingPolicy, *, backend: str = "decord", timeout_s: float = TIMEOUT_S
) -> Video:
    """Reads the file's frame times and plans which frames to take. Nothing is kept open until `Video.windows`.

    Raises:
        UserError: the backend is unknown or not installed.
        VideoError: the file is missing, empty, cut short, without video, in a format that the backend cannot decode,
            not usable under the policy (see `check_usable`), or reading takes longer than timeout_s.
    """
    reader = reader_class(backend)
    track = _scan(path, backend, timeout_s)
    pts = [p - track.origin for p in track.pts]
    sources = grid_sources(pts, track.end - track.origin, track.time_base, policy.grid_fps)
    plan = plan_grid(len(sources), policy)
    size = resized(track.info.width, track.info.height, policy)
    check_usable(track, policy, plan, size)
    start_pass = partial(FramePass, reader, track, sources[list(plan.indices)].tolist(), size)
    return Video(track, plan, size, backend, timeout_s, start_pass)


def check_usable(track: Track, policy: SamplingPolicy, plan: FramePlan, size: tuple[int, int]) -> None:
    """Whether a sound video can be shown to a model under a policy that plans these frames of this size.

    Raises:
        VideoError: it is too short for the frames that the model needs at least, or too narrow or flat.
    """
    if not plan.indices:
        needed = 2 if policy.even else 1
        least = needed / min(policy.fps, policy.grid_fps)
        raise VideoError(
            f"{track.path}: {track.info.duration_s:.2f} s are too short at {policy.fps:g} frames per second, the model "
            f"needs {needed} (at least {least:g} s); raise video.fps or leave the video out"
        )
    width, height = size
    if max(size) > MAX_ASPECT * min(size):
        raise VideoError(
            f"{track.path}: pictures of {width}x{height} (scaled from {track.info.width}x{track.info.height}) are too "
            f"long, vision encoders take sides of at most {MAX_ASPECT}:1; cut the video, or leave it out"
        )


def check_video(
    path: str | Path, policy: SamplingPolicy, *, backend: str = "decord", timeout_s: float = TIMEOUT_S
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
    with TimeLimit(timeout_s) as limit:
        try:
            track = limit.call(scan, path)
        except TimeoutError:
            raise VideoError(too_long(path, "the container reader", timeout_s)) from None
    check_format(track.path, track.info, backend)
    return track
