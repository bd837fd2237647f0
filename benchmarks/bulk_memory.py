"""Memory of `newslora predict` on a file larger than it: resident set while 2 GB of made-up rows go through.

    python benchmarks/bulk_memory.py -o benchmarks/results/DATE-memory-bulk.json
    python benchmarks/bulk_memory.py --size 200000000 --input parquet --output-format parquet -o ...

The encoder is tiny, for memory and not speed is measured: what reading, tokenising, writing and committing hold does not
depend on it, and a real encoder adds its own size. The command runs in a process of its own; its resident set is looked at
ten times a second, and its highest is the kernel's own mark. The machine need not be idle.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from made_up import csv_to_parquet, write_classifier, write_rows

from newslora import files
from newslora.runtime import environment_record, pick_device, resolve_precision

INTERVAL = 0.1  # seconds between looks


def status(pid: int) -> dict[str, int]:
    """VmRSS, VmHWM and RssAnon of a process, in bytes (man 5 proc); empty once it ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines)
    return {part[0][:-1]: int(part[1]) * 1024 for part in fields if part[0] in ("VmRSS:", "VmHWM:", "RssAnon:")}


def size_of(path: Path) -> int:
    """In bytes; 0 where it is not there yet, or no longer."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def watch(command: list[str], output: Path) -> dict[str, Any]:
    """Run a command; its peak memory, and the most of each tenth of its work, by the rows written."""
    child = subprocess.Popen(command)
    written = output.with_name(output.name + ".partial") / "rows"
    looks: list[tuple[int, int]] = []  # bytes written, resident bytes
    highest = anonymous = 0
    began = time.monotonic()
    while child.poll() is None:
        if found := status(child.pid):
            looks.append((size_of(written), found.get("VmRSS", 0)))
            highest, anonymous = max(highest, found.get("VmHWM", 0)), max(anonymous, found.get("RssAnon", 0))
        time.sleep(INTERVAL)
    if child.returncode:
        raise SystemExit(child.returncode)
    whole = max(size for size, _ in looks)
    tenths = [
        max((held for size, held in looks if size * 10 // (whole + 1) == tenth), default=0) for tenth in range(10)
    ]
    seconds = time.monotonic() - began
    return {"peak_resident": highest, "peak_anonymous": anonymous, "resident_by_tenth": tenths, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=2_000_000_000, help="bytes of the rows as text")
    parser.add_argument(
        "--body", type=int, default=700, help="characters a row that are not classified but pass through"
    )
    parser.add_argument("--input", choices=("csv", "jsonl", "parquet"), default="csv")
    parser.add_argument("--output-format", choices=("csv", "jsonl", "parquet"), default="csv")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = write_classifier(folder)
        source = folder / f"rows.{'csv' if chosen.input == 'parquet' else chosen.input}"
        rows = write_rows(source, chosen.size, chosen.body)
        if chosen.input == "parquet":
            csv_to_parquet(source, folder / "rows.parquet")
            source = folder / "rows.parquet"
        output = folder / f"out.{chosen.output_format}"
        command = [sys.executable, "-m", "newslora", "predict", str(run), str(source), "-o", str(output)]
        point = watch(command, output)
        sizes = {"input_bytes": source.stat().st_size, "output_bytes": output.stat().st_size}
    device = pick_device("cpu")
    result = {
        "what": "resident memory of newslora predict, a tiny encoder, by the share of the work",
        "timed": False,
        "load_average": os.getloadavg(),
        "settings": {name: value for name, value in vars(chosen).items() if name != "output"},
        "environment": environment_record(device, resolve_precision("fp32", device)),
        "rows": rows,
        **sizes,
        **point,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    files.write_json(chosen.output, result)
    print(
        f"{rows:,} rows, {sizes['input_bytes'] / 2**20:,.0f} MiB: at most {point['peak_resident'] / 2**20:,.0f} MiB resident"
    )


if __name__ == "__main__":
    main()
