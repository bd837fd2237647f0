"""`newslora train` and `newslora settings`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from newslora.cli.common import DeviceFlag, OutputFlag, SetFlags, remarks, results


def train(
    recipe: str = "seed",
    /,
    *,
    data: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    backbone: str | None = None,
    settings: SetFlags = None,
    output: OutputFlag = None,
    resume: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    device: DeviceFlag = None,
) -> None:
    """Train a classifier by a recipe and write a run folder: adapter, metrics, evaluation, report.

    Parameters
    ----------
    recipe
        A bundled recipe (quickstart, seed, fast) or a TOML file.
    data
        Training rows (data.source): file, folder, hub name, or 'corpus'.
    validation
        Validation rows, which choose the epoch to keep (data.validation).
    test
        Test rows, used once, after training (data.test).
    backbone
        Pretrained encoder (model.backbone): 'minilm', a folder, or a hub name.
    settings
        Any setting as key=value, such as train.epochs=3; may be repeated. `newslora settings` lists all.
    output
        The run folder to create; by default runs/DATE-NAME.
    resume
        Continue this run folder after Ctrl-C, a signal or a crash; the result is that of an uninterrupted run.
    dry_run
        Print the resolved recipe as TOML and, on standard error, the number of parameters, steps and tokens and the estimated
        time. Trains nothing and downloads no weights.
    """
    from newslora.config import load_recipe, parse_assignment, to_toml
    from newslora.errors import SettingsError

    changes: dict[str, Any] = dict(parse_assignment(text) for text in settings or [])
    flags = {"data.source": data, "data.validation": validation, "data.test": test, "model.backbone": backbone}
    changes |= {key: value for key, value in flags.items() if value is not None}
    if resume is not None:
        if changes or output is not None or recipe != "seed" or dry_run:
            raise SettingsError(
                "--resume continues a run as it began, to its own last epoch; it takes no recipe, no --output and no other "
                "settings. For more epochs or other settings train a run of its own: newslora train RECIPE --output FOLDER"
            )
        _train(resume, None, None, device)
        return
    resolved = load_recipe(recipe, changes)
    if dry_run:
        from newslora.cli.screen import plan_table
        from newslora.plan import make_plan

        console, plan = remarks(), make_plan(resolved, device)
        print(to_toml(resolved).strip())  # plain and by itself, so that it can be saved as a recipe
        console.print(plan_table(resolved, plan))
        for note in plan.notes:
            console.print(note)
        return
    _train(None, resolved, output, device)


def _train(resume_from: Path | None, recipe: Any, output: Path | None, device: str | None) -> None:
    from newslora import pipeline
    from newslora.cli.evaluation_tables import show
    from newslora.cli.screen import ProgressWatcher, duration
    from newslora.evaluation.evaluate import evaluate
    from newslora.runfolder import RunFolder

    watcher = ProgressWatcher(remarks())
    if resume_from is not None:
        if RunFolder.open(resume_from).complete:
            watcher.note(f"{resume_from} was finished already; nothing is trained, and this is what it came to.")
        run = pipeline.resume(resume_from, watcher=watcher, device=device)
    else:
        run = pipeline.train(recipe, output=output, watcher=watcher, device=device)
    show(evaluate(run.path))
    console, manifest = results(), run.manifest()
    spent = duration(manifest["training"]["seconds"])
    console.print(f"Trained in {spent}; kept epoch {manifest['training']['best_epoch']}.")
    console.print(f"Run: {run.path}\nReport: {run.report_file}", soft_wrap=True)


def list_settings() -> None:
    """Print every training setting with its default and meaning; a recipe file or --set changes them."""
    from newslora.config import Recipe, to_toml

    print(to_toml(Recipe()).strip())  # plain text, so that it can be saved as a recipe
