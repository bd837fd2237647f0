"""A recipe from start to finish: rows, tokens, classifier, training, evaluation, report; a run folder at the end."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora import files
from newslora.arguments import as_path
from newslora.config import Recipe, load_recipe
from newslora.data.articles import ArticleSet
from newslora.data.batches import Rows
from newslora.data.frames import take_frames, write_frame
from newslora.data.overlap import copied_rows, told, told_earlier, told_unread
from newslora.data.remarks import remarks
from newslora.data.splits import Splits, load_splits
from newslora.data.tokens import tokenize, tokenizer_sha256
from newslora.errors import BackboneError, InterruptedRun, NetworkError, RunError, SettingsError
from newslora.evaluation.earlier import describe_start
from newslora.evaluation.evaluate import evaluate_articles
from newslora.evaluation.score import score_articles
from newslora.model.adapter import AdapterCard, save_adapter
from newslora.model.backbones import BUNDLED, Backbone, resolve_again
from newslora.model.classifier import build_classifier, count_parameters, length_limit
from newslora.model.describe import describe_classifier
from newslora.model.engine import engine_name, engine_to_try, groups_by_length
from newslora.model.start import Start, find_start, load_start
from newslora.predict.calibration import calibrate, save_calibration
from newslora.predict.canary import make_canary, save_canary
from newslora.predict.classifier import Classifier
from newslora.predict.thresholds import save_thresholds, tune_thresholds
from newslora.report.card import write_card
from newslora.report.report import write_report
from newslora.runfolder import FORMAT, FRAMES, STARTED_FROM, TRAINED_IN, RunFolder, run_path, usual_path
from newslora.runtime import Precision, cache_folder, environment_record, pick_device, resolve_precision
from newslora.training.checkpoint import is_saved
from newslora.training.loop import FitResult, fit
from newslora.training.watch import ASKED, Logged, Watcher

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

WEIGHTS_BEGUN = "backbone_sha256"  # in data.json: of the weights in a folder that a run began with
MANY_COPIES = 0.01  # part of held rows: fewer move a score by less than its interval is wide


@dataclass(frozen=True, slots=True)
class Found:
    """A backbone, and what rows are tokenised by."""

    backbone: Backbone
    max_length: int
    tokenizer: "PreTrainedTokenizerBase"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything training needs."""

    recipe: Recipe
    splits: Splits
    backbone: Backbone
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int
    rows: dict[str, Rows]  # by split


def train(
    recipe: str | Path | Recipe = "seed",
    *,
    output: str | os.PathLike[str] | None = None,
    watcher: Watcher | None = None,
    device: str | None = None,
    report: bool = True,
    **changes: Any,
) -> RunFolder:
    """Train a recipe and return its finished run folder.

    Args:
        recipe: a bundled recipe's name, a TOML path, or a Recipe.
        output: the run folder to make; None: runs/DATE-NAME.
        watcher: who looks on (newslora.training.watch); None: standard logging, as 'newslora'.
        device: 'cpu', 'cuda', ...; None picks.
        report: whether to draw the figures and write report.html at the end; `newslora report` does so later.
        **changes: settings laid over the recipe, with two underscores for the dot: `train__epochs=1`. Rows (`data__source`,
            `data__validation`, `data__test`) may also be a table in memory, such as a frame of pandas or polars; what it holds
            is written to the run's rows/, where the run finds it again.

    Raises:
        SettingsError, DataError, BackboneError, NetworkError, MissingExtraError: recipe, rows or backbone cannot be had or
            used.
        RunError: the output is taken, or training cannot go on.
        StorageError: the disk refuses.
        InterruptedRun: Ctrl-C or SIGTERM; a KeyboardInterrupt. The state is saved, and `resume` goes on.

    Example:
        >>> run = newslora.train("seed", model__backbone="minilm", data__source="news.csv")  # doctest: +SKIP
        >>> frame = pandas.read_sql("SELECT title, section FROM news", database)  # doctest: +SKIP
        >>> run = newslora.train("quickstart", data__source=frame, data__label_column="section")  # doctest: +SKIP
        >>> newslora.Classifier.load(run)("Striker scores twice as hosts reach final").label  # doctest: +SKIP
        'Sports'
    """
    settings = {key.replace("__", "."): value for key, value in changes.items()}
    frames = take_frames(settings, FRAMES)
    resolved = load_recipe(recipe, settings)
    if odd := [name for name in ASKED if watcher and not hasattr(watcher, name)]:
        raise SettingsError(
            f"The watcher {watcher!r} has no '{odd[0]}'. newslora.training.watch.Watcher tells what it needs."
        )
    path = usual_path(resolved) if output is None else as_path(output, "The output")
    if frames:
        resolved = load_recipe(resolved, {key: RunFolder(path).rows / FRAMES[key] for key in frames})
    run = RunFolder.create(path, resolved)
    try:
        for key, frame in frames.items():
            write_frame(frame, run.rows / FRAMES[key])
    except BaseException:  # Ctrl-C too: without its rows a run cannot be resumed
        run.discard_unbegun()
        raise
    try:
        return _stoppable(run, watcher, device, report)
    except Exception:  # so that the same command can be given again, corrected
        run.discard_unbegun()
        raise


