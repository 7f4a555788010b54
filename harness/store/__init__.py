"""Records on disk: answers, questions and the manifest of each cell. Standard library and filelock only."""

from harness.store.answers import (
    Answer,
    AnswerLog,
    Outcome,
    Outcomes,
    answer_files,
    failed_answer,
    files_now,
    is_needed,
    iter_answers,
    now,
    outcomes_of,
    read_answers,
    read_outcomes,
)
from harness.store.frames import FrameRecords, SeenFrames
from harness.store.manifest import Manifest, note_start, open_cell, read_manifest, set_status, write_manifest
from harness.store.questions import QuestionRecord, read_questions, write_questions
from harness.store.records import StoreError, hold, write_atomic

__all__ = [
    "Answer",
    "AnswerLog",
    "FrameRecords",
    "Manifest",
    "Outcome",
    "Outcomes",
    "QuestionRecord",
    "SeenFrames",
    "StoreError",
    "answer_files",
    "failed_answer",
    "files_now",
    "hold",
    "is_needed",
    "iter_answers",
    "note_start",
    "now",
    "open_cell",
    "outcomes_of",
    "read_answers",
    "read_manifest",
    "read_outcomes",
    "read_questions",
    "set_status",
    "write_atomic",
    "write_manifest",
    "write_questions",
]
