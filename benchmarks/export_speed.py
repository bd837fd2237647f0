"""How fast a RoBERTa-base sized classifier answers: torch, ONNX fp32, and int8 with dynamic and static ranges.

    python benchmarks/export_speed.py -o benchmarks/results/DATE-export-speed.json [--threads 2] [--rows 256] [--rounds 5]

Random weights and rows of AG News' lengths: speed does not depend on what is said. Every way takes its turn in each round,
on the same rows and batches, so that a machine that slows down slows all of them; the first round warms up and is not
counted. A forward pass holds at most --batch-tokens tokens, as `newslora predict` has it; --batch-tokens 1 answers rows one by
one, as a lone request to a server would be. Run it on an idle machine.

ways, each with LoRA merged: `torch-padded` (stock modules), `torch-packed` (ours; with `-bf16` where the chip multiplies it
fast), `int8` (ours, `newslora export --to int8`), `onnx`; `int8-dynamic` (as newslora runs it:
row by row, so that no answer depends on its neighbours), `int8-dynamic-batched`, `int8-static` (all with seven-bit weights, as
`newslora export` writes them); `int8-8bit` and `int8-8bit-exact` (batched dynamic ranges, eight bits, with ONNX Runtime's plain
and its overflow-free product on CPUs without VNNI), to see what the eighth bit costs.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from newslora import files
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.exporting.forms import write_onnx
from newslora.exporting.quantise import quantise
from newslora.model.inference import predict_logits
from newslora.runtime import environment_record, keep_freed_memory, package_version, pick_device, resolve_precision

LABELS = ("World", "Sports", "Business", "Sci/Tech")


def made_up_rows(count: int, vocabulary: int) -> Rows:
    """Random rows of AG News' lengths (mean 53 tokens)."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.gamma(5.5, 53 / 5.5, count), 12, 300).astype(np.int64)
    tokens = [generator.integers(5, vocabulary - 5, length, dtype=np.int32) for length in lengths]
    return Rows(TokenTable.of(tokens), np.full(count, -1, dtype=np.int64), pad_id=1)


def eight_bits(source: Path, target: Path) -> None:
    """Dynamic int8 with weights of all eight bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source, target, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=False,
        weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip


def exact_session(path: Path) -> Any:
    """A session whose int8 products cannot overflow on CPUs without VNNI."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def engines(folder: Path, rows: Rows, layers: int) -> dict[str, Any]:
    """Every way as an engine over the same weights."""
    import torch

    from newslora.config import LoraSettings
    from newslora.model.backbones import resolve_backbone
    from newslora.model.classifier import random_classifier
    from newslora.model.engine import make_byte_engine, make_engine
    from newslora.model.onnx_engine import OnnxEngine, OnnxModel

    torch.manual_seed(0)
    config = resolve_backbone("roberta-base").architecture()
    assert config is not None
    config.num_hidden_layers = layers
    merged: Any = random_classifier(config, LABELS, LoraSettings()).merge_and_unload()
    merged.requires_grad_(False).eval()
    full = write_onnx(merged, folder)
    quantise(full, folder / "dynamic.onnx", "dynamic")
    quantise(full, folder / "static.onnx", "static", rows)
    eight_bits(full, folder / "eight.onnx")
    fp32, fastest = (resolve_precision(name, pick_device("cpu")) for name in ("fp32", "auto"))
    found: dict[str, Any] = {
        "torch-padded": make_engine(merged, "padded", fp32),
        "torch-packed": make_engine(merged, "packed", fp32),
        **(
            {}
            if fastest.name == fp32.name
            else {f"torch-packed-{fastest.name}": make_engine(merged, "packed", fastest)}
        ),
        "int8": make_byte_engine(copy.deepcopy(merged), fastest),
        "onnx": OnnxEngine(full, merged.config, "onnx"),
    }
    for name, file, alone, exact in (
        ("int8-dynamic", "dynamic", True, False), ("int8-dynamic-batched", "dynamic", False, False),
        ("int8-static", "static", False, False),
        ("int8-8bit", "eight", False, False), ("int8-8bit-exact", "eight", False, True),
    ):  # fmt: skip
        engine = found[name] = OnnxEngine(folder / f"{file}.onnx", merged.config, "onnx-int8", alone)
        if exact:
            engine.model = OnnxModel(exact_session(folder / f"{file}.onnx"), merged.config)
    return found


def measure(
    ways: dict[str, Any], rows: Rows, batch_tokens: int, rounds: int, told: Callable[[str], None]
) -> dict[str, Any]:
    """Rows a second of each way in each round; the greatest difference of its logits from the stock model's."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    logits: dict[str, Any] = {}
    for turn in range(rounds + 1):
        for name, engine in ways.items():
            began = time.perf_counter()
            logits[name] = predict_logits(engine, rows, batch_tokens=batch_tokens)
            rate = len(rows) / (time.perf_counter() - began)
            if turn:
                rates[name].append(rate)
            told(f"round {turn} {name}: {rate:.1f} rows/s")
    stock = logits["torch-padded"]
    return {
        name: {
            "rows_per_second": {"median": float(np.median(some)), "lowest": min(some), "highest": max(some)},
            "largest_difference": float(np.abs(logits[name] - stock).max()),
        }
        for name, some in rates.items()
    }


def main() -> None:
    keep_freed_memory()  # as newslora's commands do
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, nargs="+", default=[1024, 1])
    parser.add_argument("--layers", type=int, default=12, help="fewer to try the script out")
    given = parser.parse_args()
    import torch

    if given.threads is not None:
        torch.set_num_threads(given.threads)
    rows = made_up_rows(given.rows, 50_265)
    with tempfile.TemporaryDirectory() as folder:
        ways = engines(Path(folder), rows, given.layers)
        results = {
            str(tokens): measure(ways, rows, tokens, given.rounds, lambda text: print(text, flush=True))
            for tokens in given.batch_tokens
        }
    device = pick_device("cpu")
    environment = environment_record(device, resolve_precision("fp32", device))
    environment["packages"] |= {name: package_version(name) for name in ("onnx", "onnxscript", "onnxruntime")}
    settings = {"rows": given.rows, "rounds": given.rounds, "layers": given.layers}
    tokens = float(np.mean(rows.tokens.lengths))
    files.write_json(
        given.output,
        {"settings": settings, "tokens_per_row": tokens, "by_batch_tokens": results, "environment": environment},
    )


if __name__ == "__main__":
    main()
