"""Records on disk: answers, questions and the manifest of each cell. Standard library only."""

from harness.store.answers import Answer, AnswerLog, answer_files, failed_answer, iter_answers, read_answers
from harness.store.atomic import StoreError, write_atomic
from harness.store.lock import FolderLock
from harness.store.manifest import Manifest, note_start, open_cell, read_manifest, set_status, write_manifest
from harness.store.questions import QuestionRecord, read_questions, write_questions

__all__ = [
    "Answer",
    "AnswerLog",
    "FolderLock",
    "Manifest",
    "QuestionRecord",
    "StoreError",
    "answer_files",
    "failed_answer",
    "iter_answers",
    "note_start",
    "open_cell",
    "read_answers",
    "read_manifest",
    "read_questions",
    "set_status",
    "write_atomic",
    "write_manifest",
    "write_questions",
]
