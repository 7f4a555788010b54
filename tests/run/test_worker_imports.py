"""What a worker loads: as many run side by side as there are accelerators, and each pays for what it imports."""

import dataclasses
import os
import pickle
import subprocess
import sys

from fake_model import make_cell, make_questions, make_video

from harness.run.work import OpenCell, Order, find_work
from harness.settings.compose import REPO
from harness.settings.groups import RunConfig
from harness.store import Manifest, open_cell, read_answers, read_outcomes

HEAVY = {
    "lmms_eval", "datasets", "evaluate", "matplotlib", "pandas", "pyarrow", "statsmodels", "hydra", "omegaconf", "rich",
}  # fmt: skip
"""Of the commands around a worker, none of its own."""
OF_TRANSFORMERS = {"transformers", "scipy", "jinja2", "torchvision"}
"""Nothing of ours asks for these; they come with a model of transformers."""

WORKER = """
import pickle, sys
import harness.run.worker
from harness.run.worker import work
order = pickle.load(sys.stdin.buffer)
print(*sys.modules, file=sys.stderr)
status = work(order)
print(*sys.modules)
sys.exit(status)
"""


def test_a_worker_imports_what_answering_needs(tmp_path):
    cell = make_cell(context=60)
    model = dataclasses.replace(
        cell.model, name="toy", adapter="harness.models.qwen2_5_vl.Qwen25VL", path=str(REPO / "harness/toy/checkpoint")
    )
    cell = dataclasses.replace(cell, model=model)
    folder = tmp_path / "runs" / "cell"
    open_cell(folder, Manifest("cell", cell.digest, {}))
    (question,) = make_questions([make_video(tmp_path, "v", frames=8)], 1)
    question = dataclasses.replace(question, prompt="What colour is the ring?")
    opened = OpenCell(cell, folder, [question], read_outcomes(folder))
    logs = tmp_path / "logs" / "start"
    logs.mkdir(parents=True)
    order = Order((find_work("group", [opened], RunConfig(prefetch=0)),), RunConfig(prefetch=0), logs)
    environment = {**os.environ, "PYTHONPATH": str(REPO), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", WORKER]
    done = subprocess.run(command, input=pickle.dumps(order), capture_output=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-2000:] + (logs / "worker-0.log").read_text()
    assert read_answers(folder)["v-q0"].ok
    first = set(done.stderr.decode().splitlines()[0].split())
    assert "harness.run.loop" in first and not (HEAVY | OF_TRANSFORMERS) & first
    assert not HEAVY & set(done.stdout.decode().split())
