"""A finished run -> an export folder, which takes its name only after its gate has passed."""

import copy
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newslora import files
from newslora.arguments import as_count, as_path
from newslora.config import data_changes
from newslora.data.sources import parse_source
from newslora.errors import ExportError, SettingsError, near
from newslora.evaluation.own import refuse_idle
from newslora.exporting.card import write_export_card
from newslora.exporting.forms import merge, open_stock_peft, write_common, write_merged, write_onnx, write_peft
from newslora.exporting.gate import compare_answers, compare_exact, compare_odd, refusal, require_rows
from newslora.exporting.held import HeldRows, calibration_texts, held_rows
from newslora.exporting.odd_texts import odd_texts
from newslora.exporting.quantise import METHODS, quantise
from newslora.exporting.staging import discard_left, publish, require_place, staging
from newslora.metrics.basic import Logits
from newslora.model.adapter import AdapterCard, load_tokenizer, read_card
from newslora.model.backbones import resolve_backbone
from newslora.model.engine import PaddedEngine, require_byte_layers
from newslora.model.exported import BYTES, FORMAT, MANIFEST, MERGED, ONNX, WEIGHTS
from newslora.model.inference import predict_logits
from newslora.predict.canary import CANARY, make_canary, save_canary
from newslora.predict.classifier import Classifier
from newslora.predict.thresholds import load_thresholds
from newslora.report.card import FILE as README
from newslora.runfolder import RunFolder, run_path
from newslora.runtime import Precision, check_device, environment_record, package_version

KINDS = tuple(WEIGHTS)
INT8 = ("int8", "onnx-int8")  # judged by their labels; others by every logit
JUDGED_ON = "cpu"  # unless told: where the tolerance of the gate was tried
ODD = "odd texts"  # the name of their comparison in export.json
FULL = ".fp32.onnx"  # what int8 is made of, while it is


@dataclass(frozen=True, slots=True)
class Exported:
    """A published export.

    Attributes:
        path: its folder.
        record: what its export.json holds, as what its gate measured.
    """

    path: Path
    record: dict[str, Any]


