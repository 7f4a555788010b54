"""Whether the frames show what a question is about."""

import pytest

from harness.run.answer import evidence_seen


@pytest.mark.parametrize(
    ("spans", "timestamps", "seen"),
    [
        ([(15.0, 19.0)], [0.0, 16.0, 32.0], True),
        ([(15.0, 19.0)], [0.0, 14.9, 19.1], False),
        ([(15.0, 15.0)], [15.0], True),  # both ends count
        ([(1.0, 2.0), (8.0, 9.0)], [1.5, 5.0], False),  # one of two
        ([(1.0, 2.0), (8.0, 9.0)], [1.5, 8.0], True),
        ([], [1.0], None),
        ([(1.0, 2.0)], [], None),
    ],
)
def test_every_span_needs_a_frame(spans, timestamps, seen):
    assert evidence_seen(spans, timestamps) is seen
