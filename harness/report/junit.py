"""The gate's verdicts as a JUnit file, the format that continuous integration shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from harness.report.check import CellCheck


def junit(name: str, checks: Sequence[CellCheck]) -> str:
    """One test case per cell; a regression is a failure, an incomplete or drifted cell an error."""
    from harness.report.check import PASS, REGRESSION

    failures = sum(c.verdict == REGRESSION for c in checks)
    errors = sum(c.verdict not in (PASS, REGRESSION) for c in checks)
    counts = {"tests": str(len(checks)), "failures": str(failures), "errors": str(errors)}
    suite = ElementTree.Element("testsuite", name=f"harness check {name}", **counts)
    for c in checks:
        case = ElementTree.SubElement(suite, "testcase", classname=f"check.{name}", name=c.name)
        if c.verdict != PASS:
            tag = "failure" if c.verdict == REGRESSION else "error"
            problem = ElementTree.SubElement(case, tag, type=c.verdict, message=c.reason)
            problem.text = "\n".join(c.details)
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"
