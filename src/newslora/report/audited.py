"""An audit of the run's data (`newslora audit`), if one lies in the run folder or beside it."""

import itertools
from pathlib import Path
from typing import Any

from newslora import files
from newslora.errors import RunError
from newslora.evaluation.rows import read_lines
from newslora.records.evaluation import Audit
from newslora.records.reading import read_dict
from newslora.runfolder import RunFolder

SHOWN = 20  # likely wrong labels
AGAIN = "So it is not shown: audit the rows again with the run (--run), into its folder."
COLUMNS = ("split", "row", "given", "suggested", "text")  # of labels.csv, those shown


def read_audit(run: RunFolder) -> dict[str, Any] | None:
    """What audit.json holds, under `doubts` the worst of labels.csv, and under `damaged` why these cannot be shown, where they
    cannot; None without an audit of this run's rows. Of audits that read them otherwise than the run, `other` says so alone."""
    data, other = run.data(), None
    ours = {split["sha256"]: split for split in data["splits"].values()}
    for folder in (run.path, run.path / "audit", run.path.parent, run.path.parent / "audit"):
        path = folder / "audit.json"
        if not path.is_file():
            continue
        try:
            audited = [split for split in files.read_json(path)["splits"] if split["sha256"] in ours]
        except (ValueError, KeyError, TypeError):
            continue  # another tool's file of that name
        if not audited:
            continue
        try:
            found = read_dict(path, Audit, AGAIN)
        except RunError as error:
            other = other or {"other": str(error)}
            continue
        if (how := _otherwise(found, audited[0], data, ours[audited[0]["sha256"]])) is None:
            return found | _doubts(folder / "labels.csv")
        other = other or {"other": f"{path} is an audit of these rows by other settings: {how}. {AGAIN}"}
    return other


def _otherwise(found: dict[str, Any], audited: dict[str, Any], data: dict[str, Any], own: dict[str, Any]) -> str | None:
    """How an audit read rows otherwise than the run; older ones tell of columns only."""
    for name, what in (("label_column", "label"), ("text_columns", "text")):
        if audited[name] != own[name]:
            taken, ours = (
                value if isinstance(value, str) else " + ".join(value) for value in (audited[name], own[name])
            )
            return f"it took the {what} from {taken}, the run from {ours}"
    if found.get("label_base") is not None and [*found["label_names"]] != data["labels"]:
        return f"it calls the labels {', '.join(found['label_names'])} in order of number, the run {', '.join(data['labels'])}"
    return None


def _doubts(path: Path) -> dict[str, Any]:
    try:
        doubts = list(itertools.islice(read_lines(path, COLUMNS), SHOWN)) if path.is_file() else []
    except RunError:  # its own advice is for evaluations
        told = f"The rows themselves cannot be shown: {path} is damaged. Restore it, or audit the rows again into its folder."
        return {"doubts": [], "damaged": told}
    return {"doubts": doubts, "damaged": None}
