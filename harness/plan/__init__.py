"""From a matrix to cells, their identity, and what they will cost; nothing here answers a question."""

from harness.settings.verbs import Verb

VERBS = [
    Verb("plan", "harness.plan.plan", "cells, questions, videos and hours of a matrix, before anything runs", "matrix"),
]
