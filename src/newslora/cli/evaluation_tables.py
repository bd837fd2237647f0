"""An evaluation on screen, within the width there is. An evaluation stored by an older newslora shows what it holds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from newslora.cli.common import new_table, results
from newslora.metrics.basic import SHARES
from newslora.report.curves import MOST_LABELS

if TYPE_CHECKING:
    from rich.table import Table

NAMES = {
    "accuracy": "accuracy", "macro_precision": "macro precision", "macro_recall": "macro recall", "macro_f1": "macro F1",
    "micro_f1": "micro F1", "samples_f1": "samples F1", "hamming_loss": "Hamming loss",
    "confidence": "mean confidence", "ece": "ECE (15 bins)",
    "mcc": "MCC", "auroc": "AUROC (one vs rest)", "log_loss": "log loss", "brier": "Brier (0 to 2)",
}  # fmt: skip
LEAST_SHARE = 0.01  # of the rows in a reliability bin shown
ERRORS_SHOWN = 5
NAMES_SHOWN = 10
WIDTH = 80
LABEL_WIDTH = 5  # of a label in the confusion table, at least


def show(result: dict[str, Any]) -> None:
    """An evaluation: its tables, and what is to be said of them."""
    console = results()
    for part in (*evaluation_tables(result, console.width), *remarks_on(result)):
        console.print(part)


def evaluation_tables(result: dict[str, Any], width: int = WIDTH) -> "list[Table]":
    """All tables: the whole, per class, confusion, reliability, accuracy by a column, abstention, surest errors.

    A confusion table wider than `width`, in characters, is left out, and that is said.
    """
    if result.get("multi_label"):
        tables = [_whole(result), _per_class(result), _per_label(result)]
    else:
        tables = [_whole(result), _per_class(result)]
        if _confusion_width(result) <= width:
            tables.append(_confusion(result))
        else:
            tables[-1].caption = _elsewhere(result)
    if "reliability" in result:
        tables.append(_reliability(result))
    tables += [_by_name(one) for one in result.get("accuracy_by", []) if one["kind"] == "name"]
    if any("coverage" in level for level in result.get("abstention", {}).get("levels", [])):
        tables.append(_abstention(result["abstention"]["levels"]))
    if result.get("errors"):
        tables.append(_errors(result["errors"]))
    return tables


def remarks_on(result: dict[str, Any]) -> Iterator[str]:
    """Sentences beneath the tables: temperature, why abstaining cannot be had, and how these rows flatter."""
    calibration = result.get("calibration")
    if calibration:
        before, after = calibration["before"], calibration["after"]
        if calibration["reason"]:
            yield f"Temperature 1: {calibration['reason']}."
        else:
            yield (
                f"Temperature {calibration['temperature']:.3f}, fitted on {calibration['validation_rows']:,} validation rows: "
                f"ECE {before['ece']:.2%} before, {after['ece']:.2%} after; log loss {before['log_loss']:.4f} before, "
                f"{after['log_loss']:.4f} after."
            )
    thresholds = result.get("thresholds")
    if thresholds:
        before, after, here = thresholds["before"], thresholds["after"], result["macro_f1"]["value"]
        these = "" if here is None else f"; on these rows {result['at_half']['macro_f1']:.2%} and {here:.2%}"
        yield (
            f"Thresholds tuned on {thresholds['rows']:,} validation rows: macro F1 {before['macro_f1']:.2%} with 0.5 for every "
            f"label, {after['macro_f1']:.2%} tuned{these}."
        )
    reasons = [level["reason"] for level in result.get("abstention", {}).get("levels", []) if "reason" in level]
    yield from reasons[:1]
    if result["note"]:
        yield result["note"]
    if "export" in result:
        yield (
            f"These are the export's own answers, with the run's temperature and thresholds; they are kept in the run's "
            f"evaluation/exports/{result['export']['name']}."
        )


def _whole(result: dict[str, Any]) -> "Table":
    export = f", {result['export']['kind']} export" if "export" in result else ""
    title = f"{result['name']}{export}: {result['rows']:,} rows of {result['source']}"
    table = _table(title, "metric", "value", "95 % interval")
    names = NAMES | ({"accuracy": "subset accuracy"} if result.get("multi_label") else {})
    for key, name in names.items():
        if key in result:
            table.add_row(name, *_rate(result[key], as_share=key in SHARES))
    if "log_loss" not in result:
        table.add_row("loss", f"{result['loss']:.4f}", "")
    return table


def _per_class(result: dict[str, Any]) -> "Table":
    table = _table("per class, % (95 % interval)", "label", "precision", "recall", "F1", "rows")
    for name, row in result["per_class"].items():
        cells = [_short_rate(row[key]) for key in ("precision", "recall", "f1")]
        table.add_row(name, *cells, f"{row['rows']:,}")
    return table


def _per_label(result: dict[str, Any]) -> "Table":
    """Where rows carry several labels, in the confusion matrix's place."""
    heads = ("threshold", "avg. precision", "right", "wrong", "missed")
    table = _table("each label by itself: rows it was given to, rightly or not, and rows missed", "label", *heads)
    for name, row in result["per_class"].items():
        counts = [row["counts"][key] for key in ("true_positives", "false_positives", "false_negatives")]
        precision = _short_rate(row["average_precision"])
        table.add_row(name, f"{row['threshold']:.3f}", precision, *(f"{count:,}" for count in counts))
    return table


