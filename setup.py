"""Everything but one step is in pyproject.toml: a wheel carries the data that a checkout has beside the package."""

from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py

DATA = ("conf", "tasks", "results/expected", "results/baselines", "results/recipes")


class BuildWithData(build_py):
    """Copies the folders of `DATA` to ``harness/shipped``; an editable install finds them in place."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        shipped = Path(self.build_lib, "harness", "shipped")
        rmtree(shipped, ignore_errors=True)
        for folder in DATA:
            copytree(folder, shipped / folder, ignore=ignore_patterns("__pycache__", "local"))


setup(cmdclass={"build_py": BuildWithData})
