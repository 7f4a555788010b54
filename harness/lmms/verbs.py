"""The verb of scoring."""

from harness.settings.verbs import Verb

VERBS = [Verb("score", "harness.lmms.score", "score the stored answers through lmms-eval")]
