"""Getting a benchmark onto the disk, and checking it there."""

from harness.settings.verbs import Verb

VERBS = [
    Verb(
        "prepare", "harness.fetch.prepare", "download or unpack a benchmark, or build the toy", "data", single=("task",)
    ),
    Verb(
        "verify",
        "harness.fetch.verify",
        "check counts and decode frames of a benchmark on disk",
        "data",
        single=("task",),
    ),
]
