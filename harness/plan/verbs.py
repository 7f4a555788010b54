"""The verb of planning."""

from harness.settings.verbs import Verb

VERBS = [
    Verb("plan", "harness.plan.plan", "cells, questions, videos and hours of a matrix, before anything runs", "matrix"),
]
