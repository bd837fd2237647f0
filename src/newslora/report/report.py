"""A run folder -> figures and report.html, one file that needs no other.

The report states what the run's own files hold and computes nothing new but shares and intervals of them. The same
files give the same bytes.
"""

import base64
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from newslora import files
from newslora.config import Recipe, setting_fields
from newslora.report.architecture import draw_architecture
from newslora.report.card import write_card
from newslora.report.curves import draw_confusion, draw_training
from newslora.report.drawing import Written, write_figure
from newslora.report.layer import caption
from newslora.report.pages import environment
from newslora.runfolder import RunFolder


def report_run(path: Path) -> Path:
    """Write the report and the model card of a finished run anew, with what was evaluated since; returns report.html.

    Raises:
        RunError: no run there, or an unfinished one.
        StorageError: it cannot be written.
    """
    run = RunFolder.open(path)
    manifest = run.manifest()
    write_card(run, manifest)
    return write_report(run, manifest)


def write_report(run: RunFolder, manifest: dict[str, Any]) -> Path:
    """Write the figures and report.html of a run; returns the latter.

    Args:
        run: its data.json, metrics.jsonl and evaluation/*.json are read.
        manifest: as the run's manifest.json holds it, or will: the report is written before it.

    Raises:
        RunError: a file of the run is missing or damaged.
        StorageError: the disk refuses.
    """
    data, metrics, recipe = run.data(), run.metrics(), run.recipe()
    evaluations = run.evaluations()
    model, best = manifest["model"], manifest["training"]["best_epoch"]
    rows = data["splits"].get("validation", {}).get("rows")
    figures = {
        "architecture": write_figure(run.figures, "architecture", partial(draw_architecture, model)),
        "training": write_figure(run.figures, "training", partial(draw_training, metrics, rows, best)),
    }
    for one in evaluations:
        name = f"confusion-{one['name']}"
        figures[name] = write_figure(run.figures, name, partial(draw_confusion, one))
    page = environment().get_template("template.html").render(
        recipe=recipe,
        manifest=manifest,
        data=data,
        model=model,
        evaluations=evaluations,
        first=evaluations[0] if evaluations else None,
        epochs=[line for line in metrics if line["kind"] == "epoch"],
        best=best,
        settings=_settings(recipe),
        caption=caption(model),
        figures={name: _embedded(figure) for name, figure in figures.items()},
        path=str(run.path.resolve()),
        shell_path=shlex.quote(str(run.path.resolve())),
    )  # fmt: skip
    files.write_text(run.report_file, page)
    return run.report_file


def _settings(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(key, value, description) of every setting, as resolved."""
    rows = []
    for key, info in setting_fields():
        section, _, name = key.rpartition(".")
        value = getattr(getattr(recipe, section) if section else recipe, name)
        words = (
            ", ".join(value)
            if isinstance(value, tuple)
            else str(value).lower()
            if isinstance(value, bool)
            else str(value)
        )
        rows.append((key, "unset" if value is None else words, info.description))
    return rows


def _embedded(figure: Written) -> dict[str, str]:
    """Both papers as data URIs."""
    head = "data:image/svg+xml;base64,"
    return {
        "light": head + base64.b64encode(figure.light).decode("ascii"),
        "dark": head + base64.b64encode(figure.dark).decode("ascii"),
    }