def resume(
    run: str | os.PathLike[str], *, watcher: Watcher | None = None, device: str | None = None, report: bool = True
) -> RunFolder:
    """Continue a run that was stopped, to the bytes an unbroken run would have given (same machine and threads).

    A finished run is returned as it is.

    Raises:
        RunError: no run there, or its data has changed since it began.
        InterruptedRun: as `train` does.

    Example:
        >>> newslora.resume("runs/mine")  # doctest: +SKIP
        <RunFolder runs/mine, finished>
    """
    folder = RunFolder.open(run_path(run))
    return folder if folder.complete else _stoppable(folder, watcher, device, report)


def _stoppable(run: RunFolder, watcher: Watcher | None, device: str | None, report: bool) -> RunFolder:
    """`_train_in`; Ctrl-C outside of its loop, which handles its own, becomes an InterruptedRun too."""
    try:
        return _train_in(run, watcher or Logged(), device, report)
    except InterruptedRun:
        raise
    except KeyboardInterrupt:
        raise InterruptedRun(f"Stopped. Go on with: newslora train --resume {run.path}", signal.SIGINT) from None


def _train_in(run: RunFolder, watcher: Watcher, device: str | None, report: bool) -> RunFolder:
    with run.lock():
        target = pick_device(device)
        recipe = run.recipe()
        precision = resolve_precision(recipe.train.precision, target)
        with _saying_where_begun(run, recipe):
            start, origin = _start(run, recipe)  # first: where it does not fit, its own backbone is the one to ask for
            backbone = find_backbone(recipe, run.trained_in())
        labels = run.data()["labels"] if origin is not None else None if start is None else start.card.labels
        prepared = prepare(recipe, run.quarantine_file, run.trained_in(), backbone, labels)
        if start is not None:
            origin = origin or describe_start(start, prepared.splits)
        _check_same_data(run, prepared, origin, start is not None and start.is_relative)
        for name, one in prepared.splits.present().items():
            aside = f", {len(one.quarantined):,} set aside in {run.quarantine_file}" if one.quarantined else ""
            watcher.note(f"{name}: {len(one):,} rows of {one.described}{aside}")
        for remark in remarks(prepared.splits, recipe.data):
            watcher.note(remark)
        copies = _count_copies(prepared.splits, watcher)
        if start is not None and origin is not None:
            _tell_start(start, origin, prepared.splits, watcher)
        names = prepared.splits.labels.names
        model = build_classifier(
            prepared.backbone, names, recipe.lora, recipe.train.seed, recipe.model, recipe.data.multi_label
        )
        if start is not None:
            load_start(model, start, recipe, prepared.backbone)
        model = model.to(target)
        counts = count_parameters(model)
        grouped = groups_by_length(model.config, recipe.train.group_by_length)
        watcher.note(
            f"{recipe.model.backbone}: {counts.trainable:,} trainable parameters of {counts.total:,} "
            f"({counts.lora:,} LoRA, {counts.head:,} head); {precision.name} on {target} ({precision.reason}), "
            f"{engine_name(model.config, recipe.train.engine_setting, precision, target)} engine"
            + (", batches of rows of like length" if grouped else "")
        )
        other = engine_to_try(model.config, recipe.train.engine_setting, precision, target)
        if other is not None and not run.checkpoints.exists():  # a run that goes on cannot change its engine
            watcher.note(other)
        result = fit(
            model, prepared.rows["train"], prepared.rows["validation"], recipe.train, precision, run,
            recipe.data.workers, watcher,
        )  # fmt: skip
        manifest = _finish(run, prepared, model, result, precision, target, watcher)
        manifest["copies_of_training_rows"] = copies
        if origin is not None:
            manifest[STARTED_FROM] = {name: origin[name] for name in ("adapter", "sha256")}
        write_card(run, manifest)
        if report:
            write_report(run, manifest, str(target))
        files.write_json(run.manifest_file, manifest)
    return run


