"""From planned cells to durable answers: the loop over videos, workers, engines, supervision, progress."""

from harness.settings.verbs import Verb

VERBS = [
    Verb("doctor", "harness.run.doctor", "check environment, accelerator, versions, disk, data and weights"),
    Verb("run", "harness.run.run", "answer every question of a matrix, or those that are missing", "run"),
]
