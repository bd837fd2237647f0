"""The model card: README.md of the adapter folder, with the hub's YAML header, out of the run's own facts.

It is what a stranger reads first, so it says what the numbers rest on. The adapter's hash is of its weights and does
not depend on it. Header fields only a person can know (`KEPT`) are kept when the card is written again.
"""

import contextlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora import files
from newslora.data.overlap import told, told_earlier, told_unread
from newslora.data.sources import parse_again
from newslora.errors import DataError
from newslora.metrics.basic import SHARES
from newslora.model.backbones import Backbone
from newslora.report.findings import METRICS, weakest_label
from newslora.report.pages import count, interval, percent, seconds
from newslora.runfolder import STARTED_FROM, TRAINED_IN, RunFolder

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

FILE = "README.md"
KEPT = ("language", "license", "license_name", "license_link", "datasets")
# the hub's ids
HUB_METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "mcc": "matthews_correlation",
    "auroc": "roc_auc",
}
_UNESCAPED = re.compile(r"([\\`*_\[\]|#~])")


def write_card(run: RunFolder, manifest: dict[str, Any]) -> Path:
    """Write the model card of a run; returns adapter/README.md. `manifest`: as the run's manifest.json holds it, or will.

    Raises:
        RunError: a file of the run is missing or damaged.
        StorageError: the disk refuses.
    """
    path = run.adapter / FILE
    data, version = run.data(), manifest["adapter_sha256"]
    evaluations = [one for one in run.evaluations() if one["adapter_sha256"] == version]
    header = _header(manifest, data, evaluations, _kept(path))
    files.write_text(path, f"---\n{header.to_yaml()}\n---\n\n{_body(run, manifest, data, evaluations)}")
    return path


def _header(
    manifest: dict[str, Any], data: dict[str, Any], evaluations: Sequence[dict[str, Any]], kept: dict[str, Any]
) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    base = _base(manifest)
    folder = data.get(TRAINED_IN)
    hubs = [name for split in data["splits"].values() if (name := data_set(split["source"], folder)[0]) != "file"]
    return ModelCardData(
        model_name=_title(manifest),
        base_model=None if base.kind == "folder" else base.hub_name,
        library_name="peft",
        pipeline_tag="text-classification",
        tags=["lora", "newslora", "text-classification"],
        metrics=sorted(set(HUB_METRICS.values())),
        eval_results=[result for one in evaluations for result in _results(one, folder)],
        **({"datasets": sorted(set(hubs))} if hubs else {}) | kept,
    )


def _results(one: dict[str, Any], folder: str | None) -> "list[EvalResult]":
    """An evaluation's rates as the hub's model index holds them; the interval, if any, stands in the metric's name."""
    from huggingface_hub import EvalResult

    kind, name = data_set(one["source"], folder)
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=kind,
            dataset_name=name,
            dataset_split=one["name"],
            dataset_args={"rows": one["rows"], "sha256": one["sha256"]},
            metric_type=metric,
            metric_name=METRICS[key][0] + _in_brackets(key, one[key]),
            metric_value=one[key]["value"],
            metric_args=None if key in ("accuracy", "mcc") else {"average": "macro"},
        )
        for key, metric in HUB_METRICS.items()
        if key in one and one[key]["value"] is not None
    ]


def _in_brackets(key: str, rate: dict[str, Any]) -> str:
    return "" if rate["interval"] is None else f" (95 % interval {_told(key, rate)[1]})"


