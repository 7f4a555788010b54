"""Writes the ids of both subsets of a task for the annotation on this machine.

python scripts/write_subsets.py NAME task=mlvu data.root=DIR
"""

import sys
from pathlib import Path

from harness.benchmarks.questions import write
from harness.settings.compose import compose_config

if __name__ == "__main__":
    config = compose_config(sys.argv[2:])
    print(*write(sys.argv[1], config.task, Path(config.data.root)), sep="\n")
