"""News texts to labels, tokenisation included: newslora beside the tools people would otherwise take.

    python benchmarks/peers.py RUN --data test.csv -o benchmarks/results/DATE-peers-mpnet.json [--infinity PYTHON]

RUN is a run whose exports merged, onnx and int8 lie in RUN/exports, and onnx-int8 where its gate let it pass. Every way gets
the same texts in the same order and gives a label each; by turns, each round begun by the next way; the first round
warms up and is not counted. Batches are of 16 wherever one is to be chosen. How many labels are those of the run in fp32 stands
beside each rate. Run it on an idle machine.

ways: `transformers pipeline` (its text-classification pipeline on the merged export), the same in bf16; `onnxruntime` (the
onnx export, batches padded to their longest, rows as they come), the same in int8 (the onnx-int8 export); `infinity`
(infinity-emb's engine in PYTHON's environment on the merged export, in a process of its own; pip install infinity-emb[torch]);
`newslora` on the run in fp32, in `auto`, and on its int8 export, as `newslora predict` computes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine_alone import environment, read_texts, run_facts

from newslora import Classifier, files
from newslora.runtime import keep_freed_memory

BATCH = 16
Way = Callable[[list[str]], list[str]]  # texts -> labels


def pipeline(folder: Path, dtype: str) -> Way:
    import torch
    from transformers import pipeline

    made: Any = pipeline("text-classification", model=str(folder), dtype=getattr(torch, dtype), device="cpu")
    return lambda texts: [one["label"] for one in made(texts, batch_size=BATCH, truncation=True)]


def onnxruntime_alone(folder: Path) -> Way:
    import onnxruntime
    import torch
    from transformers import AutoConfig, AutoTokenizer

    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)

    def labels(texts: list[str]) -> list[str]:
        found: list[str] = []
        for start in range(0, len(texts), BATCH):
            tokens = tokenizer(texts[start : start + BATCH], truncation=True, padding=True, return_tensors="np")
            fed = {name: tokens[name] for name in ("input_ids", "attention_mask")}
            found += [config.id2label[int(place)] for place in session.run(["logits"], fed)[0].argmax(axis=1)]
        return found

    return labels


def infinity(python: str, folder: Path) -> Way:
    script = Path(__file__).with_name("peers_infinity.py")
    command = [python, str(script), str(folder), str(BATCH)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    asked, told = child.stdin, child.stdout

    def labels(texts: list[str]) -> list[str]:
        asked.write(json.dumps(texts) + "\n")
        asked.flush()
        for line in told:
            if line.startswith("LABELS"):
                found: list[str] = json.loads(line.removeprefix("LABELS"))
                return found
        raise SystemExit(f"infinity ended with {child.wait()}.")

    labels(["Probe lands on a comet"])
    return labels


def ours(place: Path, precision: str = "fp32") -> Way:
    classifier = Classifier.load(place, "cpu", precision)
    return lambda texts: [str(one.label) for one in classifier(texts)]


def measure(ways: dict[str, Way], texts: list[str], rounds: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    labels: dict[str, list[str]] = {}
    names = list(ways)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            labels[name] = ways[name](texts)
            rate = len(texts) / (time.perf_counter() - began)
            print(f"round {turn} {name}: {rate:.1f} texts/s", file=sys.stderr, flush=True)
            if turn:
                rates[name].append(rate)
    wanted = labels["newslora fp32"]
    return {
        name: {
            "texts_per_second": {"median": statistics.median(some), "lowest": min(some), "highest": max(some)},
            "same_labels": sum(a == b for a, b in zip(labels[name], wanted, strict=True)),
        }
        for name, some in rates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", required=True, help="where texts come from, as `newslora predict` takes it")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--infinity", metavar="PYTHON", help="of an environment that has infinity-emb")
    given = parser.parse_args()
    keep_freed_memory()  # as newslora's commands do; it serves every way in this process
    texts, data = read_texts(given.data, given.rows)
    exports = given.run / "exports"
    ways = {
        "transformers pipeline": pipeline(exports / "merged", "float32"),
        "transformers pipeline bf16": pipeline(exports / "merged", "bfloat16"),
        "onnxruntime": onnxruntime_alone(exports / "onnx"),
        "newslora fp32": ours(given.run),
        "newslora auto": ours(given.run, "auto"),
        "newslora int8": ours(exports / "int8"),
    }
    if (exports / "onnx-int8").is_dir():
        ways["onnxruntime int8"] = onnxruntime_alone(exports / "onnx-int8")
    if given.infinity:
        ways["infinity"] = infinity(given.infinity, exports / "merged")
    found = measure(ways, texts, given.rounds)
    result = {
        "what": "news texts to labels, tokenisation included",
        "run": run_facts(given.run),
        "texts": data,
        "settings": {"rounds": given.rounds, "batch_size": BATCH},
        "ways": found,
        "environment": environment(None, "auto"),
    }
    if given.infinity:
        version = "from importlib.metadata import version; print(version('infinity-emb'), version('torch'))"
        told = subprocess.run([given.infinity, "-c", version], capture_output=True, text=True, check=True)
        result["infinity"] = dict(zip(("infinity-emb", "torch"), told.stdout.split(), strict=True))
    files.write_json(given.output, result)


if __name__ == "__main__":
    main()
