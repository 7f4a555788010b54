"""The verb of reporting."""

from harness.settings.verbs import Verb

VERBS = [
    Verb("report", "harness.report.report", "tables, intervals and verdicts from the stored answers", "report"),
]
