"""`newslora audit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from newslora.cli.common import DeviceFlag, OutputFlag, SetFlags, data_changes, new_table, remarks, results

if TYPE_CHECKING:
    from rich.table import Table


def audit(
    *sources: str,
    run: Path | None = None,
    backbone: str | None = None,
    output: OutputFlag = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    similarity: float | None = None,
    judge: Literal["words", "backbone", "training"] = "words",
    settings: SetFlags = None,
    device: DeviceFlag = None,
) -> None:
    """Look for problems in labelled rows: duplicates, leakage between splits, likely wrong labels, damaged text.

    Parameters
    ----------
    sources
        Files, folders or hub names: the splits of one data set, training rows first. A folder stands for all of its splits.
    run
        A finished run, used to count tokens, measure the effect of leakage on its accuracy, and judge labels of rows it has
        not seen.
    backbone
        A backbone whose tokenizer counts tokens, if no run is given.
    output
        Folder for audit.json and the lists duplicates.csv, leakage.csv, labels.csv and text-damage.csv.
    strict
        End with exit code 1 if a split repeats rows of an earlier one.
    similarity
        Minimum share of three-word sequences that near-duplicates have in common (0.1 to 1; default 0.6).
    judge
        What judges the labels by cross-validation, for rows that no run can judge unseen: 'words' (TF-IDF and logistic
        regression), 'backbone' (logistic regression on the pretrained encoder's embeddings), or 'training' (the run's recipe,
        trained once per fold).
    settings
        Settings of the section data for reading the sources, as key=value (data.label_column=..., data.label_names=[...]).
    """
    from rich.progress import Progress, TextColumn

    from newslora.auditing.audit import audit as audit_sources
    from newslora.auditing.audit import refuse_leakage
    from newslora.auditing.copies import SIMILARITY

    with Progress(
        TextColumn("{task.completed:,.0f} rows {task.description}"), console=remarks(), transient=True
    ) as bar:
        tasks: dict[str, Any] = {}

        def progress(what: str, rows: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=None)
            bar.advance(tasks[what], rows)

        result = audit_sources(
            sources,
            run=run,
            backbone=backbone,
            output=output,
            similarity=SIMILARITY if similarity is None else similarity,
            judge=judge,
            changes=data_changes(settings),
            device=device,
            progress=progress,
        )
    console = results()
    for part in (*tables(result), *sentences(result)):
        console.print(part)
    console.print(
        "Add --output FOLDER for the rows themselves." if output is None else f"The rows themselves: {output}"
    )
    if strict:
        refuse_leakage(result)


def tables(result: dict[str, Any]) -> "list[Table]":
    """An audit as tables that fit 80 columns."""
    return [_rows(result), _lengths(result), _copies(result), _findings(result)]


def sentences(result: dict[str, Any]) -> list[str]:
    """Rows set aside, leaks and their effect, and who judged the labels, in words."""
    from newslora.metrics.intervals import told

    said = []
    for one in result["splits"]:
        if reasons := one["quarantine_reasons"]:
            listed = "; ".join(f"{reason} ({count:,} rows)" for reason, count in reasons.items())
            said.append(f"Rows of {one['name']} set aside: {listed}.")
    for one in result["leakage"]:
        leaked = one["equal_rows"] + one["near_rows"]
        text = f"No row of {one['split']} repeats a row of {one['repeats']}, exactly or nearly."
        if leaked:
            text = (
                f"Leakage: {leaked:,} of {one['rows']:,} rows of {one['split']} ({leaked / one['rows']:.2%}) repeat rows of "
                f"{one['repeats']}: {one['equal_rows']:,} equal, {one['near_rows']:,} nearly; {one['with_another_label']:,} of "
                "them have another label there."
            )
        said.append(text)
    for one in result["leakage_effect"]:
        if "rise" not in one:
            continue
        rows = {name: f"{one[name]['rows']:,}" for name in ("all", "clean", "leaked")}
        forms = (f"all {rows['all']}", f"{rows['clean']} clean", f"{rows['leaked']} leaked")
        parts = [f"{told(one[name])} on {form} rows" for name, form in zip(rows, forms, strict=True)]
        value, bounds = one["rise"]["value"], one["rise"]["interval"]
        span = one["rise"]["reason"] if bounds is None else f"{100 * bounds[0]:+.2f} to {100 * bounds[1]:+.2f}"
        said.append(
            f"Accuracy on {one['split']}: {', '.join(parts)}. Leaks raise it by {100 * value:+.2f} points ({span}). "
            f"{one['caveat']}"
        )
    if result["run"] and not result["run"]["trained_on"]:
        said.append("The run was trained on none of these rows, so leaks between them say nothing of its accuracy.")
    judges: dict[str, list[str]] = {}
    for one in result["labels"]:
        how = f"judged by {one['judged_by']}" if one["judged_by"] else f"not judged, for {one['reason']}"
        right = "" if one["its_accuracy"] is None else f" (right on {one['its_accuracy']:.1%})"
        judges.setdefault(how, []).append(one["split"] + right)
    said += [f"Labels {how}: {', '.join(judged)}." for how, judged in judges.items()]
    return said


def _rows(result: dict[str, Any]) -> "Table":
    table = new_table("rows", "split", "usable", "set aside", "labels", words=("split", "labels"))
    for one in result["splits"]:
        shares = (f"{name} {count:,} ({count / one['rows']:.1%})" for name, count in one["labels"].items())
        table.add_row(one["name"], f"{one['rows']:,}", f"{one['quarantined']:,}", ", ".join(shares))
    return table


def _lengths(result: dict[str, Any]) -> "Table":
    limits = {one["tokens"]["limit"] for one in result["splits"] if "tokens" in one}
    over = [f"over {limit:,}" for limit in limits]  # the rows a length limit cuts
    table = new_table("lengths", "split", "", "median", "mean", "99 of 100", "longest", *over, words=("split", ""))
    for one in result["splits"]:
        for unit in ("characters", "words", "tokens"):
            if unit in one:
                lengths = one[unit]
                values = [f"{lengths[key]:,.0f}" for key in ("median", "mean", "percentile_99", "longest")]
                cut = [f"{lengths['cut_rows']:,}"] if unit == "tokens" else []
                table.add_row(one["name"] if unit == "characters" else "", unit, *values, *cut)
    return table


def _copies(result: dict[str, Any]) -> "Table":
    table = new_table("pairs of copies", "splits", "equal pairs", "near pairs", "labels differ", words=("splits",))
    for one in result["duplicates"]["between"]:
        first, second = one["splits"]
        name = f"inside {first}" if first == second else f"{first} and {second}"
        counts = [f"{one[key]:,}" for key in ("equal_pairs", "near_pairs", "with_other_labels")]
        table.add_row(name, *counts)
    return table


def _findings(result: dict[str, Any]) -> "Table":
    names = [one["name"] for one in result["splits"]]
    table = new_table("rows with", "", *names)
    judged = {one["split"]: f"{one['likely_wrong']:,}" if one["judged_by"] else "-" for one in result["labels"]}
    table.add_row("a likely wrong label", *(judged[name] for name in names))
    for kind in dict.fromkeys(one["kind"] for one in result["damage"]):
        counts = {one["split"]: one["rows"] for one in result["damage"] if one["kind"] == kind}
        meaning = next(one["meaning"] for one in result["damage"] if one["kind"] == kind)
        table.add_row(meaning, *(f"{counts[name]:,}" for name in names))
    return table
