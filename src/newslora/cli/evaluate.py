"""`newslora evaluate` and `newslora report`."""

from pathlib import Path

from newslora.cli.common import DeviceFlag, SetFlags, counting, data_changes


def evaluate(
    run: Path,
    /,
    *,
    data: str | None = None,
    by: str | None = None,
    settings: SetFlags = None,
    device: DeviceFlag = None,
) -> None:
    """Evaluate a run with 95 % intervals: overall, per class, calibration, abstention, and its most confident errors.

    Parameters
    ----------
    run
        A finished run folder, or an export in its exports/. An export is scored by its own answers; the result goes to the
        run's evaluation/exports/NAME and is not part of the run's report and comparisons.
    data
        Other labelled rows to score. By default the run's own test rows, which a run has scored when it finished.
    by
        A column of the data, such as a publisher, by which to break down accuracy.
    settings
        Settings of the section data for reading the rows, as key=value (data.label_column=..., data.label_names=[...]).
    """
    from newslora.cli.evaluation_tables import show
    from newslora.evaluation.evaluate import evaluate as evaluate_run

    with counting("rows scored") as progress:
        result = evaluate_run(run, data, by=by, changes=data_changes(settings), device=device, progress=progress)
    show(result)


def report(run: Path, /) -> None:
    """Write a run's figures, HTML report and model card again.

    Parameters
    ----------
    run
        A finished run folder.
    """
    from newslora.report.report import report_run

    print(report_run(run))
