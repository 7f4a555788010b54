"""Records on disk: answers, questions and the manifest of each cell. Standard library and filelock only."""

from harness.store.answers import Answer, answer_files, failed_answer, is_needed, iter_answers, now, read_answers
from harness.store.log import AnswerLog
from harness.store.manifest import Manifest, note_start, open_cell, read_manifest, set_status, write_manifest
from harness.store.questions import QuestionRecord, read_questions, write_questions
from harness.store.records import StoreError, hold, write_atomic

__all__ = [
    "Answer",
    "AnswerLog",
    "Manifest",
    "QuestionRecord",
    "StoreError",
    "answer_files",
    "failed_answer",
    "hold",
    "is_needed",
    "iter_answers",
    "note_start",
    "now",
    "open_cell",
    "read_answers",
    "read_manifest",
    "read_questions",
    "set_status",
    "write_atomic",
    "write_manifest",
    "write_questions",
]
