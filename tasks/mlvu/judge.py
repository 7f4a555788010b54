"""MLVU's two generation tasks, scored by a language model behind an OpenAI-compatible endpoint.

Optional and off by default: the cells of ``task=mlvu_generation`` have no score until somebody starts
``python tasks/mlvu/judge.py``. Sub-plot captions and summaries get two scores from 1 to 5 each, added up, as
MLVU's own script asks for; G-Avg is the mean of the two tasks' means, on a scale from 2 to 10. An answer without a
valid verdict is left out and counted, never scored. Source of the criteria: MLVU (https://arxiv.org/abs/2406.04264).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.benchmarks.metrics import mean
from harness.benchmarks.questions import load_asked
from harness.errors import UserError
from harness.settings.compose import compose_config
from harness.store import read_answers

TASKS = {"subPlot": ("accuracy", "relevance"), "summary": ("completeness", "reliability")}
CRITERIA = {
    "accuracy": "how well the answer hits each scoring point: 1 missed, 3 mentioned but not quite right, 5 right; "
    "the mean over the points",
    "relevance": "how closely the answer keeps to the question: from 1, off the topic, to 5, only and surely on it",
    "completeness": "how many of the reference's key points the answer covers: from 1, hardly any, to 5, all",
    "reliability": "how free the answer is of errors and contradictions: from 1, many, to 5, none; details beyond the "
    "reference are no error unless they contradict it",
}
Ask = Callable[[str], str]


@dataclass(frozen=True)
class Verdict:
    """Scores of one answer by criterion, each from 1 to 5; None where the judge gave none that is valid."""

    question_id: str
    task: str
    scores: dict[str, float] | None

    @property
    def total(self) -> float:
        return math.nan if self.scores is None else sum(self.scores.values())


def request_text(row: dict[str, Any], answer: str) -> str:
    """What the judge is asked about one answer."""
    names = TASKS[row["question_type"]]
    criteria = "\n".join(f"- {name}: {CRITERIA[name]}" for name in names)
    if row["question_type"] == "subPlot":
        reference = "Question: {}\nScoring points: {}".format(row["question"], json.dumps(row["scoring_points"]))
    else:
        reference = f"Reference answer: {row['answer']}"
    form = json.dumps(dict.fromkeys(names, 3))
    return (
        f"Judge an answer about a video. Give each of these a number from 1 to 5:\n{criteria}\n\n{reference}\n"
        f"Answer to judge: {answer}\n\nGive a short reason, then end with one line of JSON of this form: {form}"
    )


def read_verdict(row: dict[str, Any], reply: str) -> Verdict:
    """The scores in the last JSON object of a reply."""
    names = TASKS[row["question_type"]]
    scores = None
    for text in reversed(re.findall(r"\{[^{}]*\}", reply)):
        try:
            found = json.loads(text)
            values = {name: float(found[name]) for name in names}
        except (ValueError, KeyError, TypeError):
            continue
        if all(1 <= value <= 5 for value in values.values()):
            scores = values
            break
    return Verdict(row["question_id"], row["question_type"], scores)


def judge(rows: list[dict[str, Any]], answers: dict[str, str], ask: Ask) -> list[Verdict]:
    """A verdict for every row that has an answer; an empty answer gets the lowest scores without being asked about."""
    verdicts = []
    for row in rows:
        if row["question_id"] not in answers:
            continue
        text = answers[row["question_id"]].strip()
        if text:
            verdicts.append(read_verdict(row, ask(request_text(row, text))))
        else:
            lowest = dict.fromkeys(TASKS[row["question_type"]], 1.0)
            verdicts.append(Verdict(row["question_id"], row["question_type"], lowest))
    return verdicts


def summary(verdicts: list[Verdict]) -> dict[str, float]:
    """Mean of every task that has a verdict, their mean G-Avg (only with both), and the number without a verdict."""
    result = {}
    for task in TASKS:
        totals = [v.total for v in verdicts if v.task == task and v.scores is not None]
        if totals:
            result[task] = mean(totals)
    if len(result) == len(TASKS):
        result["g_avg"] = mean(result.values())
    return result | {
        "judged": sum(v.scores is not None for v in verdicts),
        "unjudged": sum(not v.scores for v in verdicts),
    }


def endpoint(url: str, model: str, key: str | None, timeout_s: float = 120.0) -> Ask:
    """A function that asks a chat endpoint, greedy.

    Raises (when called):
        UserError: the endpoint cannot be reached or refuses.
    """

    def ask(text: str) -> str:
        body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": text}]}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(f"{url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as reply:
                return json.load(reply)["choices"][0]["message"]["content"] or ""
        except (urllib.error.URLError, TimeoutError, ValueError, KeyError, IndexError) as error:
            raise UserError(
                f"the judge at {url} (model {model}) gave no answer: {error}; check --url and --model"
            ) from error

    return ask


def main(argv: list[str]) -> int:
    """Judge a cell of task=mlvu_generation. The endpoint's key, if it needs one, is in OPENAI_API_KEY."""
    parser = argparse.ArgumentParser(prog="python tasks/mlvu/judge.py", description=main.__doc__)
    parser.add_argument("--cell", type=Path, required=True, help="its folder, below results/runs")
    parser.add_argument("--root", type=Path, default=Path("data"), help="the data root")
    parser.add_argument("--url", required=True, help="base address, for example http://localhost:8000/v1")
    parser.add_argument("--model", required=True)
    args = parser.parse_args(argv)
    task = compose_config(["task=mlvu_generation"]).task
    rows = [row for row, _ in load_asked(task, args.root)]
    answers = {answer.question_id: answer.text for answer in read_answers(args.cell).values()}
    verdicts = judge(rows, answers, endpoint(args.url, args.model, os.environ.get("OPENAI_API_KEY")))
    print(json.dumps(summary(verdicts), indent=1))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
