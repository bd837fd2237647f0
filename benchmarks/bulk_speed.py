"""Bulk prediction beside its engine: rows a second of `newslora predict`, and of `Classifier.logits` on rows already tokenised.

    python benchmarks/bulk_speed.py RUN --data test.csv -o benchmarks/results/DATE-bulk-minilm.json
    python benchmarks/bulk_speed.py RUN/exports/onnx-int8 --data test.csv --rows 4096 -o ...

RUN is a run or an export; texts are --data's (title and description), as JSON lines in a temporary file, never kept. The
command runs as users run it, a process of its own each time; the engine in another one that stays; by turns, each first every
other round, the other idle. Medians of --rounds; no round of the command warms the next.

Of the command, as seen from outside by what it writes, looked at 200 times a second:
`start_seconds`  until it begins with the rows (OUTPUT.partial is there): imports, weights, the input's hash
`whole`          rows a second from then until the output has its name: all of its work with rows
`steady`         rows a second from the end of the first chunk (1,024 rows) to that of the last: reading, tokenising, writing
                 and committing included. Two chunks are tokenised ahead, so two of those in it came with their tokens: have ten
                 or more. Left out are the first shapes, which cost code generation, as the engine's first pass is.
`end_seconds`    from the output's name to the process's end

With --one-process both run in one process that has computed all of it once, `predict_source` and `Classifier.logits` by turns:
what reading, tokenising and writing cost, without what one process has and another has not. `ratio` is of each round's two.
Run it on an idle machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bulk_memory import size_of
from engine_alone import OWN_PRECISION, EngineAlone, environment, read_texts, run_facts

from newslora import files
from newslora.config import DataSettings
from newslora.predict.bulk import predict_source
from newslora.predict.chunks import CHUNK
from newslora.predict.classifier import Classifier
from newslora.predict.partial import PLAN, ROWS
from newslora.runtime import collect_seldom, keep_freed_memory

LOOK = 0.005  # seconds between looks


def predict(run: Path, source: Path, output: Path, precision: str | None) -> dict[str, float]:
    """One run of the command, watched."""
    partial = output.with_name(output.name + ".partial")
    command = [sys.executable, "-m", "newslora", "predict", str(run), str(source), "-o", str(output)]
    looks: list[tuple[float, int]] = []  # when the rows grew, and to how many bytes
    began = time.perf_counter()
    first = named = 0.0
    child = subprocess.Popen([*command, *(["--precision", precision] if precision else [])], stderr=subprocess.PIPE)
    while child.poll() is None:
        now = time.perf_counter()
        if not first and (partial / PLAN).exists():
            first = now
        if not named and output.exists():
            named = now
        size = size_of(partial / ROWS)
        if size > (looks[-1][1] if looks else 0):
            looks.append((now, size))
        time.sleep(LOOK)
    ended = time.perf_counter()
    assert child.stderr is not None
    if child.returncode:
        raise SystemExit(f"newslora predict ended with {child.returncode}: {child.stderr.read().decode()[-2000:]}")
    child.stderr.close()
    written = output.read_bytes()
    output.unlink()
    rows = written.count(b"\n")
    if len(looks) < 2 or not first:
        raise SystemExit(f"{rows} rows are too few to tell a steady part: have many times {CHUNK}.")
    (start, size), (end, last) = looks[0], looks[-1]
    named = named or ended
    return {
        "rows": rows,
        "start_seconds": first - began,
        "whole": rows / (named - first),
        "steady": written.count(b"\n", size, last) / (end - start),
        "end_seconds": ended - named,
    }


def measure(given: argparse.Namespace, texts: list[str], export: str | None) -> dict[str, Any]:
    """Both, by turns."""
    rounds: list[dict[str, float]] = []
    alone: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, held = folder / "rows.jsonl", folder / "texts.json"
        files.write_text(source, "".join(json.dumps({"text": text}) + "\n" for text in texts))
        files.write_json(held, texts)
        precision = None if export in OWN_PRECISION else given.precision
        with EngineAlone(given.run, given.precision, held) as engine:
            for turn in range(given.rounds):
                for way in ("predict", "engine") if turn % 2 == 0 else ("engine", "predict"):
                    if way == "engine":
                        alone.append(len(texts) / engine.logits_seconds())
                        print(f"round {turn + 1}: engine {alone[-1]:.1f} rows/s", flush=True)
                        continue
                    rounds.append(predict(given.run, source, folder / "out.jsonl", precision))
                    if rounds[-1]["rows"] != len(texts):
                        raise SystemExit(f"{rounds[-1]['rows']} rows came out of {len(texts)}.")
                    print(
                        f"round {turn + 1}: predict {rounds[-1]['steady']:.1f} rows/s, whole {rounds[-1]['whole']:.1f}, "
                        f"start-up {rounds[-1]['start_seconds']:.1f} s",
                        flush=True,
                    )
            facts = engine.facts
    told = {what: summary([one[what] for one in rounds]) for what in rounds[0] if what != "rows"}
    engine_rate = summary(alone)
    return {
        "predict": told,
        "engine": engine_rate,
        "engine_facts": facts,
        "steady / engine": told["steady"]["median"] / engine_rate["median"],
        "whole / engine": told["whole"]["median"] / engine_rate["median"],
    }


def measure_in_one(given: argparse.Namespace, texts: list[str], export: str | None) -> dict[str, Any]:
    """Both by turns in this process."""
    keep_freed_memory()  # as newslora's commands do
    collect_seldom()
    classifier = Classifier.load(given.run, None, "fp32" if export in OWN_PRECISION else given.precision)
    tokens = classifier.rows(texts)
    seconds: dict[str, list[float]] = {"predict": [], "engine": []}
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / "rows.jsonl", Path(name) / "out.jsonl"
        files.write_text(source, "".join(json.dumps({"text": text}) + "\n" for text in texts))
        works: dict[str, Callable[[], object]] = {
            "predict": lambda: predict_source(classifier, str(source), output, DataSettings(), fresh=True),
            "engine": lambda: classifier.logits(tokens),
        }
        for turn in range(given.rounds + 1):
            for way in list(works)[:: 1 if turn % 2 == 0 else -1]:
                output.unlink(missing_ok=True)
                began = time.perf_counter()
                works[way]()
                if turn:  # before, each shape is met for the first time
                    seconds[way].append(time.perf_counter() - began)
                    print(f"round {turn}: {way} {len(texts) / seconds[way][-1]:.1f} rows/s", flush=True)
    rates = {way: summary([len(texts) / one for one in each]) for way, each in seconds.items()}
    ratios = [ours / alone for ours, alone in zip(rates["predict"]["rounds"], rates["engine"]["rounds"], strict=True)]
    return rates | {"ratio": summary(ratios)}


def summary(some: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(some), "lowest": min(some), "highest": max(some), "rounds": some}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", default="corpus", help="where texts come from, as `newslora predict` takes it")
    parser.add_argument(
        "--rows", type=int, default=16 * CHUNK, help="texts a round; a source with fewer gives them again"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one-process", action="store_true", help="both in this process, by turns")
    parser.add_argument("--precision", default="fp32", help="of a run; most exports have their own")
    given = parser.parse_args()
    if not given.one_process and given.rows < 3 * CHUNK:
        parser.error(
            f"--rows {given.rows} is too few to tell a steady part: 3 chunks of {CHUNK} at least, 10 or more tell it well"
        )
    before = os.getloadavg()
    run = run_facts(given.run)
    texts, data = read_texts(given.data, given.rows)
    found = (measure_in_one if given.one_process else measure)(given, texts, run["export"])
    result = {
        "what": "rows a second of newslora predict beside its engine alone, by turns",
        "run": run,
        "texts": data,
        "settings": {"rounds": given.rounds, "rows_a_chunk": CHUNK, "one_process": given.one_process},
        "load_average_before": before,
        "environment": environment(run["export"], given.precision),
        **found,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    files.write_json(given.output, result)
    if given.one_process:
        print(f"predict / engine {found['ratio']['median']:.1%}")
    else:
        print(f"steady / engine {found['steady / engine']:.1%}, whole / engine {found['whole / engine']:.1%}")


if __name__ == "__main__":
    main()
