"""An audit of the run's data (`newslora audit`), if one lies in the run folder or beside it."""

import csv
import itertools
from pathlib import Path
from typing import Any

from newslora import files
from newslora.data.readers import CELL_LIMIT
from newslora.runfolder import RunFolder

SHOWN = 20  # likely wrong labels


def read_audit(run: RunFolder) -> dict[str, Any] | None:
    """What audit.json holds and, under `doubts`, the worst of labels.csv; None without an audit of this run's rows."""
    ours = {split["sha256"] for split in run.data()["splits"].values()}
    for folder in (run.path, run.path / "audit", run.path.parent, run.path.parent / "audit"):
        path = folder / "audit.json"
        if not path.is_file():
            continue
        try:
            found: dict[str, Any] = files.read_json(path)
            if ours & {split["sha256"] for split in found["splits"]}:
                return found | {"doubts": _doubts(folder / "labels.csv")}
        except (ValueError, KeyError, TypeError):
            continue  # another tool's file of that name
    return None


def _doubts(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    csv.field_size_limit(CELL_LIMIT)
    with path.open(encoding="utf-8", newline="") as stream:
        return list(itertools.islice(csv.DictReader(stream), SHOWN))
