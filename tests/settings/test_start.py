"""What a verb imports before it has anything to compute: no torch where only settings and stored answers are read."""

import subprocess
import sys

import pytest

from harness.settings.compose import REPO

CELLS = """
from harness.settings.compose import compose_config, options
from harness.settings.matrix import build_cells
words = ["matrix.method=[" + ",".join(options("method")) + "]", "task=mlvu", "model.device=cpu"]
assert len(build_cells(compose_config(words), [])) > 30
"""
MODULES = "harness.report.report harness.gate.check harness.tools.compare harness.tools.submit harness.plan.plan"
TOOLS = "harness.tools.exchange.importing harness.tools.exchange.exporting harness.tools.bridge.bridge"


@pytest.mark.parametrize("code", [CELLS, *(f"import {name}" for name in f"{MODULES} {TOOLS}".split())])
def test_no_torch(code):
    program = f"{code}\nimport sys\nprint(*sorted({{'torch', 'transformers', 'scipy.stats'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
