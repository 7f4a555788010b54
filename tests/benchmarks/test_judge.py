"""The judge of MLVU's generation tasks, against an endpoint that runs here."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.files import TASKS
from harness.errors import UserError
from harness.store import Answer, AnswerLog

spec = importlib.util.spec_from_file_location("mlvu_judge", TASKS / "mlvu" / "judge.py")
judge = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = judge
spec.loader.exec_module(judge)

SUBPLOT = {"question_id": "s1", "question_type": "subPlot", "question": "What happens?", "scoring_points": ["a", "b"]}
SUMMARY = {"question_id": "s2", "question_type": "summary", "question": "Sum up.", "answer": "The reference."}


@pytest.fixture
def served():
    """An endpoint that gives the replies in `replies`, in order, and keeps what it was asked."""

    class Endpoint(BaseHTTPRequestHandler):
        replies: list[str] = []
        asked: list[dict] = []

        def log_message(self, *args):
            pass

        def do_POST(self):
            type(self).asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps({"choices": [{"message": {"content": type(self).replies.pop(0)}}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield Endpoint
    server.shutdown()
    server.server_close()


def test_verdicts_and_means(served):
    served.replies = [
        'Good. {"accuracy": 4.5, "relevance": 5}',
        '{"completeness": 9, "reliability": 5}',  # out of range
        'First {"completeness": 1, "reliability": 1}, no: {"completeness": 3, "reliability": 4}',
    ]
    rows = [SUBPLOT, SUMMARY, {**SUMMARY, "question_id": "s3"}, {**SUMMARY, "question_id": "s4"}]
    verdicts = judge.judge(rows, {"s1": "x", "s2": "y", "s3": "z"}, judge.endpoint(served.url, "m", None))
    assert [v.scores for v in verdicts] == [
        {"accuracy": 4.5, "relevance": 5.0},
        None,
        {"completeness": 3.0, "reliability": 4.0},
    ]
    assert judge.summary(verdicts) == {"subPlot": 9.5, "summary": 7.0, "g_avg": 8.25, "judged": 2, "unjudged": 1}
    assert served.asked[0]["temperature"] == 0 and served.asked[0]["model"] == "m"
    assert "Reference answer: The reference.\nAnswer to judge: y" in served.asked[1]["messages"][0]["content"]


def test_one_task_alone_has_no_average():
    assert "g_avg" not in judge.summary([judge.read_verdict(SUMMARY, '{"completeness": 1, "reliability": 2}')])


def test_an_empty_answer_gets_the_lowest_scores_unasked():
    (verdict,) = judge.judge([SUBPLOT], {"s1": " "}, ask=lambda text: pytest.fail("was asked"))
    assert verdict.total == 2


def test_endpoint_out_of_reach():
    with pytest.raises(UserError, match="the judge at http://127.0.0.1:9 .model m. gave no answer"):
        judge.endpoint("http://127.0.0.1:9", "m", None)("text")


def test_a_stored_cell(served, root, folder, tmp_path, capsys):
    (row,) = benchmark("mlvu").load(folder("mlvu"), "generation")
    assert row["question_type"] == "subPlot"
    assert benchmark("mlvu").prompt(row, "release", folder("mlvu")) == "Describe the scene."
    with AnswerLog(tmp_path) as log:
        log.append(Answer(row["question_id"], "movie_2", "ok", text="A scene."))
    served.replies = ['{"accuracy": 3, "relevance": 4}']
    argv = ["--cell", str(tmp_path), "--root", str(root), "--url", served.url, "--model", "m"]
    assert judge.main(argv) == 0
    assert json.loads(capsys.readouterr().out) == {"subPlot": 7.0, "judged": 1, "unjudged": 0}
