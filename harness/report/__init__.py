"""Scores, statistics, verdicts, tables and figures from stored answers."""

from harness.settings.verbs import Verb

VERBS = [
    Verb("report", "harness.report.report", "tables, intervals and verdicts from the stored answers", "report"),
]