def find_backbone(recipe: Recipe, folder: str | None = None) -> Found:
    """The backbone, its configuration and its tokenizer; touches no weights. `folder`: as `resolve_again`.

    Raises:
        BackboneError, NetworkError, MissingExtraError: it cannot be had.
    """
    backbone = resolve_again(recipe.model.backbone, recipe.model.revision, folder)
    return Found(backbone, length_limit(backbone.config(), recipe.data.max_length), backbone.tokenizer())


@contextlib.contextmanager
def _saying_where_begun(run: RunFolder, recipe: Recipe) -> Iterator[None]:
    """Of a run that goes on, say what to do where its backbone may be a folder that another working directory has."""
    try:
        yield
    except (BackboneError, NetworkError) as error:
        name, here = recipe.model.backbone, str(Path.cwd())
        if not run.data_file.exists() or name in BUNDLED or Path(name).expanduser().is_absolute():
            raise
        places = " and ".join(dict.fromkeys((here, run.trained_in() or here)))
        way = f"If '{name}' is a folder, go on from the directory in which the run was begun: it was looked for in {places}."
        raise type(error)(f"{error} {way}") from error


def _start(run: RunFolder, recipe: Recipe) -> tuple[Start | None, dict[str, Any] | None]:
    """The adapter to load weights from, if any, and what data.json says of it, where that was written already.

    Raises:
        RunError, SettingsError, BackboneError: as `find_start`, or the run began with another.
    """
    origin = run.data().get(STARTED_FROM) if run.data_file.exists() else None
    if origin is not None and is_saved(run.checkpoints):  # the weights it came to since are in there
        return None, origin
    folder = run.trained_in()
    start = find_start(recipe, resolve_again(recipe.model.backbone, recipe.model.revision, folder), folder)
    if start is not None and origin is not None and origin["sha256"] != start.version:
        raise RunError(
            f"The adapter '{start.name}' (model.adapter) has other weights than when {run.path} began with it, so the run "
            "cannot continue to the same result. Restore it, or train anew in another folder."
        )
    return start, origin


def _tell_start(start: Start, origin: dict[str, Any], splits: Splits, watcher: Watcher) -> None:
    """Say where the weights came from, and which held rows are nothing new to them."""
    watcher.note(start.told)
    if origin["unread"]:
        watcher.note(told_unread(origin["unread"]))
    for name, copies in origin["copies"].items():
        if copies:
            rows = len(splits.present()[name])
            tell = watcher.warn if copies > MANY_COPIES * rows else watcher.note
            tell(f"{told_earlier(name, copies, rows)} Give rows that it never saw (--validation, --test).")


