"""Bugs planted in the code that answers: the regression check refuses each of them.

A bug is planted by replacing one function; the toy is run with it, and checked against a baseline of the sound code.
"""

import dataclasses

import numpy as np
import pytest
from verbs import composed

import harness.compress.allocation as allocation
import harness.compress.generate as generating
import harness.compress.methods.adaretake.paper as paper
import harness.compress.methods.random as drawn
import harness.evidence.statistics as statistics
import harness.gate.baseline as gate
import harness.gate.check as checking
import harness.run.run as running
import harness.video.read_pyav as reader
from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.parse import PARSERS
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt
from harness.settings.compose import compose_config
from harness.toy.benchmarks import build

WORDS = [
    "matrix=main_results", "matrix.frames=[64]", "matrix.subset=null", "matrix.context=[100]", "model.device=cpu",
    "engine.threads=1", "video.backend=pyav", "method.chunk_frames=8", "matrix.method=[adaretake,random]",
    "matrix.rows=[{task:[longvideobench]},{task:[videomme_long]}]",
]  # fmt: skip
UPDATE = "check.update_baseline=true"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A toy with its answers and their baseline."""
    folder = tmp_path_factory.mktemp("planted")
    build(folder / "data", scale=0.09)
    assert run(folder, "results") == 0 and check(folder, "results", UPDATE) == 0
    return folder


def words(folder, results):
    return [*WORDS, f"data.root={folder / 'data'}", f"results={folder / results}", f"report.baselines={folder}"]


def run(folder, results):
    return running.main(compose_config(words(folder, results)))


def check(folder, results, *more):
    return checking.main(*composed("check", *words(folder, results), *more))


def test_the_sound_code_passes_twice(sound):
    assert run(sound, "again") == 0 and check(sound, "again") == 0


def swapped(real):
    def rgb(self, frame):
        picture = real(self, frame)
        mean = picture.mean(-1, keepdims=True)
        return np.clip(2 * mean - picture[..., ::-1], 0, 255).astype(np.uint8)

    return rgb


def one_short(real):
    def guide(self, max_length):
        found = real(self, max_length)
        return slice(found.start + 1, found.stop)

    return guide


def third_position(real):
    def decode(self, token, ids, index):
        return real(self, token, ids + (index - self.prompt.n_prompt == 2), index)

    return decode


def earlier_remainder(shares, whole, total):
    counts, rests = [x // whole for x in shares], [x % whole for x in shares]
    for i in sorted(range(len(shares)), key=lambda i: (-rests[i], -i))[: total - sum(counts)]:
        counts[i] += 1
    return counts


def last_letter(text, options):
    found = [letter for letter in text if letter in "ABCDEFG"]
    return found[-1] if found else None


def skips_one(real):
    def find_work(name, cells, *more):
        cells = [dataclasses.replace(cell, questions=cell.questions[1:]) for cell in cells]
        return real(name, cells, *more)

    return find_work


def by_question(real):
    def sample(*arguments):
        found = real(*arguments)
        return dataclasses.replace(found, videos=np.arange(len(found.values)))

    return sample


def own_seed(real):
    return lambda self, *arguments: real(dataclasses.replace(self, seed=7), *arguments)


def shifted(real):
    return lambda path: real(path).partition(" ")[2]


BUGS = {
    "guide one token short": lambda plant: plant(Prompt, "guide", one_short(Prompt.guide)),
    "temporal budget reversed in time": lambda plant: plant(
        paper, "by_distance", lambda *arguments: allocation.by_distance(*arguments)[::-1]
    ),
    "layers permuted in the allocation": lambda plant: plant(
        paper, "pooled", lambda *arguments: allocation.pooled(*arguments)[::-1]
    ),
    "ties of rounding": lambda plant: plant(allocation, "_rounded", earlier_remainder),
    "last letter in place of the first": lambda plant: plant(PARSERS, "release", last_letter),
    "position of the third token": lambda plant: plant(Prefill, "decode", third_position(Prefill.decode)),
    "window of the subtitles": lambda plant: plant(
        benchmark("longvideobench").functions, "json_text", shifted(benchmark("longvideobench").functions.json_text)
    ),
    "no repetition penalty": lambda plant: plant(generating, "penalised", lambda logits, seen, penalty: logits),
    "U and V swapped in a reader": lambda plant: plant(reader.PyavReader, "_rgb", swapped(reader.PyavReader._rgb)),
    "resume skips a question": lambda plant: plant(running, "find_work", skips_one(running.find_work)),
    "intervals clustered by question": lambda plant: plant(gate, "sample", by_question(statistics.sample)),
    "random's seed ignored": lambda plant: plant(drawn.Random, "choose", own_seed(drawn.Random.choose)),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_refuses(sound, tmp_path, bug, monkeypatch):
    def plant(place, name, value):
        monkeypatch.setitem(place, name, value) if isinstance(place, dict) else monkeypatch.setattr(place, name, value)

    BUGS[bug](plant)
    (tmp_path / "data").symlink_to(sound / "data")
    for file in sound.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    run(tmp_path, "results")
    assert check(tmp_path, "results") in (1, 2)
