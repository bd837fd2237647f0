"""`newslora export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from newslora.cli.common import DeviceFlag, OutputFlag, SetFlags, counting, data_changes, new_table, remarks, results

if TYPE_CHECKING:
    from rich.table import Table


def export(
    run: Path,
    /,
    *,
    to: str,
    output: OutputFlag = None,
    data: str | None = None,
    rows: int | None = None,
    int8: str = "dynamic",
    settings: SetFlags = None,
    replace: Annotated[bool, Parameter(negative="")] = False,
    device: DeviceFlag = None,
) -> None:
    """Make a run ready for other programs: published only if it gives the run's answers on rows held back from training.

    `newslora predict` takes the folder in the run's place. An export that does not pass is not published (exit code 9).

    Parameters
    ----------
    run
        A finished run folder.
    to
        'merged': LoRA in the weights, for plain transformers. 'int8': the same files, which newslora multiplies in eight bits
        on the CPU. 'onnx': for ONNX Runtime, fp32. 'onnx-int8': the same with weights of seven bits, a quarter of the layers'
        size. 'peft': the adapter by itself.
    output
        The folder to make; by default RUN/exports/KIND.
    data
        Labelled rows to judge it by; by default the run's own test rows, or else its validation rows.
    rows
        Judge by at most as many of them, drawn at random by share of each label.
    int8
        How activations of onnx-int8 get their ranges: 'dynamic', measured as each row runs by itself, or 'static', from
        training rows beforehand, so that rows can share batches.
    settings
        Settings of the section data for reading --data, as key=value.
    replace
        Put the export in the place of one that stands there, once it has passed.
    device
        Where run and export answer the rows it is judged by; the CPU by default. ONNX and int8 always answer on the CPU.
    """
    from newslora.exporting.export import export as export_run

    with counting("rows answered") as progress:
        made = export_run(
            run, to, output, data=data, rows=rows, int8=int8, changes=data_changes(settings), replace=replace,
            device=device, progress=progress, note=remarks().print,
        )  # fmt: skip
    console = results()
    console.print(gate_table(made.record))
    for one in made.record["gate"]["checks"].values():
        if one.get("remark"):
            console.print(one["remark"])
    console.print(f"Published: {made.path}")


def gate_table(record: dict[str, Any]) -> "Table":
    """What was asked of an export, and what was found."""
    from newslora.exporting.card import findings

    table = new_table(f"{record['to']} beside the run", "rows of", "rows", "asked", "found", words=("rows of", "asked"))
    for column in table.columns:
        column.overflow = "fold"
    for name, one in record["gate"]["checks"].items():
        for place, (asked, found) in enumerate(findings(one)):
            head = (name, f"{one['rows']:,}") if not place else ("", "")
            table.add_row(*head, asked, found)
    return table
