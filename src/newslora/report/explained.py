"""Explanations -> JSON lines or one HTML file; and a run's own examples, right and wrong, for its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from newslora import files
from newslora.errors import BackboneError, DataError, MissingExtraError, NetworkError, RunError, SettingsError, near
from newslora.evaluation.rows import damaged, read_lines
from newslora.explanation.attributions import Explanation, explain
from newslora.predict.classifier import Classifier
from newslora.records.evaluation import Explanations
from newslora.records.reading import read_dict
from newslora.report.pages import environment
from newslora.runfolder import OWN_EVALUATIONS, RunFolder

OUTPUTS = (".jsonl", ".html")
FILE = "explanations.json"
EXAMPLES = 3  # of each: right and wrong
LONGEST = 2_000  # characters of an example


def check_suffix(path: Path) -> None:
    """Refuse an output file of another kind before any work is done.

    Raises:
        SettingsError: the suffix names no format.
    """
    if path.suffix.lower() not in OUTPUTS:
        raise SettingsError(
            f"The output '{path}' ends in '{path.suffix}'. Allowed: {', '.join(OUTPUTS)}.{near(path.suffix, OUTPUTS)}"
        )


def write_explanations(explanations: Sequence[Explanation], path: Path) -> None:
    """Write JSON lines (one explanation a line, with character offsets) or a page, by the suffix.

    Raises:
        SettingsError: a suffix that names no format.
        StorageError: the disk refuses.
    """
    check_suffix(path)
    records = [one.record() for one in explanations]
    if path.suffix.lower() == ".jsonl":
        files.write_text(path, "".join(map(files.json_line, records)))
    else:
        files.write_text(path, environment().get_template("explained.html").render(explanations=records))


def explain_examples(run: RunFolder, manifest: dict[str, Any], device: str | None = None) -> str | None:
    """Explain some rows of the test split (else of the validation rows) into evaluation/explanations.json, once.

    The wrong ones are those the classifier was surest of; the right ones its least sure, its median and its surest.

    Returns:
        Why nothing could be explained, as a sentence; None where it was, now or before.

    Raises:
        StorageError: the disk refuses.
    """
    path, version = run.evaluation / FILE, manifest["adapter_sha256"]
    if _explained(path) == version:
        return None
    chosen = _chosen_rows(run)
    try:
        found = explain(Classifier.load(run.path, device, engine="padded"), [row["text"] for row in chosen])
    except (DataError, MissingExtraError, RunError, BackboneError, NetworkError) as error:  # the report does without
        path.unlink(missing_ok=True)  # another adapter's
        return str(error)
    examples = [
        {"row": int(row["row"]), "true": row["label"]} | one.record() for row, one in zip(chosen, found, strict=True)
    ]
    files.write_json(path, {"adapter_sha256": version, "examples": examples})
    return None


def _explained(path: Path) -> str | None:
    """The adapter whose examples a file holds; None where there is none, or it is damaged and to be made anew."""
    try:
        return str(_held(path)["adapter_sha256"])
    except (FileNotFoundError, RunError):
        return None


def read_examples(run: RunFolder) -> list[dict[str, Any]]:
    """The examples explained for this run; none where captum was missing."""
    path = run.evaluation / FILE
    found: list[dict[str, Any]] = _held(path)["examples"] if path.is_file() else []
    return found


def _held(path: Path) -> dict[str, Any]:
    return read_dict(path, Explanations, "Remove it: `newslora report RUN` makes it again.")


def _chosen_rows(run: RunFolder) -> list[dict[str, str]]:
    """Lines to explain of evaluation/test.csv (else validation.csv): wrong ones, then right ones. Holds no other text."""
    path = next((path for name in OWN_EVALUATIONS if (path := run.evaluation / f"{name}.csv").is_file()), None)
    if path is None:
        return []
    sides: dict[bool, list[tuple[float, int]]] = {True: [], False: []}  # right or not -> (probability, place)
    try:
        for place, row in enumerate(read_lines(path)):
            if len(row["text"]) <= LONGEST:
                sides[row["label"] == row["predicted"]].append((_sureness(row), place))
    except ValueError as error:
        raise damaged(path, error) from None
    right, wrong = sorted(sides[True]), sorted(sides[False], reverse=True)
    spread = sorted({0, len(right) // 2, len(right) - 1}) if right else []
    places = [place for _, place in wrong[:EXAMPLES] + [right[at] for at in spread]]
    found = {place: row for place, row in enumerate(read_lines(path)) if place in places}
    return [found[place] for place in places]


def _sureness(row: dict[str, str]) -> float:
    """The probability of the answer; of several labels, of the likeliest."""
    if "probability" in row:
        return float(row["probability"])
    return max(float(value) for name, value in row.items() if name.startswith("p("))
