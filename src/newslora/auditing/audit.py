"""Files -> what is wrong with them: one result as JSON, and one CSV of each kind of finding."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from numbers import Real
from pathlib import Path
from typing import Any, get_args

from newslora import files
from newslora.arguments import as_path
from newslora.auditing.copies import LEAST, SHINGLE, SIMILARITY, Copies, find_copies
from newslora.auditing.damage import KINDS, Damage, find_damage
from newslora.auditing.judges import Judge
from newslora.auditing.leakage import Leak, effect_on_accuracy, find_leaks, leakage_table
from newslora.auditing.lengths import count_tokens, describe_split
from newslora.auditing.lists import write_damage, write_duplicates, write_labels, write_leakage
from newslora.auditing.rows import AuditRows, read_rows
from newslora.auditing.verdicts import Answers, Encoder, judge_labels, run_answers
from newslora.config import DataSettings, data_changes, load_recipe, make_recipe
from newslora.data.articles import write_quarantine
from newslora.data.labels import LabelSet, make_label_set
from newslora.data.outputs import refuse_overwriting
from newslora.data.sources import parse_source
from newslora.errors import LeakageError, SettingsError, near
from newslora.evaluation.own import as_trained
from newslora.model.adapter import load_tokenizer, read_card, same_backbone
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import length_limit
from newslora.runfolder import RunFolder, run_path
from newslora.runtime import check_device

WRITTEN = ("duplicates.csv", "leakage.csv", "labels.csv", "text-damage.csv", "quarantine.jsonl", "audit.json")
Progress = Callable[[str, int], None]  # what is done, and on how many more rows


def audit(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    run: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    output: str | os.PathLike[str] | None = None,
    similarity: float = SIMILARITY,
    judge: Judge = "words",
    changes: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Progress = lambda what, rows: None,
) -> dict[str, Any]:
    """Look for copies, leaks between splits, likely wrong labels and damaged text.

    Where rows carry several labels, which of them are wrong is not judged; all else is told as of one label a row.

    Args:
        sources: files, folders or hub names, the training rows first: the splits of one data set.
        run: a finished run: counts its tokens, shows what leaks do to its accuracy, and judges the labels of rows it was
            not trained on.
        backbone: as `model.backbone`, where tokens are to be counted without a run.
        output: folder for audit.json and the lists (duplicates.csv, leakage.csv, labels.csv, text-damage.csv, and
            quarantine.jsonl); None: nothing is written.
        similarity: least share of three-word shingles that near copies have in common (Jaccard, 0.1 to 1).
        judge: who judges labels out of fold, where no run has judged them unseen: 'words', 'backbone' or 'training'.
        changes: settings of the section data for reading the sources, over those of the run.
        device: of the run and of judges that are encoders: 'cpu', 'cuda', ...; None picks.
        progress: told what is done and each finished row.

    Returns:
        What audit.json holds: counts and shares, no text.

    Raises:
        SettingsError: arguments that do not go together, an output that is one of the sources' files, or a device that is
            not here.
        DataError: sources that cannot be read.
        RunError, BackboneError: the run or backbone cannot be had.
        MissingExtraError: the extra 'audit' is not installed.

    Example:
        >>> newslora.audit(["train.csv", "test.csv"], output="findings")["leakage"]  # doctest: +SKIP
    """
    # the names of a table's columns, or of a mapping's keys, would be taken for those of hub data sets
    one = isinstance(sources, (str, os.PathLike, Mapping)) or hasattr(sources, "columns")
    given: Iterable[Any] = [sources] if one or not isinstance(sources, Iterable) else sources
    named = [parse_source(source).text for source in given]
    folder_made = None if output is None else as_path(output, "The output")
    check_device(device)
    if not isinstance(similarity, Real) or not LEAST <= similarity <= 1:
        raise SettingsError(f"The similarity is {similarity!r:.60}. Allowed: {LEAST} to 1.")
    if judge not in get_args(Judge):
        allowed = get_args(Judge)
        raise SettingsError(f"There is no judge '{judge}'. Allowed: {', '.join(allowed)}.{near(judge, allowed)}")
    if folder_made is not None:
        refuse_overwriting([folder_made / name for name in WRITTEN], named)
    folder = RunFolder.open(run_path(run)) if run is not None else None
    settings, labels, columns = _reading(folder, changes or {})
    if settings.multi_label and judge != "words":
        raise SettingsError(
            f"The judge '{judge}' judges one label a row, and these rows carry several: leave it out (--judge)."
        )
    rows = read_rows(named, settings, labels, columns)
    encoder = _encoder(folder, backbone, settings)
    copies = find_copies(rows.texts, similarity, lambda count: progress("compared", count))
    leaks = find_leaks(rows, copies)
    damage = [(row, one) for row, text in enumerate(rows.texts) for one in find_damage(text)]
    predictions: dict[int, Answers] = {}
    trained: list[int] = []
    if folder is not None:
        predictions, trained = run_answers(folder, rows, device, lambda count: progress("scored", count))
    told, doubts = judge_labels(
        rows, copies.clusters, judge, predictions, encoder, folder, device, lambda count: progress("embedded", count)
    )
    result: dict[str, Any] = {
        "splits": [describe_split(rows, split) for split in rows.splits],
        "label_names": list(rows.label_names),
        "label_base": rows.label_base,
        "duplicates": _duplicates(rows, copies, similarity),
        "leakage": leakage_table(rows, leaks),
        "leakage_effect": [
            effect_on_accuracy(rows, leaks, first, number, answers.right)
            for first in trained[:1]
            for number, answers in predictions.items()
            if number > first
        ],
        "labels": told,
        "damage": _damage(rows, damage),
        "run": None if folder is None else {"path": str(folder.path), "trained_on": [rows.splits[n].name for n in trained]},
    }  # fmt: skip
    if encoder is not None:
        for split, record in zip(rows.splits, result["splits"], strict=True):
            texts = rows.texts[split.start : split.stop]
            record["tokens"] = count_tokens(encoder.tokenizer, texts, encoder.max_length)
    if folder_made is not None:
        _write(folder_made, result, rows, copies, leaks, doubts, damage)
    return result


def refuse_leakage(result: Mapping[str, Any]) -> None:
    """For `--strict`.

    Raises:
        LeakageError: a split repeats rows of an earlier one.
    """
    found = [(one["equal_rows"] + one["near_rows"], one) for one in result["leakage"]]
    told = "; ".join(
        f"{leaked:,} of {one['rows']:,} rows of {one['split']} repeat rows of {one['repeats']}"
        for leaked, one in found
        if leaked
    )
    if told:
        raise LeakageError(
            f"Leakage found: {told}. Remove them from one of the two; leakage.csv lists them, in the output folder (--output)."
        )


def _reading(run: RunFolder | None, changes: Mapping[str, Any]) -> tuple[DataSettings, LabelSet | None, Sequence[str]]:
    """How sources are read, the labels they must have and their columns of text: a run's, or what the first source says."""
    if run is None:
        values = {key.removeprefix("data."): value for key, value in data_changes(changes).items()}
        return make_recipe({"data": values}).data, None, ()
    record = run.data()
    run.manifest()  # raises where the run is not whole
    labels = make_label_set(tuple(record["labels"]), record["label_base"])
    settings = as_trained(load_recipe(run.recipe(), data_changes(changes)).data, record)
    return settings, labels, record["splits"]["train"]["text_columns"]


