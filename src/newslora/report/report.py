"""A run folder -> figures and report.html, one file that needs no other.

The report states what the run's own files hold and computes nothing new but shares and intervals of them. The same
files give the same bytes.
"""

import base64
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora import files
from newslora.config import Recipe, setting_fields
from newslora.report.architecture import caption, draw_architecture
from newslora.report.curves import draw_confusion, draw_training
from newslora.report.drawing import Written, write_figure
from newslora.runfolder import RunFolder

if TYPE_CHECKING:
    from jinja2 import Environment

_SPACE, _DASH = "\N{NO-BREAK SPACE}", "\N{EN DASH}"


def report_run(path: Path) -> Path:
    """Write the report of a finished run anew, with whatever was evaluated since; returns report.html.

    Raises:
        RunError: no run there, or an unfinished one.
        StorageError: it cannot be written.
    """
    run = RunFolder.open(path)
    return write_report(run, run.manifest())


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
    evaluations = read_evaluations(run)
    model, best = manifest["model"], manifest["training"]["best_epoch"]
    rows = data["splits"].get("validation", {}).get("rows")
    figures = {
        "architecture": write_figure(run.figures, "architecture", partial(draw_architecture, model)),
        "training": write_figure(run.figures, "training", partial(draw_training, metrics, rows, best)),
    }
    for one in evaluations:
        if "confusion" in one:  # rows of several labels have none
            name = f"confusion-{one['name']}"
            figures[name] = write_figure(run.figures, name, partial(draw_confusion, one))
    page = _environment().get_template("template.html").render(
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


def read_evaluations(run: RunFolder) -> list[dict[str, Any]]:
    """What evaluation/*.json hold: test first, then validation, then the others by name."""
    order = {"test": 0, "validation": 1}
    found = [files.read_json(path) for path in sorted(run.evaluation.glob("*.json"))]
    return sorted(found, key=lambda one: (order.get(one["name"], 2), one["name"]))


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


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("newslora.report", "."),
        autoescape=True,
        undefined=StrictUndefined,  # a fact that is missing is an error, not a blank
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "interval": interval, "count": count, "seconds": seconds, "short": short, "python": repr,
    }  # fmt: skip
    return environment


def percent(value: float, digits: int = 2) -> str:
    """0.9453 -> '94.53 %'."""
    return f"{100 * value:.{digits}f}{_SPACE}%"


def interval(bounds: list[float]) -> str:
    """[0.925, 0.961] -> '92.5 to 96.1 %', with a dash."""
    return f"{100 * bounds[0]:.1f}{_DASH}{100 * bounds[1]:.1f}{_SPACE}%"


def count(value: int) -> str:
    """37300 -> '37,300'."""
    return f"{value:,}"


def seconds(value: float) -> str:
    """1970.2 -> '32 min 50 s'."""
    whole = round(value)
    if whole < 60:
        return f"{value:.1f}{_SPACE}s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours:,}{_SPACE}h " if hours else "") + f"{minutes}{_SPACE}min {rest}{_SPACE}s"


def short(digest: str | None) -> str:
    """The first 12 digits of a hash; the files of the run hold the rest."""
    return digest[:12] if digest else "unknown"
