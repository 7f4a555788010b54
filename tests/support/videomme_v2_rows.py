"""Rows of Video-MME-v2 in its schema."""

from __future__ import annotations


def videomme_v2_row(video: str, place: int, kind: str, structure: str | None, level: str) -> dict:
    return {
        "video_id": video,
        "question_id": f"{video}-{place}",
        "question": "What is on the table?",
        "options": "\n".join(f"{letter}. thing {k}." for k, letter in enumerate("ABCDEFGH")),
        "answer": "ABCDEFGH"[(int(video) + place) % 8],
        "group_type": kind,
        "group_structure": structure,
        "level": level,
        "second_head": f"head {level}",
        "third_head": "Counting",
    }