def _kept(path: Path) -> dict[str, Any]:
    """What a person put into the header of the card that is there, if it can be read."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError  # type: ignore[import-untyped]

    if not path.is_file():
        return {}
    try:
        header: Any = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        found = header.to_dict()
    except (ValueError, TypeError, AttributeError, YAMLError):
        return {}  # somebody's file that is no card; it is replaced
    return {key: found[key] for key in KEPT if found.get(key)}


def _body(run: RunFolder, manifest: dict[str, Any], data: dict[str, Any], evaluations: Sequence[dict[str, Any]]) -> str:
    labels = ", ".join(_text(label) for label in data["labels"])
    windows = run.recipe().data.long_texts == "windows"
    sections = [
        f"# {_text(_title(manifest))}",
        f"A LoRA adapter that turns {_text(_base(manifest).hub_name)} into a classifier of texts with "
        f"{len(data['labels'])} labels: {labels}. Made by newslora; every number here comes from the run's own files.",
        *_evaluation(evaluations),
        *map(_text, copies_told(manifest, data)),
        "## Training data",
        _training_data(data),
        "## Model",
        _model(manifest, data, evaluations, windows),
        "## How to use it",
        _usage(manifest, any(one.get("multi_label") for one in evaluations)),
        "## Limitations",
        _limitations(data, evaluations, windows),
        "## How it was made",
        _making(run, manifest),
    ]
    return "\n\n".join(sections) + "\n"


def _evaluation(evaluations: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        [_text(one["name"]), name, *_told(key, one[key]), count(one["rows"])]
        for one in evaluations
        for key, (name, _) in METRICS.items()
        if key in one
    ]
    notes = [f"{_text(one['name'])}: {_text(one['note'])}" for one in evaluations if one["note"]]
    table = _table(["rows of", "metric", "value", "95 % interval", "rows"], rows)
    return ["## How good it is", table if rows else "Nothing was evaluated.", *notes]


def copies_told(manifest: dict[str, Any], data: dict[str, Any]) -> list[str]:
    """Of each split that repeats training rows, or rows that trained an adapter before; nothing of runs that did not count."""
    copies, origin = manifest.get("copies_of_training_rows", {}), data.get(STARTED_FROM)
    found = [told(name, number, data["splits"][name]["rows"]) for name, number in copies.items() if number]
    if origin is None:
        return found
    earlier = origin["copies"].items()
    found += [told_earlier(name, number, data["splits"][name]["rows"]) for name, number in earlier if number]
    return found + ([told_unread([adapter_name(name) for name in origin["unread"]])] if origin["unread"] else [])


def adapter_name(name: str) -> str:
    """An adapter by its run's folder alone: a card travels."""
    parts = [part for part in Path(name).parts if part not in ("..", "/")] or [name]
    return parts[-2] if len(parts) > 1 and parts[-1] == "adapter" else parts[-1]


def _told(key: str, rate: dict[str, Any]) -> list[str]:
    """A metric's value and its interval."""
    if rate["value"] is None:
        return ["\N{EN DASH}", _text(rate["reason"])]
    value = percent(rate["value"]) if key in SHARES else f"{rate['value']:.4f}"
    if rate["interval"] is None:
        return [value, _text(rate["reason"])]
    low, high = rate["interval"]
    return [value, interval(rate["interval"]) if key in SHARES else f"{low:.4f}\N{EN DASH}{high:.4f}"]


def _training_data(data: dict[str, Any]) -> str:
    names = {name: data_set(one["source"], data.get(TRAINED_IN))[1] for name, one in data["splits"].items()}
    rows = [
        [name, _text(names[name]), count(one["rows"]), count(one["quarantined"]), f"`{one['sha256']}`"]
        for name, one in data["splits"].items()
    ]
    table = _table(["split", "source", "rows", "set aside", "SHA-256"], rows)
    cut = "\n\nThe validation rows were cut from the training rows." if data["validation_is_cut_from_train"] else ""
    return table + cut


def _model(manifest: dict[str, Any], data: dict[str, Any], evaluations: Sequence[dict[str, Any]], windows: bool) -> str:
    model, counts, base = manifest["model"], manifest["model"]["parameters"], manifest["backbone"]
    share = percent(counts["trainable"] / counts["total"])
    revision = f", revision `{base['revision']}`" if base["revision"] else ""
    temperature = next((one["calibration"]["temperature"] for one in evaluations if "calibration" in one), 1.0)
    weights = f", weights SHA-256 `{base['sha256']}`" if base["sha256"] else ""
    return "\n".join(
        [
            f"- Base model: {_text(_base(manifest).hub_name)} ({model['class']}){revision}{weights}",
            f"- Trainable parameters: {count(counts['trainable'])} of {count(counts['total'])} ({share}): "
            f"{count(counts['lora'])} LoRA, {count(counts['head'])} head",
            f"- LoRA: rank {model['rank']}, alpha {model['alpha']:g}, dropout {model['dropout']:g}, in "
            f"{model['adapted_modules']} modules ({', '.join(_text(one['name']) for one in model['adapted'])})",
            f"- Reads windows of {count(data['max_length'])} tokens, whose mean answers; with PEFT alone that is yours to do"
            if windows
            else f"- Reads the first {count(data['max_length'])} tokens of a text",
            f"- Temperature: {temperature:.4g}; newslora divides the logits by it; plain transformers and PEFT do not",
            f"- Adapter SHA-256 `{manifest['adapter_sha256']}`",
            *_origin(data),
        ]
    )


