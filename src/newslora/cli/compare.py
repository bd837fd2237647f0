"""`newslora compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora.cli.common import DeviceFlag, OutputFlag, SetFlags, counting, data_changes, new_table, results

if TYPE_CHECKING:
    from rich.table import Table


def compare(
    *runs: Path,
    data: str | None = None,
    output: OutputFlag = None,
    settings: SetFlags = None,
    device: DeviceFlag = None,
) -> None:
    """Test which differences between runs are real: paired tests on the same rows, corrected for multiple comparisons.

    Parameters
    ----------
    runs
        Two or more finished run folders. Runs that differ only in the seed are also summarised as a group.
    data
        Labelled rows that all runs score; by default rows that every run has already scored, preferably test rows.
    output
        JSON file for the result; the rows on which the runs differ are written beside it, as NAME-rows.csv.
    settings
        Settings of the section data for reading --data, as key=value.
    """
    from newslora.evaluation.compare import compare as compare_runs
    from newslora.evaluation.compare import rows_file

    with counting("rows scored") as progress:
        result = compare_runs(
            runs, data=data, output=output, changes=data_changes(settings), device=device, progress=progress
        )
    console = results()
    for part in (*tables(result), *sentences(result)):
        console.print(part)
    if output is not None:
        console.print(f"{output} and {rows_file(output)} written.")


def tables(result: dict[str, Any]) -> "list[Table]":
    """A comparison as tables that fit 80 columns: runs (by number), pairs, seeds of one recipe."""
    number = {run["name"]: str(place) for place, run in enumerate(result["runs"], 1)}
    runs = _table(f"{result['rows']:,} rows of {result['source']}", "", "run", "accuracy, %", "macro F1, %", "loss")
    for run in result["runs"]:
        rates = [_rate(run[key]) for key in ("accuracy", "macro_f1")]
        runs.add_row(number[run["name"]], run["name"], *rates, f"{run['loss']:.4f}")
    title = "first run less second (accuracy and macro F1 in points); rows only one of them has right"
    pairs = _table(title, "", "accuracy", "macro F1", "loss", "only one", "p")
    for pair in result["pairs"]:
        first, second = (number[name] for name in pair["runs"])
        by = pair["differences"]
        pairs.add_row(
            f"{first}-{second}",
            _difference(by["accuracy"], 100, 1),
            _difference(by["macro_f1"], 100, 1),
            _difference(by["loss"], 1, 3),
            f"{pair['only_first_right']:,}:{pair['only_second_right']:,}",
            ("<.0001" if pair["p_holm"] < 1e-4 else f"{pair['p_holm']:.2g}") + ("*" if pair["shown"] else ""),
        )
    found = [runs, pairs]
    if result["seeds"]:
        seeds = _table(
            "seeds of one recipe: mean, standard deviation (range)", "recipe", "seeds", "accuracy, %", "loss"
        )
        for group in result["seeds"]:
            seeds.add_row(
                group["name"],
                str(len(group["seeds"])),
                _spread(group["accuracy"], 100, 2),
                _spread(group["loss"], 1, 4),
            )
        found.append(seeds)
    return found


def sentences(result: dict[str, Any]) -> list[str]:
    """A comparison in words: recipes, then pairs that are not seeds of one recipe, then what to keep in mind."""
    said = [one["sentence"] for one in result["recipes"]]
    said += [pair["sentence"] for pair in result["pairs"] if not pair["seeds_of_one_recipe"] or not result["recipes"]]
    said.append(f"The runs give {result['differing_rows']:,} of {result['rows']:,} rows different labels.")
    return said + [result[key] for key in ("seeds_note", "repeats_note", "scope", "note") if result[key]]


def _table(title: str, *headings: str) -> "Table":
    table = new_table(title, *headings, words=("", "run", "recipe"), tight=len(headings) > 5)
    for place, column in enumerate(table.columns):
        column.overflow = "fold" if place < 2 else "ellipsis"
    return table


def _rate(rate: dict[str, Any]) -> str:
    low, high = rate["interval"]
    return f"{100 * rate['value']:.2f} ({100 * low:.1f}-{100 * high:.1f})"


def _difference(rate: dict[str, Any], scale: int, digits: int) -> str:
    values = [scale * value for value in (rate["value"], *rate["interval"])]
    value, low, high = (f"{value:+.{digits}f}" for value in values)
    return f"{value} ({low} {high})"


def _spread(one: dict[str, Any], scale: int, digits: int) -> str:
    mean, deviation, low, high = (
        f"{scale * one[key]:.{digits}f}" for key in ("mean", "standard_deviation", "lowest", "highest")
    )
    return f"{mean}, {deviation} ({low}-{high})"
