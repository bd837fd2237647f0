"""Seconds from the start of `newslora serve RUN` to a /ready that says yes.

    python benchmarks/start.py RUN --rounds 7 -o benchmarks/results/DATE-start-minilm.json
    python benchmarks/start.py RUN --beside ../other/src -o ...

With --beside, the newslora of another source folder (a git worktree's src) is started by turns with this one. A start before
the first round, not counted, reads the files into memory. Needs the extra `serve`. Run it on an idle machine.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

from engine_alone import environment, run_facts
from server_child import serving

from newslora import files
from newslora.serving.settings import ServeSettings

HERE = Path(__file__).resolve().parents[1] / "src"


def start(run: Path, source: Path) -> float:
    os.environ["PYTHONPATH"] = str(source)
    with serving(run, {}) as server:
        server.leave()
    return server.start_seconds


def measure(run: Path, sources: dict[str, Path], rounds: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    start(run, HERE)
    for turn in range(rounds):
        for name in list(sources)[:: 1 if turn % 2 == 0 else -1]:
            seconds[name].append(start(run, sources[name]))
            print(f"round {turn + 1}: {name} {seconds[name][-1]:.2f} s", flush=True)
    return {
        name: {"median": statistics.median(each), "lowest": min(each), "highest": max(each), "rounds": each}
        for name, each in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--beside", type=Path, help="another source folder of newslora")
    given = parser.parse_args()
    sources = {"here": HERE} | ({} if given.beside is None else {"beside": given.beside.resolve()})
    facts = run_facts(given.run)
    found = {
        "what": "seconds from the start of `newslora serve` to ready",
        "run": facts,
        "environment": environment(facts["export"], ServeSettings().precision),
        "seconds": measure(given.run, sources, given.rounds),
    }
    files.write_json(given.output, found)
    print(f"Result: {given.output}")


if __name__ == "__main__":
    main()
