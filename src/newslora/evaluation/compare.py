"""Two or more runs on the same rows: which differences are real, which rows they differ on, how much seeds scatter."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np

from newslora import files
from newslora.arguments import as_path
from newslora.data.outputs import refuse_overwriting
from newslora.data.sources import parse_source
from newslora.errors import DataError, SettingsError
from newslora.evaluation.own import refuse_idle
from newslora.evaluation.paired import METRICS, contrast_intervals, holm, mcnemar
from newslora.evaluation.seeds import Group, compare_groups, few_seeds_note, group_runs, repeats_note, spread
from newslora.evaluation.stored import Stored, common_evaluation, differing, evaluation_of, write_differences
from newslora.metrics.intervals import CONFIDENCE_LEVEL
from newslora.runfolder import RunFolder, run_path
from newslora.runtime import check_device

SCOPE = (
    "A recipe with a single run shows that run's luck too: whether recipes differ, rather than these adapters, takes other "
    "seeds of it (--set train.seed=...)."
)


def compare(
    runs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *others: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Compare finished runs on the same rows.

    Accuracy is tested pair by pair with McNemar's exact test, p-values corrected for the number of pairs (Holm). The
    differences of accuracy, macro F1 and loss have paired-bootstrap intervals that hold for all pairs together. Runs of
    one recipe that differ in the seed alone are also taken as a group.

    Args:
        runs: two or more run folders; or the first of them, with `others` behind.
        others: the other run folders, where `runs` is one.
        data: as `data.source`: labelled rows all runs score, where their stored evaluations of them do not do; None: rows
            that every run has scored already, test rows first.
        output: file for the result as JSON; the rows on which runs differ go beside it, as NAME-rows.csv.
        changes: settings of the section data for reading `data`, over those of each run's recipe.
        device: that scores `data`: 'cpu', 'cuda', ...; None picks.
        progress: told the rows of each finished batch.

    Returns:
        What the JSON holds. `pairs[i]["sentence"]` says it in words.

    Raises:
        SettingsError: fewer than two runs, what is no path, one run twice, an output that `data` is read from or that is a
            folder, changes without `data`, or a device that is not here.
        RunError: an unfinished or damaged run.
        DataError: no rows in common or a single one, or other labels.

    Example:
        >>> for pair in newslora.compare(["runs/one", "runs/two"])["pairs"]:  # doctest: +SKIP
        ...     print(pair["sentence"])
    """
    check_device(device)
    path = None if output is None else as_path(output, "The output")
    if path is not None and path.is_dir():
        raise SettingsError(f"The output '{path}' is a folder. Name a file in it.")
    data = None if data is None else parse_source(data).text
    refuse_idle(changes, data)
    if path is not None and data is not None:
        refuse_overwriting([path, rows_file(path)], [data])
    folders = _opened(runs, others)
    scored = (
        common_evaluation(folders) if data is None else evaluation_of(folders, data, changes or {}, device, progress)
    )
    if len(scored[0].rows) < 2:
        raise DataError(
            "The runs have a single row in common, which shows no difference. Give others as data (--data SOURCE)."
        )
    names = run_names([run.path for run in folders])
    groups = group_runs(folders)
    record = scored[0].record
    scores = [one.scores for one in scored]
    metrics = [_metrics(one) for one in scored]
    result: dict[str, Any] = {
        "evaluation": record["name"],
        "source": record["source"],
        "sha256": record["sha256"],
        "rows": len(scored[0].rows),
        "labels": record["labels"],
        "note": _note(names, [one.record.get("note") for one in scored]),
        "confidence_level": CONFIDENCE_LEVEL,
        "runs": [
            {
                "name": name,
                "path": str(run.path),
                "adapter_sha256": one.record["adapter_sha256"],
                "seed": run.recipe().train.seed,
                **{metric: one.record[metric] for metric in METRICS},
            }
            for name, run, one in zip(names, folders, scored, strict=True)
        ],
        "pairs": _pairs(names, scored, groups),
        "seeds": [spread(group, metrics) for group in groups if len(group.members) > 1],
        "recipes": [one | {"sentence": _recipe_sentence(one)} for one in compare_groups(groups, scores, metrics)],
        "seeds_note": few_seeds_note(groups),
        "repeats_note": repeats_note(groups, names),
        "scope": SCOPE if min(len(group.members) for group in groups) == 1 else None,
        "differing_rows": len(differing(scored)),
    }
    if path is not None:
        write_differences(rows_file(path), names, scored)
        files.write_json(path, result)
    return result


def rows_file(output: Path) -> Path:
    """Where the rows on which runs differ go, beside the result."""
    return output.with_name(f"{output.stem}-rows.csv")


