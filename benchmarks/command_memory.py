"""Memory of what `newslora train` does before its first step, against the rows of the file: read, check, split, tokenise.

    python benchmarks/command_memory.py -o benchmarks/results/DATE-memory-command.json

A CSV file of short made-up rows and a word-level tokenizer; each size in a process of its own, with an empty cache, then
once more from the cache. "anonymous" is the peak of RssAnon: what the system cannot take back, unlike pages of mapped files.
Memory only: the machine need not be idle.
"""

import argparse
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from made_up import LABELS, scratch, write_backbone

from newslora import files
from newslora.bench.memory import AnonymousPeak, anonymous_memory
from newslora.runtime import environment_record, pick_device, resolve_precision

ROWS = (20_000, 200_000, 2_000_000)
WORDS = 5_000


def write_csv(path: Path, rows: int) -> None:
    """Rows of 5 to 25 words; one in a thousand without a label."""
    generator = np.random.default_rng(0)
    words = [f"w{number}" for number in range(WORDS)]
    with path.open("w", encoding="utf-8") as stream:
        stream.write("label,text\n")
        for row in range(rows):
            text = " ".join(words[word] for word in generator.integers(0, WORDS, generator.integers(5, 26)))
            stream.write(f"{LABELS[row % 4] if row % 1_000 else ''},{text}\n")


def prepare_once(source: Path, backbone: Path, cache: Path, answer: Any) -> None:
    """In a process of its own: what the command does, and the memory of it."""
    import sklearn.model_selection  # noqa: F401  # counted as imports
    import torch  # noqa: F401
    import transformers  # noqa: F401

    from newslora.config import load_recipe
    from newslora.pipeline import prepare

    os.environ["NEWSLORA_CACHE"] = str(cache)
    recipe = load_recipe("seed", {"data.source": str(source), "model.backbone": str(backbone)})
    before = anonymous_memory()
    with AnonymousPeak() as anonymous:
        prepared = prepare(recipe, cache / "quarantine.jsonl")
    train = prepared.rows["train"]
    facts = {"train_rows": len(train), "tokens": int(train.tokens.offsets[-1])}
    facts["set_aside"] = len(prepared.splits.train.quarantined)
    answer.send(facts | {"anonymous_after_imports": before, "anonymous": anonymous.peak})


def measure(rows: int, folder: Path) -> dict[str, Any]:
    source, backbone, cache = folder / f"{rows}.csv", folder / "backbone", folder / f"cache-{rows}"
    write_csv(source, rows)
    context = multiprocessing.get_context("spawn")
    point: dict[str, Any] = {"rows": rows, "file": source.stat().st_size}
    for name in ("empty cache", "from the cache"):
        answers, answer = context.Pipe(duplex=False)
        child = context.Process(target=prepare_once, args=(source, backbone, cache, answer))
        child.start()
        answer.close()
        point[name] = answers.recv()
        child.join()
    return point


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="of the files; 1,000 and more")
    chosen = parser.parse_args()
    device = pick_device("cpu")
    points = []
    with scratch() as name:
        # reading and tokenising touch no weights
        write_backbone(Path(name) / "backbone", WORDS, hidden_size=8, num_attention_heads=1, intermediate_size=8)
        for rows in chosen.rows:
            points.append(point := measure(rows, Path(name)))
            peaks = ", ".join(f"{how}: {point[how]['anonymous'] / 2**20:,.0f} MiB" for how in list(point)[2:])
            print(f"{rows:,} rows, a file of {point['file'] / 2**20:,.0f} MiB: anonymous memory {peaks}", flush=True)
    result = {
        "what": "peak anonymous memory of reading, splitting and tokenising a CSV file, by its rows",
        "timed": False,
        "environment": environment_record(device, resolve_precision("fp32", device)),
        "points": points,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    files.write_json(chosen.output, result)


if __name__ == "__main__":
    main()