def prepare(
    recipe: Recipe,
    quarantine_file: Path | None = None,
    folder: str | None = None,
    found: Found | None = None,
    labels: Sequence[str] | None = None,
) -> Prepared:
    """Read and tokenise all rows by the backbone found, or to be found; touches no weights. All else as `load_splits`.

    Raises:
        DataError, BackboneError, NetworkError, MissingExtraError: what cannot be had or used.
    """
    found = found or find_backbone(recipe, folder)
    backbone, max_length, tokenizer = found.backbone, found.max_length, found.tokenizer
    splits = load_splits(recipe.data, recipe.train.seed, quarantine_file, folder, labels)
    rows = {name: _rows(one, tokenizer, max_length, recipe.data.overlap) for name, one in splits.present().items()}
    return Prepared(recipe, splits, backbone, tokenizer, max_length, rows)


def _rows(one: ArticleSet, tokenizer: "PreTrainedTokenizerBase", max_length: int, overlap: int | None) -> Rows:
    tokens = tokenize(tokenizer, one.texts, max_length, cache_folder(), overlap)
    return Rows(tokens, one.labels, int(tokenizer.pad_token_id), one.combinations)


def _without_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """data.json without what its files are called: their hashes know them under any name."""
    splits = {name: one | {"source": None} for name, one in record.get("splits", {}).items()}
    return dict(record) | {"splits": splits}


