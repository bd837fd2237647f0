"""Alternate the variants over several rounds, and keep every figure with what it was measured on."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from newslora import files
from newslora.bench.flops import flops_per_token, matmul_peak
from newslora.bench.worker import LABELS, VARIANTS, Job
from newslora.config import load_recipe
from newslora.data.articles import read_articles
from newslora.data.sources import parse_source, split_for
from newslora.data.tokens import TokenTable, tokenize
from newslora.errors import NetworkError, RunError, SettingsError, near, one_line
from newslora.model.backbones import ARCHITECTURES, BUNDLED, resolve_backbone
from newslora.model.classifier import length_limit
from newslora.model.packed.eight_bits import multiplies_bytes
from newslora.model.packed.encoder import has_layers
from newslora.runtime import cache_folder, environment_record, pick_device, resolve_precision

FORMAT = 1


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What to measure, how often."""

    backbone: str
    task: str
    data: str
    batch_size: int
    warmup_steps: int
    steps: int
    rounds: int
    tokenizer: str | None
    tokens: int | None = None  # of every row, then of random ones


def run_bench(settings: BenchSettings, progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measure every variant `rounds` times, by turns, each time in a process of its own.

    Returns:
        One JSON object: settings, environment, rows, the machine's matrix-product peak, and for each variant its rates
        (rows/s of each round, median, lowest and highest), tokens/s, share of the peak and memory; ratios of medians.

    Raises:
        SettingsError: a task that does not exist, numbers below 1, or more tokens than the encoder takes.
        RunError: a measurement failed; its own words are in the message.
    """
    if settings.task not in VARIANTS:
        raise SettingsError(f"There is no task '{settings.task}' to measure.{near(settings.task, VARIANTS)}")
    for name in ("batch_size", "warmup_steps", "steps", "rounds"):
        if getattr(settings, name) < 1:
            raise SettingsError(f"{name} is {getattr(settings, name)}; a benchmark needs 1 or more.")
    config = resolve_backbone(settings.backbone).architecture()
    if config is None:
        known = (*BUNDLED, *ARCHITECTURES)
        raise SettingsError(
            f"The architecture of '{settings.backbone}' is not known on this disk.{near(settings.backbone, known)} "
            f"Known: {', '.join(known)}; or name a local folder."
        )
    if settings.tokens is not None and not 1 <= settings.tokens == length_limit(config, settings.tokens):
        raise SettingsError(
            f"tokens is {settings.tokens}; the rows of '{settings.backbone}' have 1 to {length_limit(config, 2**20):,}. Leave "
            "--tokens out to measure with the lengths of --data."
        )
    device = pick_device("cpu")
    precision = resolve_precision("auto", device)
    able = {"fp32", precision.name}
    if multiplies_bytes(device) and has_layers(config, device):
        able.add("int8")
    variants = [variant for variant in VARIANTS[settings.task] if variant.rpartition("-")[2] in able]
    with tempfile.TemporaryDirectory() as folder:
        rows_file = Path(folder) / "rows.safetensors"
        write = _write_rows if settings.tokens is None else _write_even_rows
        described = write(settings, config, rows_file)
        jobs = [
            Job(
                settings.backbone, settings.task, variant, str(rows_file), settings.batch_size, settings.warmup_steps,
                settings.steps,
            )
            for variant in variants
        ]  # fmt: skip
        measured: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
        loads = []
        for turn in range(settings.rounds):
            for job in jobs if turn % 2 == 0 else reversed(jobs):
                loads.append(os.getloadavg()[0])
                measured[job.variant].append(measure_apart(job))
                last = measured[job.variant][-1]
                progress(f"round {turn + 1}: {job.variant} {last['rows'] / last['seconds']:.2f} rows/s")
    peaks = {name: matmul_peak(name) for name in ("fp32", "bf16") if name == "fp32" or precision.name == "bf16"}
    table = {name: _summary(runs, config, settings, peaks) for name, runs in measured.items()}
    return {
        "format": FORMAT,
        "what": f"{settings.task} of {settings.backbone}, random weights, LoRA as in the seed recipe",
        "settings": asdict(settings) | {"tokenizer": described["tokenizer"]},  # a name, not a place
        "rows": described,
        "environment": environment_record(device, precision),
        "load_before_each": [round(load, 2) for load in loads],
        "matmul_peak_flops": peaks,
        "variants": table,
        "ratios": _ratios(table),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _write_rows(settings: BenchSettings, config: Any, path: Path) -> dict[str, Any]:
    """Tokenise the rows that all variants share; speed depends on their lengths alone."""
    from safetensors.numpy import save_file

    recipe = load_recipe("seed")
    source = parse_source(settings.data)
    articles, _ = read_articles(source, split_for(source, "train"), recipe.data, None)
    tokenizer, name = _tokenizer(settings)
    needed = (settings.warmup_steps + settings.steps) * settings.batch_size
    chosen = articles.take(np.random.default_rng(recipe.train.seed).permutation(len(articles))[:needed])
    table = tokenize(tokenizer, chosen.texts, recipe.data.max_length, cache_folder())
    ids = np.minimum(table.ids, config.vocab_size - 1)
    pad = np.array([tokenizer.pad_token_id], dtype=np.int64)
    save_file({"ids": ids, "offsets": table.offsets, "labels": chosen.labels, "pad_id": pad}, path)
    return {
        "source": settings.data,
        "sha256": articles.sha256,
        "tokenizer": name,
        "rows": len(table),
        "tokens_per_row": float(table.lengths.mean()),
        "padded_per_row": _padded(table, settings.batch_size),
    }


def _write_even_rows(settings: BenchSettings, config: Any, path: Path) -> dict[str, Any]:
    """Random rows, each as long as was asked for: neither side has anything to pad."""
    from safetensors.numpy import save_file

    assert settings.tokens is not None
    generator = np.random.default_rng(load_recipe("seed").train.seed)
    count = (settings.warmup_steps + settings.steps) * settings.batch_size
    offsets = np.arange(count + 1) * settings.tokens
    ids = generator.integers(5, config.vocab_size, offsets[-1], dtype=np.int32)
    pad = np.array([config.pad_token_id or 0], dtype=np.int64)
    save_file({"ids": ids, "offsets": offsets, "labels": generator.integers(0, LABELS, count), "pad_id": pad}, path)
    length = float(settings.tokens)
    return {"source": "random", "tokenizer": None, "rows": count, "tokens_per_row": length, "padded_per_row": length}


def _tokenizer(settings: BenchSettings) -> tuple[Any, str]:
    """The one named, else the backbone's own, else, with no hub to ask, the bundled one: only lengths matter."""
    from transformers import AutoTokenizer

    if settings.tokenizer is not None:
        folder = Path(settings.tokenizer).expanduser()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = one_line(error) if folder.is_dir() else "there is no such folder"
            raise SettingsError(
                f"The tokenizer '{settings.tokenizer}' cannot be read: {reason}. Name a folder with tokenizer files, or leave "
                "--tokenizer out: the backbone's own is taken then, or the bundled one."
            ) from None
        return tokenizer, folder.name
    try:
        return resolve_backbone(settings.backbone).tokenizer(), settings.backbone
    except NetworkError:
        return resolve_backbone("minilm").tokenizer(), "minilm"


def _padded(table: TokenTable, batch_size: int) -> float:
    lengths = table.lengths[: len(table) // batch_size * batch_size]
    return float(lengths.reshape(-1, batch_size).max(axis=1).mean()) if len(lengths) else float(table.lengths.max())


def measure_apart(job: Job) -> dict[str, Any]:
    """Measure in a process of its own.

    Raises:
        RunError: it failed; its last words are in the message.
    """
    done = subprocess.run(
        [sys.executable, "-m", "newslora.bench.worker"],
        input=json.dumps(asdict(job)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0 or "RESULT" not in done.stdout:
        raise RunError(f"The measurement of {job.variant} failed: {done.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.rpartition("RESULT")[2])
    return result


def _summary(runs: Sequence[dict[str, Any]], config: Any, settings: BenchSettings, peaks: dict[str, float]) -> Any:
    rates = [run["rows"] / run["seconds"] for run in runs]
    tokens = statistics.median(run["tokens"] / run["seconds"] for run in runs)
    precision = runs[0]["job"]["variant"].rpartition("-")[2]
    length = runs[0]["tokens"] / runs[0]["rows"]
    flops = flops_per_token(config, length, settings.task == "training")
    return {
        "rows_per_second": {
            "median": statistics.median(rates), "lowest": min(rates), "highest": max(rates), "rounds": rates,
        },
        "tokens_per_second": tokens,
        "share_of_matmul_peak": tokens * flops / peaks[precision] if precision in peaks else None,
        "memory_peak": statistics.median(run["memory_peak"] for run in runs),
        "memory_before": statistics.median(run["memory_before"] or 0 for run in runs),
        "seconds": [run["seconds"] for run in runs],
        "engine": runs[0].get("engine"),
    }  # fmt: skip


def _ratios(table: dict[str, Any]) -> dict[str, float]:
    """Ours over theirs, medians of rows/s; and of peak memory above the imports."""
    stock = [name for name in table if name.startswith("trainer")]
    ours = [name for name in table if name.startswith("newslora")]
    ratios = {}
    for a in ours:
        for b in stock:
            rate = table[a]["rows_per_second"]["median"] / table[b]["rows_per_second"]["median"]
            ratios[f"{a} / {b}"] = rate
            ratios[f"memory {a} / {b}"] = (table[a]["memory_peak"] - table[a]["memory_before"]) / (
                table[b]["memory_peak"] - table[b]["memory_before"]
            )
    return ratios


def write_result(result: dict[str, Any], path: Path | None) -> Path:
    """Write one benchmark as JSON; without a path, benchmarks/results/DATE-TASK-BACKBONE.json."""
    if path is None:
        name = Path(result["settings"]["backbone"]).name
        path = (
            Path("benchmarks/results") / f"{time.strftime('%Y-%m-%d')}-bench-{result['settings']['task']}-{name}.json"
        )
    files.write_json(path, result)
    return path