def run_names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart: the last part of the paths, or as many as it takes."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _opened(runs: object, others: Sequence[object]) -> list[RunFolder]:
    several = isinstance(runs, Iterable) and not isinstance(runs, (str, bytes, os.PathLike))
    paths = [run_path(run) for run in (*(cast("Iterable[object]", runs) if several else (runs,)), *others)]
    if len(paths) < 2:
        raise SettingsError(f"A comparison needs at least two runs, not {len(paths)}: name another beside it.")
    folders = [RunFolder.open(path) for path in paths]
    places = [folder.path.resolve() for folder in folders]
    twice = [folder.path for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice:
        raise SettingsError(f"The run {twice[0]} is named twice. A run does not differ from itself: name another.")
    for folder in folders:
        folder.manifest()  # raises where the run is not whole
    return folders


def _note(names: Sequence[str], notes: Sequence[str | None]) -> str | None:
    """What to keep in mind of the rows: said once where it holds for every run, else of those it holds for."""
    if len(set(notes)) == 1:
        return notes[0]
    return " ".join(f"{name}: {note}" for name, note in zip(names, notes, strict=True) if note)


def _pairs(names: Sequence[str], scored: Sequence[Stored], groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Every two runs, tested."""
    pairs = list(combinations(range(len(names)), 2))
    weights = np.zeros((len(pairs), len(names)))
    for row, (first, second) in zip(weights, pairs, strict=True):
        row[first], row[second] = 1, -1
    differences = contrast_intervals([one.scores for one in scored], weights)
    tests = [mcnemar(scored[first].scores, scored[second].scores) for first, second in pairs]
    adjusted = holm([p for _, _, p in tests])
    group_of = {place: group for group in groups for place in (*group.members, *dict(group.repeats))}
    found = []
    for (first, second), (wins, losses, p), p_holm, difference in zip(pairs, tests, adjusted, differences, strict=True):
        one = {
            "runs": [names[first], names[second]],
            "only_first_right": wins,
            "only_second_right": losses,
            "p": p,
            "p_holm": p_holm,
            "shown": p_holm < 1 - CONFIDENCE_LEVEL,
            "differences": difference,
            "seeds_of_one_recipe": group_of[first] is group_of[second],
        }
        found.append(one | {"sentence": _sentence(one, len(pairs))})
    return found


def _sentence(pair: Mapping[str, Any], pairs: int) -> str:
    """The pair in words: accuracy first, then loss where its interval is on one side of zero."""
    first, second = pair["runs"]
    accuracy, loss = pair["differences"]["accuracy"], pair["differences"]["loss"]
    correction = f", corrected for {pairs} pairs" if pairs > 1 else ""
    test = f"McNemar p {_p(pair['p_holm'])}{correction}"
    if pair["only_first_right"] + pair["only_second_right"] == 0:
        text = f"No difference shown: {first} and {second} are right on the same rows."
    elif not pair["shown"]:
        text = f"No difference shown between {first} and {second}: {_points(accuracy)}; {test}."
    else:
        better, worse = (first, second) if accuracy["value"] > 0 else (second, first)
        text = f"{better} is more accurate than {worse}: by {_points(accuracy, absolute=True)}; {test}."
    low, high = loss["interval"]
    if low > 0 or high < 0:
        lower = second if low > 0 else first
        ends = sorted((abs(low), abs(high)))
        text += f" The loss of {lower} is lower, by {abs(loss['value']):.4f} (95 % interval {ends[0]:.4f} to {ends[1]:.4f})."
    return text


def _recipe_sentence(one: Mapping[str, Any]) -> str:
    first, second = one["groups"]
    accuracy = one["accuracy"]
    rows = _points({"value": accuracy["difference"], "interval": accuracy["rows_interval"]}, accuracy["shown"])
    if accuracy["seeds_interval"] is None:
        seeds = "what other seeds would give is not known, for these all give the same"
    else:
        low, high = accuracy["seeds_interval"]
        ends = sorted((abs(low), abs(high))) if accuracy["shown"] else [low, high]
        seeds = f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f} over other seeds"
    tail = f"{rows} over other rows, {seeds}"
    if not accuracy["shown"]:
        return f"No difference shown between the recipes ({first}) and ({second}): {tail}."
    better, worse = (first, second) if accuracy["difference"] > 0 else (second, first)
    return f"The recipe ({better}) is more accurate than ({worse}): by {tail}."


def _points(rate: Mapping[str, Any], absolute: bool = False) -> str:
    """A difference of accuracies in percentage points; `absolute` where the words around it carry the sign."""
    value, (low, high) = rate["value"], rate["interval"]
    if absolute and value < 0:
        value, low, high = -value, -high, -low
    sign = "" if absolute else "+"
    return f"{100 * value:{sign}.2f} points (95 % interval {100 * low:{sign}.2f} to {100 * high:{sign}.2f})"


def _p(value: float) -> str:
    return "below 0.0001" if value < 1e-4 else f"= {value:.2g}"


def _metrics(one: Stored) -> dict[str, float]:
    record = one.record
    return {"accuracy": record["accuracy"]["value"], "macro_f1": record["macro_f1"]["value"], "loss": record["loss"]}