def export(
    run: str | os.PathLike[str],
    to: str = "merged",
    output: str | os.PathLike[str] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    rows: int | None = None,
    int8: str = "dynamic",
    changes: Mapping[str, Any] | None = None,
    replace: bool = False,
    device: str | None = None,
    note: Callable[[str], None] = lambda text: None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Exported:
    """Export a finished run, if the export gives the run's answers.

    What earlier exports of the run left hidden because they were killed is removed.

    Args:
        run: the run folder.
        to: 'merged' (LoRA in the weights, for plain transformers), 'int8' (the same files, run by newslora in eight bits),
            'onnx', 'onnx-int8', or 'peft' (the adapter by itself).
        output: the folder to make; None: RUN/exports/KIND.
        data: labelled rows to judge it by, as data.source; None: the run's own test rows, else its validation rows.
        rows: judge by at most as many of them, drawn at random by share of each label; None: all.
        int8: of 'onnx-int8', how activations get their ranges, 'dynamic' or 'static' (newslora.exporting.quantise).
        changes: settings of the section data for reading `data`.
        replace: put the export in the place of one that stands there, once its gate has passed; the old one is there until
            then, and stays where the gate refuses.
        device: where run and export answer the held rows: 'cpu', 'cuda', ...; None: the CPU. ONNX and int8 exports answer on
            the CPU whatever is told.
        note: told what is being done.
        progress: told the rows of each finished batch, of the run's answers and of the export's.

    Raises:
        ExportError: it does not give the run's answers, or that cannot be told; nothing is left behind.
        SettingsError: no such kind, method or device, or changes without `data`.
        RunError, DataError, BackboneError, NetworkError: run, rows or backbone cannot be had or used.
        MissingExtraError: ONNX needs the extra 'export'.
        StorageError: the disk refuses.

    Example:
        >>> exported = newslora.export("runs/mine", "onnx")  # doctest: +SKIP
        >>> newslora.Classifier.load(exported.path)("Probe lands on a comet").label  # doctest: +SKIP
        'Sci/Tech'
    """
    _check_arguments(to, int8, rows)
    check_device(device)
    named = None if data is None else parse_source(data).text
    refuse_idle(changes, named)
    judged_on = device or JUDGED_ON
    source = RunFolder.open(run_path(run))
    source.manifest()  # written last: calibration and evaluation are there too
    adapter = source.adapter_folder()
    card = read_card(adapter)
    target = as_path(output, "The output") if output is not None else source.exports / to
    require_place(target, replace)
    held = held_rows(source, named, data_changes(changes), rows)
    if to in INT8:
        require_rows(len(held.articles), held.name)
    discard_left(source.exports)
    discard_left(target.parent, target.name)
    with staging(target) as folder:
        note(f"Writing {to} of {source.path}")
        made = _write(adapter, card, to, folder)
        note(f"Answering {len(held.articles):,} rows with the run: {held.name}")
        gate = _Gate(source, to, held, judged_on, progress)
        texts = calibration_texts(source) if (to, int8) == ("onnx-int8", "static") else None
        for careful in (False, True) if to == "onnx-int8" else (False,):
            if to == "onnx-int8":
                rows_read = None if texts is None else gate.run.rows(texts)
                made["int8"] = quantise(folder / FULL, folder / WEIGHTS[to], int8, rows_read, careful)
            record = _record(card, to, made, folder, judged_on)
            files.write_json(folder / MANIFEST, record)  # what the folder is read by; it says nothing of a gate yet
            note("Comparing the export with it")
            opened = _open(folder, to, judged_on)
            checks = gate(opened)
            record["gate"] = {
                "passed": all(one["passed"] for one in checks.values()),
                "held": held.record(),
                "checks": checks,
            }
            if record["gate"]["passed"]:
                break
            said = refusal(f"The {to} export of {source.path}", list(checks.items()))
            if to == "onnx-int8" and not careful:
                note(f"{said} Trying again with the last product of each layer in fp32.")
        else:
            raise ExportError(f"{said} {_way_out(to, int8)}")
        (folder / FULL).unlink(missing_ok=True)
        if to in INT8:  # the run's canary may hold a text that rounding moves far
            save_canary(make_canary(opened), folder, card.weights_sha256)
            record["files"][CANARY] = files.sha256_file(folder / CANARY)
        write_export_card(adapter, folder, record)
        _flush(folder, record)
        require_place(target, replace)  # minutes have passed
        publish(folder, target)
    return Exported(target, record)


def _check_arguments(to: str, int8: str, rows: int | None) -> None:
    for name, value, allowed in (("kind of export (--to)", to, KINDS), ("way of int8 (--int8)", int8, METHODS)):
        if value not in allowed:
            raise SettingsError(f"The {name} is '{value}'. Allowed: {', '.join(allowed)}.{near(value, allowed)}")
    if rows is not None:
        as_count(rows, "The number of rows (--rows)", why="; leave it out for all rows")


def _write(adapter: Path, card: AdapterCard, to: str, folder: Path) -> dict[str, Any]:
    """All files but int8 weights, export.json and README.md; returns what is to be said of how they were made."""
    if to == "peft":
        write_peft(adapter, folder)
    write_common(adapter, card, to, folder)
    if to == "peft":
        return {}
    merged = merge(adapter, card)
    if to == "int8":
        require_byte_layers(merged)
    if to in MERGED:
        write_merged(merged, folder)
        return {"int8": {"bytes": BYTES}} if to == "int8" else {}
    path = write_onnx(merged, folder)
    if to == "onnx-int8":
        path = path.rename(folder / FULL)
    return {"opset": _opset(path)}


def _record(card: AdapterCard, to: str, made: dict[str, Any], folder: Path, device: str) -> dict[str, Any]:
    """export.json without the gate's word."""
    import torch

    machine = environment_record(
        torch.device(device), Precision("fp32", "the gate compares with the stock model in fp32")
    )
    tools = ("onnx", "onnxscript", "onnxruntime") if to.startswith("onnx") else ()
    machine["packages"] |= {name: package_version(name) for name in tools}
    return {
        "format": FORMAT,
        "to": to,
        "adapter_sha256": card.weights_sha256,
        "backbone": {
            "name": card.backbone,
            "kind": card.backbone_kind,
            "revision": card.backbone_revision,
            "sha256": card.backbone_sha256,
        },
        "labels": list(card.labels),
        **made,
        "environment": machine,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        # the model card is for people to edit
        "files": {
            path.name: files.sha256_file(path)
            for path in sorted(folder.iterdir())
            if path.name not in (README, MANIFEST, FULL)
        },
    }


class _Gate:
    """The run's answers to the held rows and to odd texts, and what an export's are beside them."""

    def __init__(
        self, source: RunFolder, to: str, held: HeldRows, device: str, progress: Callable[[int], None]
    ) -> None:
        self.to, self.held, self.progress = to, held, progress
        self.run = Classifier.load(source.path, device, engine="padded")
        self.texts = odd_texts(self.run.card)
        self.wanted, self.odd = self._answers(self.run)

    def __call__(self, opened: Classifier) -> dict[str, dict[str, Any]]:
        """Name of the rows -> comparison of the staged export with the run."""
        got, odd = self._answers(opened)
        if self.to not in INT8:
            texts = self.held.articles.texts
            held = compare_exact(self.run, self.wanted, got, lambda places: self._in_fp64(texts, places))
            among_odd = compare_exact(self.run, self.odd, odd, lambda places: self._in_fp64(self.texts, places))
            return {self.held.name: held, ODD: among_odd}
        truth = self.held.truth(len(self.run.labels))
        held = compare_answers(self.run, self.wanted, got, truth)
        return {self.held.name: held, ODD: compare_odd(self.run, self.odd, odd)}

    def _answers(self, classifier: Classifier) -> tuple[Logits, Logits]:
        rows = classifier.rows(self.held.articles.texts)
        return classifier.logits(rows, self.progress), classifier.logits(classifier.rows(self.texts), self.progress)

    def _in_fp64(self, texts: Sequence[str], places: Iterable[int]) -> Logits:
        """The run's logits of some texts, computed in fp64."""
        engine = self.run.engine
        assert isinstance(engine, PaddedEngine)
        exact = PaddedEngine(copy.deepcopy(engine.model).double(), self.run.precision)
        return predict_logits(exact, self.run.rows([texts[place] for place in places]), batch_size=1)


def _open(folder: Path, to: str, device: str) -> Classifier:
    """The staged export, read back as its users will."""
    card = read_card(folder, gated=False)
    if to != "peft":
        own = "cpu" if to in ONNX or to in INT8 else device
        return Classifier.of_card(folder, card, own, engine="auto" if to == "int8" else "padded")
    precision = Precision("fp32", "stock PEFT")
    model = open_stock_peft(folder, resolve_backbone(card.backbone, card.backbone_revision)).to(device)
    thresholds = load_thresholds(folder, card.weights_sha256, len(card.labels))
    return Classifier(PaddedEngine(model, precision), load_tokenizer(folder), card, precision, folder, None, thresholds)


def _flush(folder: Path, record: dict[str, Any]) -> None:
    """Everything to the disk, export.json last."""
    allowed = folder.stat().st_mode & 0o666  # what the umask left when it was made
    for path in folder.iterdir():
        path.chmod(allowed)  # what safetensors makes would lock colleagues out of a shared folder
        files.flush_to_disk(path)
    files.write_json(folder / MANIFEST, record)
    files.flush_to_disk(folder)


def _opset(path: Path) -> int:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return next(int(one.version) for one in model.opset_import if not one.domain)


def _way_out(to: str, int8: str) -> str:
    if to == "int8":
        return (
            "Try --to onnx-int8 (to='onnx-int8'), or export to merged (--to merged), which gives the run's answers to "
            "rounding."
        )
    if to != "onnx-int8":
        return "Report it with the versions `newslora --version` and pip tell; the run itself is as good as it was."
    other = next(method for method in METHODS if method != int8)
    return (
        f"Try the other way (--int8 {other}), or export to onnx (--to onnx), which gives the run's answers to rounding."
    )