def _confusion_width(result: dict[str, Any]) -> int:
    """Characters the table takes at least, every count in full and every label by its beginning."""
    from rich.cells import cell_len

    names = [min(LABEL_WIDTH, cell_len(name)) for name in result["labels"]]
    counts = [max(len(f"{count:,}") for count in column) for column in zip(*result["confusion"], strict=True)]
    return 4 + max(names, default=0) + sum(3 + max(pair) for pair in zip(names, counts, strict=True))


def _elsewhere(result: dict[str, Any]) -> str:
    """Where a confusion table is that is not shown."""
    told = f"How the {len(result['labels']):,} labels are confused takes a wider screen; it stands in"
    if "export" in result:
        return f"{told} evaluation/exports/{result['export']['name']}/{result['name']}.json."
    drawn = ", as a figure in the report" if len(result["labels"]) <= MOST_LABELS else ""
    return f"{told} evaluation/{result['name']}.json{drawn}."


def _confusion(result: dict[str, Any]) -> "Table":
    table = _table("confusion (rows: true, columns: predicted)", "", *result["labels"])
    for name, counts in zip(result["labels"], result["confusion"], strict=True):
        table.add_row(name, *(f"{count:,}" for count in counts))
    return table


def _reliability(result: dict[str, Any]) -> "Table":
    bins = result["reliability"]["bins"]
    shown = [one for one in bins if one["rows"] >= LEAST_SHARE * result["rows"]]
    table = _table("calibration: accuracy by confidence", "confidence, %", "rows", "mean", "accuracy, %")
    if rest := sum(one["rows"] for one in bins) - sum(one["rows"] for one in shown):
        table.caption = f"Left out: bins of less than 1 % of the rows ({rest:,} in all)."
    for one in shown:
        span = f"{100 * one['low']:.0f} to {100 * one['high']:.0f}"
        table.add_row(span, f"{one['rows']:,}", f"{100 * one['confidence']:.1f}", _short_rate(one["accuracy"]))
    return table


def _by_name(one: dict[str, Any]) -> "Table":
    table = _table(f"by {one['by']}", one["by"], "rows", "accuracy, %")
    for group in one["groups"][:NAMES_SHOWN]:
        table.add_row(group["name"], f"{group['rows']:,}", _short_rate(group["accuracy"]))
    if (more := len(one["groups"]) - NAMES_SHOWN) > 0:
        table.caption = f"{more:,} more in the JSON."
    return table


def _abstention(levels: list[dict[str, Any]]) -> "Table":
    heads = ("level", "right label in set", "answered", "right of those", "set size")
    table = _table("what predict --abstain LEVEL would give, %", *heads)
    table.caption = "A row's set is to hold the right label LEVEL of the time; a set of one label is an answer."
    for one in (level for level in levels if "coverage" in level):
        shares = [_short_rate(one[key]) for key in ("coverage", "answered", "accuracy_of_answered")]
        table.add_row(f"{one['level']:g}", *shares, f"{one['mean_set_size']:.2f}")
    return table


def _errors(errors: list[dict[str, Any]]) -> "Table":
    from rich.table import Table

    count = min(ERRORS_SHOWN, len(errors))
    title = f"the {count} most confidently wrong rows" if count > 1 else "the wrong row"
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("row", justify="right")
    table.add_column("label, predicted")
    table.add_column("sure", justify="right")
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    for one in errors[:count]:
        pair = f"{one['label']}, {one['predicted']}"
        table.add_row(f"{one['row']:,}", pair, f"{one['confidence']:.3f}", " ".join(one["text"].split()))
    return table


def _table(title: str, first: str, *others: str) -> "Table":
    return new_table(title, first, *others, words=(first,))


def _rate(rate: dict[str, Any], as_share: bool) -> tuple[str, str]:
    form = ".2%" if as_share else ".4f"
    value = "-" if rate["value"] is None else f"{rate['value']:{form}}"
    if rate["interval"] is None:
        return value, rate["reason"]
    low, high = rate["interval"]
    return value, f"{low:{form}} to {high:{form}}"


def _short_rate(rate: dict[str, Any]) -> str:
    """Five of these columns fit a terminal of 80."""
    if rate["value"] is None:
        return "-"
    share = rate["value"] if rate["value"] == 1 else min(rate["value"], 0.999)  # 100 is all of them
    value = f"{100 * share:.3g}"
    if rate["interval"] is None:
        return value
    low, high = rate["interval"]
    return f"{value} ({100 * low:.3g}-{100 * high:.3g})"
