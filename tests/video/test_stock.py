"""The stock sampler: the frames that lmms-eval's own Qwen2.5-VL class hands to its processor."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.errors import UserError, VideoError
from harness.settings.compose import compose_config
from harness.video import stock
from harness.video.decode import check_video, expected, open_video
from harness.video.sampling import SamplingPolicy, StockPolicy, sampling_policy

POLICY = StockPolicy(fps=240, max_frames=32, min_pixels=256 * 28 * 28, max_pixels=1605632)
pytestmark = pytest.mark.usefixtures("qwen_reads_with_decord")
NTSC = Fraction(30000, 1001)


class HandedOver(Exception):
    """Stops lmms-eval where it would call its processor."""


def shown_by_lmms_eval(path, monkeypatch):
    """Frames [n, H, W, 3] and the metadata that its chat class, at its defaults, hands to the processor."""
    pytest.importorskip("lmms_eval")
    from lmms_eval.models.chat.qwen2_5_vl import Qwen2_5_VL

    class Processor:
        def apply_chat_template(self, *args, **kwargs):
            return ["text"]

        def __call__(self, *, videos, video_metadata, **kwargs):
            raise HandedOver(videos, video_metadata)

    defaults = {"min_pixels": 256 * 28 * 28, "max_pixels": 1605632, "max_num_frames": 32, "fps": None}
    model = SimpleNamespace(batch_size=1, rank=1, processor=Processor(), task_dict={"t": {"s": [{}]}}, **defaults)
    model.flatten = lambda nested: [item for items in nested for item in items]
    messages = [{"role": "user", "content": [{"type": "video", "url": str(path)}, {"type": "text", "text": "What?"}]}]
    arguments = ("What?", lambda doc: messages, {}, 0, "t", "s")
    with pytest.raises(HandedOver) as handed:
        Qwen2_5_VL.generate_until(model, [SimpleNamespace(args=arguments)])
    (video,), (metadata,) = handed.value.args
    return video.permute(0, 2, 3, 1).numpy(), metadata


@pytest.mark.parametrize(
    ("made", "size", "n"),
    [
        ({"n": 100, "size": (192, 108)}, (616, 336), 32),
        ({"n": 31, "size": (64, 48), "name": "video.mkv"}, (532, 392), 30),
        ({"n": 90, "size": (320, 240), "rate": NTSC, "options": {"bf": "2", "g": "20"}}, (532, 392), 32),
    ],
)
def test_frames_are_those_of_lmms_eval(make_video, monkeypatch, made, size, n):
    path = make_video(**made)
    theirs, metadata = shown_by_lmms_eval(path, monkeypatch)
    video = open_video(path, POLICY)
    frames = np.concatenate(list(video.windows(7)))
    assert (len(frames), video.width, video.height) == (n, *size)
    np.testing.assert_array_equal(frames, theirs)
    assert video.plan.indices == tuple(metadata["frames_indices"])
    sampled = len(metadata["frames_indices"]) / metadata["total_num_frames"] * metadata["fps"]
    assert video.plan.second_per_grid == pytest.approx(2 / sampled, rel=1e-9)


def test_real_videos(shared_video, monkeypatch):
    for name in ("nasa_13013.mp4", "flipping_a_pancake.mkv"):
        theirs, metadata = shown_by_lmms_eval(shared_video(name), monkeypatch)
        video = open_video(shared_video(name), POLICY)
        assert video.plan.indices == tuple(metadata["frames_indices"])
        np.testing.assert_array_equal(next(video.windows(32)), theirs)


@pytest.mark.parametrize(
    ("native", "n", "scaled"),
    [
        ((1280, 720), 32, (1008, 560)),
        ((720, 1280), 32, (560, 1008)),
        ((1280, 720), 512, (784, 420)),
        ((1280, 720), 768, (644, 336)),
        ((640, 480), 32, (644, 476)),
        ((112, 112), 32, (448, 448)),
    ],
)
def test_sizes(native, n, scaled):
    assert stock.stock_size(*native, n, POLICY) == scaled


def test_what_a_plan_expects():
    assert expected(POLICY, 60.0, 1280, 720) == (32, (1008, 560))
    assert expected(POLICY, None, 1280, 720) == (32, (1008, 560))
    assert expected(POLICY, 1.0, 1280, 720) == (24, (1008, 560))
    assert expected(replace(POLICY, fps=2), 10.0, 1280, 720)[0] == 20
    assert expected(SamplingPolicy(fps=2, max_frames=64), 10.0, 1280, 720) == (20, (448, 251))


def test_counts():
    assert [stock.stock_count(total, 25.0, POLICY) for total in (1, 2, 3, 31, 32, 33, 9000)] == [
        2,
        2,
        2,
        30,
        32,
        32,
        32,
    ]
    assert stock.stock_plan(5, 25.0, POLICY).indices == (0, 1, 3, 4)


def test_a_single_frame_and_a_ribbon_are_refused(make_video):
    with pytest.raises(VideoError, match="video.mp4: has 1 frame, the model needs 2"):
        open_video(make_video(n=1), POLICY)
    with pytest.raises(VideoError, match="at most 200:1"):
        check_video(make_video(n=4, size=(1344, 6)), POLICY)


def test_another_reader_in_its_place_is_refused(make_video, monkeypatch):
    """The package reads with another backend where the first one fails, and with torchcodec where that is installed."""
    from qwen_vl_utils import vision_process

    with pytest.raises(UserError, match="video.backend=pyav: .*; set video.backend=decord"):
        open_video(make_video(), POLICY, backend="pyav")
    video = open_video(make_video(), POLICY)
    real = vision_process.fetch_video
    monkeypatch.setattr(
        vision_process,
        "fetch_video",
        lambda *args, **kwargs: (real(*args, **kwargs)[0], real(*args, **kwargs)[1] | {"video_backend": "torchvision"}),
    )
    with pytest.raises(VideoError, match="other frames than planned, by torchvision"):
        next(video.windows(8))
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "torchcodec")
    with pytest.raises(UserError, match="set the environment's FORCE_QWENVL_VIDEO_READER=decord"):
        open_video(make_video(), POLICY)


def test_a_damaged_video_is_named(shared_video):
    with pytest.raises(VideoError, match="corrupted.mp4"):
        list(open_video(shared_video("corrupted.mp4"), POLICY).windows(8))


def test_the_option_of_the_configuration():
    assert sampling_policy(compose_config(["video=stock"]).video) == POLICY
    assert isinstance(sampling_policy(compose_config([]).video), SamplingPolicy)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["video=stock", "video.long_side=300"], "video.long_side=300 has no meaning for video.sampler=stock"),
        (["video=stock", "video.long_side=448"], "video.long_side=448 .* leave it at null, or set video=release"),
        (["video=stock", "video.grid_fps=10"], "video.grid_fps=10.0 has no meaning for video.sampler=stock"),
        (["video.max_pixels=1000"], "video.max_pixels=1000 has no meaning for video.sampler=release"),
        (["video=stock", "video.max_pixels=null"], "needs video.min_pixels and video.max_pixels; video=stock has"),
        (["video.sampler=stock"], "video.long_side=448 has no meaning"),
    ],
)
def test_a_setting_without_meaning_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        sampling_policy(compose_config(words).video)


def test_the_model_sees_what_lmms_eval_shows_it(make_video, monkeypatch):
    """From the frames on: the adapter's processor changes nothing that lmms-eval's leaves, nor the seconds per grid."""
    from transformers import AutoProcessor

    from harness.models.qwen2_5_vl import Qwen25VL
    from harness.toy import CHECKPOINT

    path = make_video(n=90, size=(64, 48))
    theirs, metadata = shown_by_lmms_eval(path, monkeypatch)
    processor = AutoProcessor.from_pretrained(CHECKPOINT, max_pixels=1605632, min_pixels=256 * 28 * 28)
    frames = torch.from_numpy(theirs).permute(0, 3, 1, 2)
    wanted = processor(text=["<|video_pad|>"], videos=[frames], video_metadata=[metadata], return_tensors="pt")

    toy = Qwen25VL.load(str(CHECKPOINT), device="cpu")
    seen = []
    toy.model.model.visual.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    video = open_video(path, POLICY)
    features = toy.encode(video.windows(32), len(video.plan.indices), video.plan.second_per_grid)
    torch.testing.assert_close(torch.cat(seen), wanted["pixel_values_videos"])
    assert list(features.grid) == wanted["video_grid_thw"][0].tolist()
    assert features.second_per_grid == pytest.approx(float(wanted["second_per_grid_ts"][0]), rel=1e-6)


def test_a_variable_of_the_environment_that_changes_sizes_is_refused(make_video, monkeypatch):
    path = make_video()
    monkeypatch.setenv("MODEL_SEQ_LEN", "32000")
    with pytest.raises(UserError, match="MODEL_SEQ_LEN=32000 changes the sizes of frames.*unset MODEL_SEQ_LEN"):
        open_video(path, POLICY)
