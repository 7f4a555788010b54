"""Files to import for tests, made by the writers of their code bases where these are installed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
ARGUMENTS = f"pretrained={MODEL},max_num_frames=64,fps=2,attn_implementation=flash_attention_2"


def lmms_samples(docs: list[dict], texts: list[str], process: Any, prompt: Any, target: str) -> list[dict]:
    """Samples as lmms-eval 0.7.3 logs them (evaluator.py, _process_document_results), with a task's own functions."""
    from lmms_eval.utils import handle_non_serializable, hash_string

    made = []
    for i, (doc, text) in enumerate(zip(docs, texts, strict=True)):
        sample = {
            "doc_id": i,
            "doc": doc,
            "target": doc[target],
            "arguments": [prompt(doc), {"max_new_tokens": 16, "until": ["\n\n"]}, i, "task", "test"],
            "resps": [[text]],
            "filtered_resps": [text],
            "token_counts": [None],
            "doc_hash": hash_string(json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)),
        }
        made.append(sample | process(doc, [text]))
    return made


def ask_lmms(task: Any, texts: list[str]) -> list[dict]:
    """The samples that lmms-eval's evaluator logs when a model says ``texts[i]`` to document i of a task of ours."""
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate

    class Says(lmms):
        is_simple = True

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [texts[request.args[3] % len(texts)] for request in requests]

        def loglikelihood(self, requests: list[Any]) -> Any:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> Any:
            raise NotImplementedError

    found = simple_evaluate(model=Says(), tasks=[task], bootstrap_iters=0, log_samples=True)
    (samples,) = found["samples"].values()
    return samples


def write_lmms(folder: Path, task: str, samples: list[dict], **results: Any) -> Path:
    """The file of samples that lmms-eval's own tracker writes, with the results beside it."""
    from lmms_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.log_experiment_args("qwen2_5_vl", ARGUMENTS, "", "", False)
    whole = {
        "results": {task: {"alias": task}},
        "configs": {task: {"task": task, "generation_kwargs": {"max_new_tokens": 16, "temperature": 0}}},
        "config": {"model": "qwen2_5_vl", "model_args": ARGUMENTS, "gen_kwargs": "", "limit": None},
        "git_hash": "abc1234",
        "lmms_eval_version": "0.7.3",
        "date": "20260101_000000",
    }
    tracker.save_results_aggregated(whole | results, {task: samples}, "20260101_000000")
    tracker.save_results_samples(task, copy.deepcopy(samples))
    (path,) = folder.rglob(f"*_samples_{task}.jsonl")
    return path


def write_lmms_before(folder: Path, task: str, samples: list[dict]) -> Path:
    """The file of 0.1 and 0.2.0: ``lmms_eval/__main__.py`` of EvolvingLMMs-Lab/lmms-eval, ``data_to_dump``."""
    config = {"task": task, "generation_kwargs": {"max_new_tokens": 16}}
    whole = {
        "args": {"model": "llava_vid", "model_args": "pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,max_frames_num=64"},
        "model_configs": config,
        "logs": samples,
        "time": "0101_0000",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task}.json"
    path.write_text(json.dumps(whole, indent=4, ensure_ascii=False), encoding="utf-8")
    return path


HOSTILE = [
    "A",
    "The answer is B.\nBecause\tit \"is\" so, 'clearly'",
    "=1+1",
    '=HYPERLINK("http://x","C")',
    "<script>alert('D')</script> & <b>B</b>",
    "答案是 C — é ü 🎬 \u2028 line",
    "",
    "  D  \r\n",
    "nan",
    "NA",
    "3",
    "\x07bell \x00nul _x0041_",
    "-2+3",
    "@SUM(A1)",
    "A,B;C|D\\n",
    '"quoted"',
]
"""Raw answers that formats mangle: formulas, line ends, tabs, quotes, HTML, controls, what readers take for absent."""


def own_cell(results: Path, root: Path, name: str, texts: list[str], failed: int | None = None) -> Path:
    """A cell of ours over the annotation of a task setting; question i says ``texts[i]``, wrapped around."""
    from cell_folders import cell_record

    from harness.benchmarks.questions import load_questions
    from harness.settings.compose import compose_config
    from harness.store import Answer, Manifest, QuestionRecord, failed_answer, write_manifest, write_questions

    task = compose_config([f"task={name}"]).task
    record = cell_record()
    fields = ("name", "data", "split", "protocol", "subset", "max_new_tokens")
    record["task"] = {key: getattr(task, key) for key in fields}
    asked = load_questions(task, root)
    folder = results / "runs" / f"{name}-own"
    write_manifest(folder, Manifest(folder.name, "0000", record | {"name": folder.name}, status="complete"))
    write_questions(folder, [QuestionRecord(q.question_id, q.video_id, q.options, q.answer, q.tags) for q in asked])
    answers = [
        failed_answer(q.question_id, q.video_id, RuntimeError("no frames"))
        if i == failed
        else Answer(q.question_id, q.video_id, "ok", text=texts[i % len(texts)])
        for i, q in enumerate(asked)
    ]
    (folder / "answers.jsonl").write_bytes(b"".join(answer.to_line(folder.name) for answer in answers))
    return folder