def _origin(data: dict[str, Any]) -> list[str]:
    """Where the weights came from that training began with, if not from nowhere."""
    origin = data.get(STARTED_FROM)
    if origin is None:
        return []
    return [
        f"- Training started from the adapter {_text(adapter_name(origin['adapter']))}, SHA-256 `{origin['sha256']}`"
    ]


def _usage(manifest: dict[str, Any], multi_label: bool) -> str:
    base = _base(manifest).hub_name
    answer, told = "config.id2label[int(logits.argmax())]", "label"
    if multi_label:
        answer, told = "dict(zip(config.id2label.values(), logits.sigmoid()[0].tolist()))", "labels"
    return f"""With newslora (`adapter` is this folder):

```python
import newslora

classify = newslora.Classifier.load("adapter")
print(classify("Striker scores twice as hosts reach final").{told})
```

With PEFT alone:

```python
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

config = AutoConfig.from_pretrained("adapter")
base = AutoModelForSequenceClassification.from_pretrained({json.dumps(base)}, config=config)
model = PeftModel.from_pretrained(base, "adapter").eval()
tokens = AutoTokenizer.from_pretrained("adapter")("Striker scores twice as hosts reach final", return_tensors="pt")
with torch.no_grad():
    logits = model(**tokens).logits
print({answer})
```"""


def _limitations(data: dict[str, Any], evaluations: Sequence[dict[str, Any]], windows: bool) -> str:
    found = [
        "Every text gets one of these labels, also one that fits none of them."
        if not any(one.get("multi_label") for one in evaluations)
        else "A label's threshold was tuned on the validation rows; with PEFT alone, applying it is yours to do.",
        "Words far apart in a long text meet in the mean of its windows only."
        if windows
        else f"A text's tokens after the first {count(data['max_length'])} are not read.",
        "The numbers hold for texts like the evaluated rows; other publishers, years or languages were not measured. "
        "What language the texts are in was not recorded unless the header says it.",
        "Errors and slants of the base model and of the training labels carry over.",
    ]
    if evaluations and (weakest := _weakest(evaluations[0])):
        found.insert(0, weakest)
    if not any(one["name"] == "test" for one in evaluations):
        found.insert(
            0, "No test rows were held out: the numbers come from rows that chose the epoch and are optimistic."
        )
    return "\n".join(f"- {sentence}" for sentence in found)


def _weakest(one: dict[str, Any]) -> str:
    """The label found least often, of those that have rows."""
    name = weakest_label(one)
    if name is None:
        return ""
    rate = one["per_class"][name]["recall"]
    return (
        f"Weakest label: {_text(name)}, of whose {one['name']} rows {percent(rate['value'])} are found "
        f"(95 % interval {interval(rate['interval'])})."
    )


def _making(run: RunFolder, manifest: dict[str, Any]) -> str:
    training, machine, recipe = manifest["training"], manifest["environment"], run.recipe()
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    accelerator = f" ({machine['accelerator']})" if machine["accelerator"] else ""
    return (
        f"Recipe {_text(recipe.name)}, seed {manifest['seed']}: {count(training['steps'])} steps of "
        f"{recipe.train.batch_size} rows in {seconds(training['seconds'])}, epoch {training['best_epoch']} kept for the best "
        f"validation {recipe.train.best_metric.replace('_', ' ')}; {machine['precision']} on {machine['device']}{accelerator}, "
        f"{_text(machine['cpu'])}. Finished {manifest['finished']} with {versions}."
    )


def _base(manifest: dict[str, Any]) -> Backbone:
    one = manifest["backbone"]
    return Backbone(one["name"], one["location"], one["kind"], one["revision"])


def _title(manifest: dict[str, Any]) -> str:
    base = manifest["backbone"]["name"].rstrip("/").rpartition("/")[2]
    return f"{manifest['recipe']} on {base}"


def data_set(source: str, folder: str | None = None) -> tuple[str, str]:
    """A source as the header names it: (hub name or 'file', name). A path keeps its last part only: a card travels.

    `folder`: as `parse_again` takes it.
    """
    with contextlib.suppress(DataError):  # moved since, or made on another machine
        if (parsed := parse_again(source, folder)).kind == "hub":
            return parsed.location, source
    return "file", source.rpartition("/")[2]


def _text(words: str) -> str:
    """Words as Markdown that shows them and nothing else."""
    return _UNESCAPED.sub(r"\\\1", html.escape(" ".join(words.split()), quote=False))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
