"""The packed engine on a GPU: first whether it is right there, then how fast it is. One JSON, under ten minutes, no network.

    python benchmarks/gpu.py                             # RoBERTa-base's architecture, random weights
    python benchmarks/gpu.py --backbone minilm           # MiniLM's; its weights are not needed
    python benchmarks/gpu.py --device cpu --tiny -o F    # the same script on a small encoder, to see that it works

Right: packed against the padded stock forward on the device (every logit and gradient, fp32 and bf16), dropout's
distribution, captured steps against plain ones; and no step may wait for the device. Fast: the `seed` and `fast` recipes step
for step, an evaluation and a checkpoint of each timed apart; then training and prediction by turns with the stock Trainer +
PEFT at batch 16, which runs in bf16 and for a few steps in fp32, TF32 as torch has it by default and as the file says. Nothing
of the device is set or reset, so a share of one (MIG) serves too.

--minutes is time for everything, and SHARES has each part's. A part that takes less leaves the rest to those after it; a recipe
that does not fit is measured in part and says so; turns are one round at least, and at most three.

What a GPU told once is kept: the JSON is written after each check and each part, and what fails leaves its message there and
the rest goes on. Where captured steps are not right, plain ones are timed. After any failure the exit code is 1, and where a
check other than that of waits failed the file says that its timings may not be quoted.

Needs torch 2.11 or later, transformers 5.17 or later, accelerate, peft, pydantic and newslora's own source on the path. Where a
machine without network lacks some, carry their wheels unpacked in one folder: of pydantic with pydantic-core, annotated-types,
typing-inspection and typing_extensions, and of peft. Where commands end after ten minutes:

    PYTHONPATH=src:FOLDER PYTHONUNBUFFERED=1 python benchmarks/gpu.py --minutes 8 -o F
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()  # before torch and transformers are imported, which counts
CHECKS = Path(__file__).with_name("gpu_checks.py")
# Parts of the whole time, in order. What one leaves over the next may use; none may use what is kept for those after it.
SHARES = {
    "start": 0.08,  # imports and rows
    "checks": 0.30,
    "seed": 0.22,
    "fast": 0.09,
    "training_by_turns": 0.20,
    "prediction_by_turns": 0.11,
}
LEAST_SECONDS = 20.0  # to begin another part


def deadlines(seconds: float) -> dict[str, float]:
    """Until when each part may take, by time.monotonic(), where all may take so long."""
    ends = itertools.accumulate(SHARES.values())
    return {name: BEGAN + seconds * end for name, end in zip(SHARES, ends, strict=True)}


def written(value: Any) -> Any:
    """As JSON can hold it: a number that is not finite as a text."""
    if isinstance(value, dict):
        return {name: written(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [written(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Report:
    """What was found so far, in memory and on the disk."""

    def __init__(self, output: Path | None, minutes: float, backbone: str) -> None:
        self.found: dict[str, Any] = {"what": "the packed engine on a GPU: checks, then timings", "minutes": minutes}
        self._output, self._backbone = output, Path(backbone).name
        self._began = time.strftime("%Y-%m-%d")

    @property
    def path(self) -> Path:
        device = str(self.found.get("device", {}).get("name", "none")).replace(" ", "-").lower()
        return self._output or Path("benchmarks/results") / f"{self._began}-gpu-{device}-{self._backbone}.json"

    def save(self) -> None:
        self.found["seconds"] = time.monotonic() - BEGAN
        self.found["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        hidden = self.path.with_name(f".{self.path.name}")
        hidden.write_text(json.dumps(written(self.found), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        hidden.replace(self.path)  # whoever ends this process meanwhile leaves the file of before


def checked(job: dict[str, Any], seconds: float) -> tuple[dict[str, Any], dict[str, str]]:
    """What the checks found, and of those that failed or were not reached, why."""
    out = Path(job["out"])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, str(CHECKS)],
            input=json.dumps(job),
            text=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
        ended = f"the checks' process ended with code {done.returncode}"
    except subprocess.TimeoutExpired:
        ended = f"the checks took more than {seconds:.0f} seconds"
    told = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"found": {}, "failed": {}}
    found, failed = told["found"], told["failed"]
    missing = {name: f"not reached: {ended}" for name in job["names"] if name not in found and name not in failed}
    return found, failed | missing


def attempt(part: Callable[[float], dict[str, Any]], until: float) -> dict[str, Any]:
    try:
        return part(until)
    except Exception:  # noqa: BLE001  # of every kind: the other parts go on
        return {"failed": traceback.format_exc()}


def run(chosen: argparse.Namespace, report: Report, folder: Path) -> None:
    from gpu_checks import NAMES
    from gpu_rows import backbone_for, drawn_rows, save_rows, source_rows, tiny_backbone
    from gpu_speed import Sizes, Speed, device_record
    from gpu_turns import say

    from newslora.errors import BackboneError
    from newslora.model.backbones import resolve_backbone
    from newslora.runtime import Precision, environment_record, pick_device

    device, sizes, result = pick_device(chosen.device), Sizes(chosen.tiny), report.found
    ends = deadlines(60 * chosen.minutes)
    backbone = tiny_backbone(folder / "tiny") if chosen.tiny else backbone_for(chosen.backbone, folder / "minilm")
    if (config := resolve_backbone(backbone).architecture()) is None:
        raise BackboneError(f"The architecture of '{backbone}' is not known here. Name a folder with its config.json.")
    result["environment"] = environment_record(device, Precision("bf16", "benchmark"))
    result["device"] = device_record(device)
    result["backbone"] = "a tiny RoBERTa, to try the script" if chosen.tiny else chosen.backbone
    given = chosen.data and source_rows(chosen.data, chosen.tokenizer, sizes.rows, config)
    rows = given or drawn_rows(sizes.rows, config)
    result["rows"] = {
        "rows": len(rows),
        "tokens_per_row": float(rows.tokens.lengths.mean()),
        "from": chosen.data or "drawn: lengths like those of AG News' rows under RoBERTa's tokenizer",
    }
    rows_file = folder / "rows.safetensors"
    save_rows(rows, rows_file)
    report.save()
    job = {
        "backbone": backbone, "rows_file": str(rows_file), "device": str(device), "draws": 8 if chosen.tiny else 200,
        "out": str(folder / "checks.json"), "names": NAMES,
    }  # fmt: skip
    result["checks"], result["checks_failed"] = checked(job, ends["checks"] - time.monotonic())
    if set(result["checks_failed"]) - {"waits"}:  # a step that waits is slow, not wrong
        result["timings"] = "A check failed: these are timings of something that is not right here. None may be quoted."
        say(result["timings"])
    report.save()

    graphs = device.type == "cuda" and "graphs" not in result["checks_failed"]
    speed = Speed(backbone, rows_file, device, sizes)
    result["matmul_peak_flops"] = speed.peaks
    parts: dict[str, Callable[[float], dict[str, Any]]] = {
        "seed": lambda until: speed.recipe("seed", graphs, until),
        "fast": lambda until: speed.recipe("fast", graphs, until),
        "training_by_turns": lambda until: speed.turns.run("training", graphs, until),
        "prediction_by_turns": lambda until: speed.turns.run("prediction", graphs, until),
    }
    for name, part in parts.items():
        if time.monotonic() > ends[name] - LEAST_SECONDS and not chosen.tiny:
            result[name] = {"left_out": f"no time was left for it of {chosen.minutes:g} minutes"}
        else:
            result[name] = attempt(part, ends[name])
        report.save()


def failures(result: dict[str, Any]) -> dict[str, str]:
    """By check or part, what stands in the report of it."""
    of_parts = {name: str(one["failed"]) for name, one in result.items() if isinstance(one, dict) and "failed" in one}
    stopped = {"stopped": result["stopped"]} if "stopped" in result else {}
    checks: dict[str, str] = result.get("checks_failed", {})
    return checks | of_parts | stopped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--backbone",
        default="roberta-base",
        help="roberta-base, minilm, or a folder with a config.json; weights are random",
    )
    parser.add_argument("--tiny", action="store_true", help="a small encoder and few steps")
    parser.add_argument("--data", help="rows whose lengths count, as data.source; by default lengths like AG News'")
    parser.add_argument("--tokenizer", help="folder of the tokenizer that splits --data")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything")
    chosen = parser.parse_args()
    if chosen.data and not chosen.tokenizer:
        parser.error("--data needs --tokenizer FOLDER")
    report = Report(chosen.output, chosen.minutes, chosen.backbone)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(chosen, report, Path(folder))
        except Exception:  # noqa: BLE001  # of every kind: what was found so far is kept
            report.found["stopped"] = traceback.format_exc()
    report.save()
    print(f"Result: {report.path}")
    failed = failures(report.found)
    for name, why in failed.items():
        print(f"{name}: {why}", file=sys.stderr, flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