def _encoder(run: RunFolder | None, backbone: str | None, settings: DataSettings) -> Encoder | None:
    if run is not None:
        if backbone is not None:
            raise SettingsError("The run (--run) brings its own backbone: leave the other (--backbone) out.")
        folder = run.adapter_folder()
        card = read_card(folder)
        return Encoder(same_backbone(card), load_tokenizer(folder), card.max_length)
    if backbone is None:
        return None
    found = resolve_backbone(backbone)
    return Encoder(found, found.tokenizer(), length_limit(found.config(), settings.max_length))


def _duplicates(rows: AuditRows, copies: Copies, similarity: float) -> dict[str, Any]:
    """Counts of copies, in all and for every two splits."""
    pairs = [(group[0], other, True) for group in copies.exact for other in group[1:]]
    pairs += [(one.first, one.second, False) for one in copies.near]
    names = [split.name for split in rows.splits]
    between: dict[tuple[int, int], dict[str, Any]] = {
        (one, other): {"splits": [names[one], names[other]], "equal_pairs": 0, "near_pairs": 0, "with_other_labels": 0}
        for one, other in combinations_with_replacement(range(len(names)), 2)
    }
    for first, second, equal in pairs:
        place = sorted((int(rows.split_of[first]), int(rows.split_of[second])))
        counts = between[place[0], place[1]]
        counts["equal_pairs" if equal else "near_pairs"] += 1
        counts["with_other_labels"] += int(rows.labels[first] != rows.labels[second])
    return {
        "shingle_words": SHINGLE,
        "similarity": similarity,
        "equal_groups": len(copies.exact),
        "rows_equal_to_an_earlier": sum(len(group) - 1 for group in copies.exact),
        "near_pairs": len(copies.near),
        "rows_left_without_copies": len(set(copies.clusters.tolist())),
        "between": list(between.values()),
    }


def _damage(rows: AuditRows, damage: Sequence[tuple[int, Damage]]) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "meaning": KINDS[kind],
            "split": split.name,
            "rows": sum(one.kind == kind and split.start <= row < split.stop for row, one in damage),
            "of": split.stop - split.start,
        }
        for split in rows.splits
        for kind in KINDS
    ]


def _write(
    folder: Path,
    result: Mapping[str, Any],
    rows: AuditRows,
    copies: Copies,
    leaks: Sequence[Leak],
    doubts: Sequence[Any],
    damage: Sequence[tuple[int, Damage]],
) -> None:
    """The lists, then the JSON that sums them up."""
    duplicates, leakage, labels, damaged, quarantine, summary = (folder / name for name in WRITTEN)
    write_duplicates(duplicates, rows, copies)
    write_leakage(leakage, rows, leaks)
    write_labels(labels, rows, doubts)
    write_damage(damaged, rows, damage)
    write_quarantine(quarantine, [split.articles for split in rows.splits])
    files.write_json(summary, result)