def _changed(run: RunFolder, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What to say of rows that are not those a run began with."""
    told = ", ".join(key for key in {**was, **now} if was.get(key) != now.get(key))
    if _hashes(was) != _hashes(now):
        return (
            f"The data of {run.path} has changed since the run began ({told}), so it cannot continue to the same result. "
            "Restore the files, or train anew in another folder."
        )
    return (
        f"The data of {run.path} is the same as when the run began, and is read otherwise now ({told}): another newslora began "
        "it, or its recipe.toml or the backbone's tokenizer was changed. Go on as it began, or train anew in another folder."
    )


def _hashes(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one.get("sha256") for name, one in record["splits"].items()}


def _check_same_data(run: RunFolder, prepared: Prepared, origin: dict[str, Any] | None, relative: bool) -> None:
    """Write data.json, or on resuming see that it would be the same.

    Args:
        run, prepared: whose.
        origin: what it says of the adapter that the run starts from.
        relative: whether that was found from the working directory.
    """
    record = prepared.splits.record() | {
        "max_length": prepared.max_length,
        "tokenizer_sha256": tokenizer_sha256(prepared.tokenizer),
        "tokens": {name: int(rows.tokens.offsets[-1]) for name, rows in prepared.rows.items()},
    }
    relative = relative or prepared.splits.relative or prepared.backbone.is_relative
    place = str(Path.cwd()) if relative else run.trained_in()
    apart = (TRAINED_IN, STARTED_FROM)
    before = {key: value for key, value in run.data().items() if key not in apart} if run.data_file.exists() else {}
    begun = before.pop(WEIGHTS_BEGUN, None)
    weights = prepared.backbone.weights_sha256() if prepared.backbone.kind == "folder" else None
    if begun is not None and begun != weights and run.checkpoints.exists():
        raise RunError(
            f"The backbone of {run.path}, '{prepared.backbone.name}', has other weights than when the run began, so it cannot "
            "continue to the same result. Restore them, or train anew in another folder."
        )
    was, now = _without_names(before), _without_names(record)
    if before and run.checkpoints.exists() and was != now:
        raise RunError(_changed(run, was, now))
    if weights is not None:
        record[WEIGHTS_BEGUN] = weights
    if origin is not None:
        record[STARTED_FROM] = origin
    files.write_json(run.data_file, record if place is None else record | {TRAINED_IN: place})


def _count_copies(splits: Splits, watcher: Watcher) -> dict[str, int]:
    """Rows of each held split that stand among the training rows too; those of a split that is the training rows count not."""
    found = {}
    for name, one in splits.held().items():
        found[name] = copied_rows(splits.train.texts, one.texts)
        if found[name]:
            tell = watcher.warn if found[name] > MANY_COPIES * len(one) else watcher.note
            tell(f"{told(name, found[name], len(one))} `newslora audit` lists them, and near copies.")
    return found


def _finish(
    run: RunFolder,
    prepared: Prepared,
    model: "PeftModel",
    result: FitResult,
    precision: Precision,
    device: "torch.device",
    watcher: Watcher,
) -> dict[str, Any]:
    """Save the adapter, evaluate it, and return the manifest, which is for the caller to write last."""
    recipe, backbone = prepared.recipe, prepared.backbone
    card = AdapterCard(
        backbone=backbone.portable_name,
        backbone_kind=backbone.kind,
        backbone_revision=backbone.revision,
        backbone_sha256=backbone.weights_sha256(),
        labels=prepared.splits.labels.names,
        max_length=prepared.max_length,
        text_columns=prepared.splits.train.text_columns,
        lora=recipe.lora.model_dump(),
        multi_label=recipe.data.multi_label,
        label_separator=recipe.data.label_separator,
        long_texts=recipe.data.long_texts,
        window_overlap=recipe.data.window_overlap,
    )
    version = save_adapter(model, prepared.tokenizer, card, run.adapter)
    classifier = Classifier.load(run.path, device=str(device))  # what was saved is what is scored
    save_canary(make_canary(classifier), run.adapter, version)
    _evaluate(run, prepared, classifier, watcher)
    return {
        "format": FORMAT,
        "recipe": recipe.name,
        "adapter_sha256": version,
        "backbone": asdict(backbone)
        | ({"location": str(Path(backbone.name).expanduser())} if backbone.kind == "folder" else {})  # as typed
        | {"sha256": card.backbone_sha256, "commit": getattr(model.config, "_commit_hash", None)},
        "model": describe_classifier(model),
        "training": {"steps": result.steps, "seconds": round(result.seconds, 3), "best_epoch": result.best_epoch}
        | {"objective": result.objective, "by_length": result.by_length},
        "seed": recipe.train.seed,
        "environment": environment_record(device, precision),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _evaluate(run: RunFolder, prepared: Prepared, classifier: Classifier, watcher: Watcher) -> None:
    """Calibrate the classifier (or tune its thresholds) on the validation rows, then evaluate it on those and the test rows."""
    splits, recipe = prepared.splits, prepared.recipe
    watcher.note(f"Evaluating {len(splits.validation):,} validation rows")
    scored = score_articles(classifier, splits.validation)
    if splits.validation_is_train:  # rows it has learnt by heart say nothing about how sure it may be of others
        watcher.note("The validation rows are the training rows: nothing is calibrated by them, and it cannot abstain.")
    elif classifier.multi_label and recipe.evaluation.tune_thresholds:
        probabilities = classifier.probabilities(scored.logits)
        classifier.thresholds = tune_thresholds(splits.validation.indicators, probabilities, classifier.labels)
        save_thresholds(classifier.thresholds, run.adapter, classifier.card.weights_sha256)
    elif not classifier.multi_label:  # each label's probability is its own there, and one temperature fits none
        classifier.calibration = calibrate(scored.logits, scored.labels, recipe.evaluation.calibrate)
        save_calibration(classifier.calibration, run.adapter, classifier.card.weights_sha256)
    evaluate_articles(
        classifier, splits.validation, "validation", run.evaluation, recipe.data,
        chose_the_epoch=True, trained=splits.validation_is_train, scored=scored,
    )  # fmt: skip
    if splits.test is not None:
        watcher.note(f"Evaluating {len(splits.test):,} test rows")
        evaluate_articles(classifier, splits.test, "test", run.evaluation, recipe.data, chose_the_epoch=False)
