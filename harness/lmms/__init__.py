"""The one bridge to lmms-eval: its model class, its tasks, scoring by replay."""

from harness.settings.verbs import Verb

VERBS = [Verb("score", "harness.lmms.score", "score the stored answers through lmms-eval")]
