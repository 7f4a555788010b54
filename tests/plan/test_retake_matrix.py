"""The cells of ReTaKe's table: the frames, contexts and switches of its published configurations."""

from harness.settings.compose import compose_config
from harness.settings.matrix import build_cells
from harness.verdicts.expected import load_tables


def facts(cells):
    return {
        (c.task.name, c.model.name, c.method.name, c.video.max_frames, c.video.fps, c.context): (
            getattr(c.method, "reforge", None),
            getattr(c.method, "quirks", {}).get("key_patches", False),
        )
        for c in cells
    }


def test_cells_are_those_of_the_published_configurations():
    found = facts(build_cells(compose_config(["matrix=retake", "profile=published", "model.path=nowhere"]), []))
    assert len(found) == 16
    for model, frames, base, context in (("qwen2_vl_7b", 2048, 256, 32000), ("llava_video_7b", 1024, 64, 40000)):
        for task in ("videomme", "mlvu", "longvideobench", "lvbench"):
            fps = 2.0 if task == "lvbench" else 4.0
            assert (task, model, "none", base, fps, None) in found
            switches = found[task, model, "retake", frames, fps, context]
            assert switches == (True, (task, model) != ("videomme", "qwen2_vl_7b"))
    toy = facts(build_cells(compose_config(["matrix=retake", "profile=toy"])))
    assert len(toy) == 8 and {(model, frames) for _, model, _, frames, _, _ in toy} == {("toy", 64), ("toy", 256)}


def test_published_numbers_of_the_base_meet_a_cell():
    table = next(table for table in load_tables("results/expected") if table.id == "R")
    cells = build_cells(compose_config(["matrix=retake", "profile=published", "model.path=nowhere"]), [])
    for number in table.numbers.values():
        wanted = tuple(number.setting[key] for key in ("task", "model", "method", "frames"))
        assert any((c.task.name, c.model.name, c.method.name, c.video.max_frames) == wanted for c in cells)
