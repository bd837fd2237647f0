"""Bulk prediction killed again and again: is the output the one of an unbroken run, byte for byte?

    python benchmarks/kill_predict.py -o benchmarks/results/DATE-kills-predict.json

A tiny encoder over made-up rows, for CSV, JSON lines and Parquet in turn. Each sitting is a process of its own that is
killed (SIGKILL) at a random moment after its first row is there; the last may end. The machine need not be idle.
"""

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from made_up import csv_to_parquet, write_classifier, write_rows

from newslora import files
from newslora.runtime import environment_record, pick_device, resolve_precision

FORMATS = ("csv", "jsonl", "parquet")
# forkserver: torch is imported once, and each child starts from a clean, single-threaded state
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "peft", "transformers", "newslora.predict.bulk", "pyarrow.parquet"])


def sitting(run: Path, source: Path, output: Path, commit_seconds: float) -> None:
    """In a child: what `newslora predict` does."""
    from newslora.config import DataSettings
    from newslora.predict import partial
    from newslora.predict.bulk import predict_source
    from newslora.predict.classifier import Classifier

    partial.COMMIT_SECONDS = commit_seconds
    predict_source(Classifier.load(run), str(source), output, DataSettings())


def start(run: Path, source: Path, output: Path, commit_seconds: float) -> Any:
    child = CONTEXT.Process(target=sitting, args=(run, source, output, commit_seconds))
    child.start()
    return child


def grown(rows: Path) -> int:
    """When they last grew, in nanoseconds; 0 where they are not there yet, or no longer."""
    try:
        return rows.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def kill_until_done(run: Path, source: Path, output: Path, kills: int, longest: float, rng: random.Random) -> int:
    """Kill sittings until `kills` are dead, then let one end; returns the dead."""
    dead, rows = 0, output.with_name(output.name + ".partial") / "rows"
    while True:
        # half of the sittings commit at every chunk, so that many kills fall into a commit
        child = start(run, source, output, rng.choice([0.0, 1.0]))
        if dead < kills:
            while child.is_alive() and not (before := grown(rows)):
                time.sleep(0.005)
            while child.is_alive() and grown(rows) == before:
                time.sleep(0.005)
            child.join(rng.uniform(0, longest))
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
        child.join()
        if child.exitcode == 0:
            return dead
        if child.exitcode != -signal.SIGKILL:
            raise SystemExit(f"a sitting ended with {child.exitcode}")
        dead += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--size", type=int, default=60_000_000, help="bytes of each file of rows")
    parser.add_argument("--longest", type=float, default=1.5, help="seconds a sitting may live after its first row")
    chosen = parser.parse_args()
    rng, points = random.Random(0), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = write_classifier(folder)
        rows = {
            "csv": write_rows(folder / "rows.csv", chosen.size),
            "jsonl": write_rows(folder / "rows.jsonl", chosen.size),
        }
        csv_to_parquet(folder / "rows.csv", folder / "rows.parquet")
        rows["parquet"] = rows["csv"]
        for place, kind in enumerate(FORMATS):
            source, unbroken, output = (folder / f"{stem}.{kind}" for stem in ("rows", "unbroken", "out"))
            whole = start(run, source, unbroken, 1.0)
            whole.join()
            dead, wanted = 0, (chosen.kills + place) // len(FORMATS)
            files_made = same = 0
            while dead < wanted:  # a file may be whole before it was killed often enough: then once more
                dead += kill_until_done(run, source, output, wanted - dead, chosen.longest, rng)
                files_made, same = files_made + 1, same + (output.read_bytes() == unbroken.read_bytes())
                output.unlink()
            points.append(
                {"format": kind, "rows": rows[kind], "kills": dead, "files": files_made, "files_the_same": same}
            )
            print(points[-1], flush=True)
    device = pick_device("cpu")
    result = {
        "what": "bulk prediction killed at random moments and started again, against an unbroken run",
        "timed": False,
        "settings": {"kills": chosen.kills, "size": chosen.size, "longest": chosen.longest},
        "environment": environment_record(device, resolve_precision("fp32", device)),
        "points": points,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    files.write_json(chosen.output, result)


if __name__ == "__main__":
    main()
