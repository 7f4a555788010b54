"""What the pages of answers cost: to write, to open in a browser, to filter.

    .venv/bin/python scripts/bench_explorer.py                                     # 50,000 answers to 7,760 questions
    .venv/bin/python scripts/bench_explorer.py --answers 93120
    .venv/bin/python scripts/bench_explorer.py --answers 3104 --questions 776      # small, for a look
    .venv/bin/python scripts/bench_explorer.py --results results --data data/toy   # a store that is there

The store is made as `scripts/bench_scale.py` makes its own. The pages are opened from the disk in the system's Chromium
without a head (Debian: apt-get install chromium chromium-driver). Opening lasts from the start of the navigation until
the first page of the table is laid out; a filter from the input until then. Of a filter the processor's time is judged,
and the time on the clock, which other programs prolong, is printed beside it. Memory is that of the page's process.

Prints a line per figure with what it should be at most and, as its last line, one JSON object; status 1 where one of
them is more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

LIMITS = {"open_ms": 2000, "memory_mib": 300, "slowest_filter_ms": 100}
FILTERS: list[dict[str, str]] = [
    {"group": "0"}, {"category": "1"}, {"duration": "0"}, {"outcome": "w"}, {"outcome": "flip"},
    {"a": "0", "outcome": "w"}, {"a": "0", "b": "1", "outcome": "flip"}, {"a": "0", "b": "1", "outcome": "onlyA"},
    {"search": "w"}, {"search": "which shape"}, {"search": "no such words"},
    {"search": "r3x", "a": "0", "b": "1", "outcome": "flip"},
]  # fmt: skip
REPEATS = 5
SET = """const began = performance.now();
for (const [name, value] of Object.entries(arguments[0])) document.getElementById(name).value = value;
document.getElementById("filters").dispatchEvent(new Event("input"));
document.body.offsetHeight;
return [performance.now() - began, document.getElementById("count").textContent];"""
OPENED = """const [navigation] = performance.getEntriesByType("navigation");
return document.body.offsetHeight && document.querySelectorAll("#table tbody a").length && navigation.loadEventEnd;"""


@contextmanager
def browser(width: int, height: int = 900, record: bool = False):
    """The system's Chromium without a head; a window of so many CSS pixels. `record`: it logs its requests too.

    Raises:
        FileNotFoundError: there is none, or no driver for it.
        ModuleNotFoundError: the package selenium is absent.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if lacking := [name for name, path in paths.items() if path is None]:
        raise FileNotFoundError(f"{' and '.join(lacking)} not found (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.binary_location = str(paths["chromium"])
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"} | ({"performance": "ALL"} if record else {}))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:  # Chromium leaves its profile and sockets
        service = Service(str(paths["chromedriver"]), env=os.environ | {"TMPDIR": own})
        driver = webdriver.Chrome(options=options, service=service)
        try:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            yield driver
        finally:
            driver.quit()


def memory_mib(driver: Any) -> float:
    """Most that a page's process holds of its own (unique set size), after its garbage is collected."""
    import psutil

    driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    processes = psutil.Process(driver.service.process.pid).children(recursive=True)
    pages = [process for process in processes if "--type=renderer" in process.cmdline()]
    return max(process.memory_full_info().uss for process in pages) / 2**20


def processor_ms(driver: Any) -> float:
    """Time that the page's main thread has computed so far."""
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return 1000 * next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")


def look(page: Path) -> dict[str, Any]:
    """Open a page some times and filter it."""
    with browser(1280) as driver:
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        opened = []
        for _ in range(REPEATS):
            driver.get("about:blank")
            driver.get(page.as_uri())
            opened.append(float(driver.execute_script(OPENED)))
        memory = memory_mib(driver)
        filters = {}
        for chosen in FILTERS:
            taken, clock, count = [], [], ""
            for _ in range(REPEATS):
                driver.execute_script("document.getElementById('filters').reset();")
                time.sleep(0.05)  # until the table without filters is drawn
                before = processor_ms(driver)
                milliseconds, count = driver.execute_script(SET, chosen)
                taken.append(processor_ms(driver) - before)
                clock.append(milliseconds)
            name = " ".join(f"{key}={value}" for key, value in chosen.items())
            filters[name] = statistics.median(taken), statistics.median(clock), count
        errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        after = memory_mib(driver)
    for name, (taken_ms, clock_ms, count) in filters.items():
        print(f"  filter {name:40} {taken_ms:6.1f} ms of the processor, {clock_ms:6.1f} ms; {count}")
    return {
        "open_ms": round(statistics.median(opened)),
        "memory_mib": round(max(memory, after)),
        "slowest_filter_ms": round(max(each[0] for each in filters.values()), 1),
        "errors": errors,
    }


def write(results: Path, data: Path, folder: Path) -> dict[str, Any]:
    """Write the pages of a results folder."""
    from harness.evidence.loading import load_cells
    from harness.report.explorer.page import write_explorer

    cells = load_cells(results)
    for cell in cells:  # the tables of a report need these anyway
        for parser in (cell.parser, *cell.other_parsers):
            cell.correct(parser)
    began = time.process_time()
    write_explorer(cells, folder.parent, data)
    taken = time.process_time() - began
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    answers = sum(len(cell.answers) for cell in cells)
    return {"answers": answers, "write_cpu_s": round(taken, 2), "size_mib": round(size / 2**20, 1)}


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=50_000, help="at least so many")
    parser.add_argument("--questions", type=int, default=7760, help="of all benchmarks together")
    parser.add_argument("--results", type=Path, help="a results folder (a store is made by default)")
    parser.add_argument("--data", type=Path, default=REPO / "data" / "toy", help="its data root")
    arguments = parser.parse_args(words)
    folder = Path(tempfile.mkdtemp(prefix="bench-explorer-"))
    try:
        results, data = arguments.results, arguments.data
        if results is None:
            from bench_scale import make_store

            from harness.toy.benchmarks import build

            build(folder / "toy")
            make_store(
                folder / "toy", folder / "store", arguments.questions, -(-arguments.answers // arguments.questions)
            )
            results, data = folder / "store" / "results", folder / "store" / "data"
        found = write(results, data, folder / "explorer")
        found |= look(folder / "explorer" / "index.html")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in found.items():
        print(f"{name:18} {value}{f'  (at most {LIMITS[name]})' if name in LIMITS else ''}")
    print(json.dumps(found))
    return int(bool(found["errors"]) or any(found[name] > most for name, most in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
