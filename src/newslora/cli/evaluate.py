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
    """Show how good a run is, with 95 % intervals: per class, how sure it may be, when to abstain, its surest errors.

    Parameters
    ----------
    run
        A finished run folder; or an export in its exports/, whose own answers are scored then. They are kept in the run's
        evaluation/exports/NAME; its report and comparisons are of the run alone.
    data
        Other labelled rows to score; by default the run's own test rows, a run's as scored when it finished.
    by
        A column of the data, such as a publisher, to break accuracy down by.
    settings
        Settings of the section data for reading them, as key=value (data.label_column=..., data.label_names=[...]).
    """
    from newslora.cli.evaluation_tables import show
    from newslora.evaluation.evaluate import evaluate as evaluate_run

    with counting("rows scored") as progress:
        result = evaluate_run(run, data, by=by, changes=data_changes(settings), device=device, progress=progress)
    show(result)


def report(run: Path, /) -> None:
    """Write a run's figures and its self-contained HTML report again.

    Parameters
    ----------
    run
        A finished run folder.
    """
    from newslora.report.report import report_run

    print(report_run(run))
