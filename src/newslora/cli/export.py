"""`newslora export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from newslora.cli.common import OutputFlag, SetFlags, counting, data_changes, new_table, remarks, results

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
    device: str | None = None,  # not DeviceFlag, whose help names another default
) -> None:
    """Export a run for other programs; it is published only if it gives the run's answers on held-out rows.

    `newslora predict`, `evaluate` and `serve` accept the export in place of the run. If the check fails, nothing is published
    (exit code 9).

    Parameters
    ----------
    run
        A finished run folder.
    to
        'merged': LoRA merged into the weights, for plain transformers. 'int8': the same files, which newslora computes in
        eight bits on the CPU. 'onnx': ONNX Runtime, fp32. 'onnx-int8': ONNX Runtime, with weights of seven bits and layers a
        quarter of the size. 'peft': the adapter alone.
    output
        The folder to create; by default RUN/exports/KIND.
    data
        Labelled rows to check it on; by default the run's test rows, or else its validation rows.
    rows
        Check on at most this many of them, a random sample stratified by label.
    int8
        How onnx-int8 gets the ranges of activations: 'dynamic', measured while each row runs by itself, or 'static', computed
        in advance from training rows, so that rows can share batches.
    settings
        Settings of the section data for reading --data, as key=value.
    replace
        Replace an existing export of that name, once the new one has passed the check.
    device
        Device on which the check runs; by default the CPU. ONNX and int8 always run on the CPU.
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
