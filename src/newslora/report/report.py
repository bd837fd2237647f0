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
from newslora.config import Recipe, bundled_recipes, in_words, load_recipe, setting_values
from newslora.errors import RunError
from newslora.evaluation.faithfulness import FILE as FAITHFULNESS
from newslora.metrics.basic import SHARES
from newslora.records.evaluation import Faithfulness
from newslora.records.reading import read_dict
from newslora.report.accuracy import draw_breakdown, draw_reliability
from newslora.report.architecture import draw_architecture
from newslora.report.audited import read_audit
from newslora.report.card import copies_told, write_card
from newslora.report.curves import MOST_LABELS, draw_confusion, draw_training
from newslora.report.drawing import Draw, Written, write_figure
from newslora.report.explained import explain_examples, read_examples
from newslora.report.findings import METRICS, confused, findings, speeds, wrong_rows
from newslora.report.layer import NAMES, caption
from newslora.report.pages import environment
from newslora.runfolder import RESTORE, RunFolder


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


def write_report(run: RunFolder, manifest: dict[str, Any], device: str | None = None) -> Path:
    """Write the figures and report.html of a run; returns the latter.

    Args:
        run: its data.json, metrics.jsonl and evaluation/*.json are read.
        manifest: as the run's manifest.json holds it, or will: the report is written before it.
        device: that explains examples: 'cpu', 'cuda', ...; None picks.

    Raises:
        RunError: a file of the run is missing or damaged.
        StorageError: the disk refuses.
    """
    data, metrics, recipe = run.data(), run.metrics(), run.recipe()
    # another adapter's figures come last: the page begins with the first
    evaluations = sorted(run.evaluations(), key=lambda one: bool(one["adapter_sha256"] != manifest["adapter_sha256"]))
    model, best = manifest["model"], manifest["training"]["best_epoch"]
    epochs = [line for line in metrics if line["kind"] == "epoch"]
    if model["model_type"] not in NAMES:
        told = f"{run.manifest_file} names the model type '{model['model_type']}'. Known: {', '.join(NAMES)}. {RESTORE}"
        raise RunError(told)
    unexplained = explain_examples(run, manifest, device)
    figures = _figures(run, manifest, metrics, evaluations)
    page = environment().get_template("template.html").render(
        recipe=recipe,
        manifest=manifest,
        data=data,
        model=model,
        evaluations=evaluations,
        findings=findings(evaluations[0]) if evaluations else [],
        confused=confused,
        wrong_rows=wrong_rows,
        metrics=METRICS,
        shares=SHARES,
        epochs=epochs,
        best=best,
        unexplained=unexplained,
        examples=read_examples(run),
        faithful=_faithful(run, manifest),
        audit=read_audit(run),
        copies=copies_told(manifest, data),
        sources=[shlex.quote(split["source"]) for split in data["splits"].values()],
        speeds=speeds(manifest, data, recipe, len(epochs), evaluations),
        settings=_settings(recipe),
        changed=_changed(recipe),
        caption=caption(model),
        figures={name: _embedded(figure) for name, figure in figures.items()},
        path=str(run.path.resolve()),
        shell_path=shlex.quote(str(run.path.resolve())),
    )  # fmt: skip
    files.write_text(run.report_file, page)
    return run.report_file


def _figures(
    run: RunFolder, manifest: dict[str, Any], metrics: list[dict[str, Any]], evaluations: list[dict[str, Any]]
) -> dict[str, Written]:
    """Draw and write every figure; by name."""
    rows = run.data()["splits"].get("validation", {}).get("rows")
    draw: dict[str, Draw] = {
        "architecture": partial(draw_architecture, manifest["model"]),
        "training": partial(draw_training, metrics, rows, manifest["training"]["best_epoch"]),
    }
    for one in evaluations:
        if "confusion" in one and len(one["labels"]) <= MOST_LABELS:  # rows of several labels have none
            draw[f"confusion-{one['name']}"] = partial(draw_confusion, one)
        if "calibration" in one:
            draw[f"reliability-{one['name']}"] = partial(draw_reliability, one)
    told = next((one for one in evaluations if one.get("accuracy_by")), None)
    for place, breakdown in enumerate(told["accuracy_by"] if told else [], 1):
        assert told is not None
        draw[f"by-{told['name']}-{place}"] = partial(draw_breakdown, breakdown, told["accuracy"]["value"])
    return {name: write_figure(run.figures, name, one) for name, one in draw.items()}


def _faithful(run: RunFolder, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The test of explanations, if this adapter's were tested."""
    path = run.evaluation / FAITHFULNESS
    if not path.is_file():
        return None
    found = read_dict(
        path, Faithfulness, "Restore it, or test the explanations again: `newslora explain RUN --check SOURCE`."
    )
    return found if found["adapter_sha256"] == manifest["adapter_sha256"] else None


def _settings(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(key, value, description) of every setting, as resolved."""
    return [(key, in_words(value), field.description) for key, field, value in setting_values(recipe)]


def _changed(recipe: Recipe) -> list[str]:
    """'train.epochs = 2' for each setting that is not as in the bundled recipe of this name; its description fits no more."""
    if recipe.name not in bundled_recipes():
        return []
    as_bundled = {key: value for key, value, _ in _settings(load_recipe(recipe.name))}
    return [f"{key} = {value}" for key, value, _ in _settings(recipe) if value != as_bundled[key]]


def _embedded(figure: Written) -> dict[str, str]:
    """Both papers as data URIs."""
    head = "data:image/svg+xml;base64,"
    return {
        "light": head + base64.b64encode(figure.light).decode("ascii"),
        "dark": head + base64.b64encode(figure.dark).decode("ascii"),
    }
