"""The verbs of getting data."""

from harness.settings.verbs import Verb

VERBS = [
    Verb("prepare", "harness.fetch.prepare", "download or unpack a benchmark, or build the toy", "data"),
    Verb("verify", "harness.fetch.verify", "check counts and decode frames of a benchmark on disk", "data"),
]
