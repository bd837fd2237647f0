"""`NewsClassifier`: a newslora run behind scikit-learn's `fit`, `predict` and `predict_proba`.

`fit` writes its rows to a file and calls `newslora.train` on it, so the same rows, settings and seed give the same
adapter as the command line. What is kept is the adapter, as bytes inside the estimator: it pickles, and a pickle answers
on any machine that has the backbone.
"""

import contextlib
import json
import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from newslora import files
from newslora.config import Recipe, load_recipe, make_recipe
from newslora.data.arrays import read_labels, read_texts, refuse_empty_texts, to_classes
from newslora.errors import DataError, InterruptedRun, SettingsError
from newslora.training.watch import Logged, Silent

if TYPE_CHECKING:
    from newslora.predict.classifier import Classifier
    from newslora.runfolder import RunFolder

# constructor parameter -> the setting it changes; None leaves the recipe's value
SETTINGS = {
    "backbone": "model.backbone",
    "rank": "lora.rank",
    "alpha": "lora.alpha",
    "dropout": "lora.dropout",
    "targets": "lora.targets",
    "max_length": "data.max_length",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate",
    "warmup_steps": "train.warmup_steps",
    "weight_decay": "train.weight_decay",
    "precision": "train.precision",
    "random_state": "train.seed",
}


class NewsClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn carries no types
    """A pretrained encoder with LoRA as a scikit-learn classifier of texts.

    X is one text a row: a list, an array or Series of str, or a table of one column. Texts lose the white space around
    them, in `fit` and in `predict` alike. `fit` trains on every row or raises: an empty text, which a file's reader would
    set aside, is an error that names its row. `predict` answers every row: an empty text gets the answer of the encoder's
    special tokens alone, which means little.

    y is one label a row, or an indicator matrix (R, C) of 0 and 1 where a text may carry several labels, as scikit-learn's own
    multi-label classifiers take it. A label is then given from a threshold tuned on the held-out rows (0.5 without such rows).

    Args:
        recipe: where unset settings come from: a bundled recipe's name, a TOML path, or a Recipe, which also brings settings
            that have no parameter here (`newslora settings` lists all). Its own data sources, label names and row counts are
            not used.
        backbone: 'minilm', a local folder or a hub name; None, here and up to `precision`: the recipe's value.
        rank, alpha, dropout: of LoRA; its update is multiplied by alpha / rank, and dropout is a probability.
        targets: projections that get LoRA, 'query-value' or 'all-linear'.
        max_length: tokens the encoder reads at once; what a text has beyond is cut, unless the recipe says otherwise.
        epochs: passes over the training rows.
        batch_size: rows a forward pass.
        learning_rate: at its peak, after `warmup_steps` optimiser steps.
        weight_decay: of AdamW.
        precision: 'auto', 'fp32', 'bf16' or 'fp16'.
        class_weight: 'balanced': a row counts by how rare its label is among the training rows, as with
            `train.class_balance = "weights"`; None: the recipe's `train.class_balance`, which may also be "focal".
        validation_fraction: share of the rows (0 to 1, exclusive) held out, by label share, to choose the epoch; at
            least one a label. None: every row trains, and the epoch of the lowest loss on those same rows is kept.
        random_state: seed of the held-out rows, initial weights, row order and dropout: an int, a RandomState to draw
            one from, or None for the recipe's, so that fits repeat unless told otherwise.
        device: 'cpu', 'cuda', ...; None picks.
        runs_folder: where each fit leaves a folder of its own with rows.jsonl and run/, which `newslora report`,
            `compare` and `serve` take; None: they are removed when the fit ends.
        verbose: 0 tells standard logging only; 1 prints a line an epoch and what the run notes.

    Attributes:
        classes_: (C,) the labels of y, sorted, in their own dtype; the columns of `predict_proba`. For an indicator matrix: its
            column numbers.
        adapter_: the trained adapter; `adapter_.write(folder)` makes a folder for `Classifier.load` and PEFT.
        history_: one dict an epoch: train_loss, validation_loss, validation_accuracy, ...
        best_epoch_: the epoch kept, counted from 1.
        run_: path of the run folder where `runs_folder` is set, else None.

    Example:
        >>> from newslora import NewsClassifier
        >>> model = NewsClassifier(epochs=2).fit(texts, labels)  # doctest: +SKIP
        >>> model.predict(["Striker scores twice as hosts reach final"])  # doctest: +SKIP
        array(['Sports'], dtype='<U8')
        >>> from newslora import load_recipe
        >>> linear = load_recipe("quickstart", {"train.schedule": "linear"})
        >>> grid = {"learning_rate": [1e-4, 1e-3], "recipe": ["quickstart", linear]}
        >>> GridSearchCV(NewsClassifier(), grid, scoring="neg_log_loss").fit(texts, labels)  # doctest: +SKIP
    """

    def __init__(
        self,
        recipe: str | Path | Recipe = "quickstart",
        *,
        backbone: str | Path | None = None,
        rank: int | None = None,
        alpha: float | None = None,
        dropout: float | None = None,
        targets: str | None = None,
        max_length: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        warmup_steps: int | None = None,
        weight_decay: float | None = None,
        precision: str | None = None,
        class_weight: str | None = None,
        validation_fraction: float | None = 0.1,
        random_state: "int | np.random.RandomState | None" = None,
        device: str | None = None,
        runs_folder: str | Path | None = None,
        verbose: int = 0,
    ) -> None:
        self.recipe = recipe
        self.backbone = backbone
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.targets = targets
        self.max_length = max_length
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
        self.precision = precision
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device
        self.runs_folder = runs_folder
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "NewsClassifier":  # noqa: N803  # scikit-learn's name
        """Train on R texts and their labels.

        Args:
            X: R texts.
            y: (R,) labels: str, int, bool, or whole floats; or (R, C) 0 and 1.

        Raises:
            DataError: no, empty or broken texts, missing labels, one label only, a column without a 1, or lengths that
                differ.
            SettingsError: a parameter outside its range.
            ValueError: labels that are no classes (scikit-learn's own message).
            NewsloraError: whatever else stops a run.
        """
        from newslora.pipeline import train

        texts = read_texts(X)
        refuse_empty_texts(texts)
        labels = read_labels(y, len(texts))
        several = labels.ndim == 2
        classes, ids = to_classes(labels)
        if len(classes) < 2:
            raise DataError(
                f"y holds one class only, {classes.tolist()[0]!r}. A classifier needs rows of at least two."
            )
        with self._workspace() as folder:
            recipe = self._recipe(folder / "rows.jsonl", len(texts), tuple(map(str, classes.tolist())), several)
            lines = (json.dumps({"text": text, "label": label}) for text, label in zip(texts, ids, strict=True))
            files.write_text(folder / "rows.jsonl", "".join(line + "\n" for line in lines))
            watcher = _Printing() if self.verbose else Logged()
            try:
                run = train(
                    recipe,
                    output=folder / "run",
                    watcher=watcher,
                    device=self.device,
                    report=self.runs_folder is not None,
                )
            except InterruptedRun as stop:
                self._pass_on(stop)
            self._keep(run)
        self.classes_ = classes
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """(R,) the likeliest class of R texts, or (R, C) 0 and 1 where they may carry several; errors as in `predict_proba`."""
        probabilities = self.predict_proba(X)
        classifier = self.adapter_.classifier(self.device)
        if classifier.multi_label:
            return (probabilities >= classifier.label_thresholds).astype(np.int64)
        best: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return best

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """(R, C) probabilities of R texts; columns as in `classes_`.

        Raises:
            NotFittedError: before `fit`.
            DataError: no text, or rows that are not text.
            BackboneError, MissingExtraError, NetworkError: the backbone cannot be had here.
        """
        check_is_fitted(self)
        return self.adapter_.classifier(self.device).predict_proba(read_texts(X))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Parameters that a pickle of an older newslora lacks are at their defaults."""
        super().__setstate__(type(self)().get_params(deep=False) | state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.classifier_tags.multi_label = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def _recipe(self, rows_file: Path, rows: int, names: tuple[str, ...], several: bool) -> Recipe:
        """The recipe with this estimator's parameters and rows in it."""
        base = self.recipe if isinstance(self.recipe, Recipe) else load_recipe(self.recipe)
        if base.model.adapter is not None:  # whose labels, in its own order, would be the columns of predict_proba
            raise SettingsError(
                f"The recipe starts from the adapter '{base.model.adapter}' (model.adapter), and `fit` starts from fresh "
                "weights. Leave it out, or train with newslora.train."
            )
        values: dict[str, Any] = base.model_dump()
        for name, key in SETTINGS.items():
            value = self._seed() if name == "random_state" else getattr(self, name)
            if value is not None:
                section, _, setting = key.partition(".")
                values[section][setting] = _plain(value)
        if self.class_weight is not None:
            values["train"]["class_balance"] = self._class_balance()
        if self.backbone is not None:
            values["model"]["revision"] = None  # the recipe's belongs to the recipe's backbone
        # labels are written by number and named here, so that label ids are the places in classes_ whatever the labels are
        values["data"] |= {
            "source": str(rows_file), "text_columns": ("text",), "label_column": "label", "label_names": names,
            "validation": None, "test": None, "train_rows": None, "header": None, "max_quarantine_share": 0,
            "multi_label": several, "require_all_names": False,
        }  # fmt: skip
        if self.validation_fraction is None:
            values["data"]["validation"] = str(rows_file)
            values["data"].pop("validation_rows")  # its row counts are not used
            values["train"]["best_metric"] = "loss"  # accuracy on the rows trained on soon ties at 1, too early
        else:
            values["data"]["validation_rows"] = self._held_out(rows, len(names))
        return make_recipe(values)

    def _held_out(self, rows: int, classes: int) -> int:
        """Validation rows: the fraction rounded up, as scikit-learn's splits do, and at least one a class."""
        fraction = _plain(self.validation_fraction)
        if not isinstance(fraction, float) or not 0 < fraction < 1:
            raise SettingsError(
                f"validation_fraction is {fraction!r}. Allowed: a share between 0 and 1, or None to train on every row."
            )
        held = max(classes, math.ceil(fraction * rows))
        if rows - held < classes:
            raise DataError(
                f"validation_fraction={fraction} holds out {held} of {rows} rows, which leaves fewer than one row a class "
                f"({classes} classes). Give more rows, or validation_fraction=None to train on every row."
            )
        return held

    def _class_balance(self) -> str:
        """What scikit-learn's `class_weight` is called in a recipe."""
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            return "weights"
        raise SettingsError(
            f"class_weight is {self.class_weight!r:.60}. Allowed: 'balanced', or None for the recipe's train.class_balance. A "
            "recipe has no place for a weight of each class."
        )

    def _seed(self) -> int | None:
        if self.random_state is None or isinstance(self.random_state, (int, np.integer)):
            return self.random_state
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[Path]:
        """A new folder for the rows and the run; kept inside `runs_folder`, or removed at the end."""
        if self.runs_folder is None:
            with tempfile.TemporaryDirectory(prefix="newslora-", ignore_cleanup_errors=True) as name:
                yield Path(name)
            return
        parent = Path(self.runs_folder)
        with files.disk_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
            # a name of its own even where a grid search fits in many processes at once
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=time.strftime("%Y%m%d-%H%M%S-")))
        yield folder

    def _keep(self, run: "RunFolder") -> None:
        """Take from the run what outlives it."""
        self.adapter_ = PackedAdapter.read(run.adapter_folder())
        self.history_ = [line for line in run.metrics() if line["kind"] == "epoch"]
        self.best_epoch_ = int(run.manifest()["training"]["best_epoch"])
        self.run_ = None if self.runs_folder is None else str(run.path)

    def _pass_on(self, stop: InterruptedRun) -> NoReturn:
        """A signal ends the caller too: as an ordinary exception, a grid search would log it and go on to the next fit."""
        message = "`fit` was interrupted." if self.runs_folder is None else str(stop)
        if stop.exit_code == 128 + signal.SIGINT:
            raise KeyboardInterrupt(message) from None
        raise SystemExit(stop.exit_code) from None


class PackedAdapter:
    """An adapter folder as bytes (safetensors and JSON), and the classifier loaded from it on first use."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents  # file name -> bytes
        self._loaded: dict[str | None, Classifier] = {}  # by device

    @classmethod
    def read(cls, folder: Path) -> "PackedAdapter":
        return cls({path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()})

    def write(self, folder: str | Path) -> Path:
        """Write the files into `folder`, the card last, as `save_adapter` does; returns the folder.

        Raises:
            StorageError: the disk refuses.
        """
        from newslora.model.adapter import CARD

        for name in sorted(self.contents, key=lambda name: (name == CARD, name)):
            with files.atomic_path(Path(folder) / name) as temporary:
                temporary.write_bytes(self.contents[name])
        return Path(folder)

    def classifier(self, device: str | None = None) -> "Classifier":
        """The classifier on this device, loaded once; errors as in `Classifier.load`."""
        if device not in self._loaded:
            self._loaded[device] = self._open(device, "auto")
        return self._loaded[device]

    def _open(self, device: str | None, engine: str) -> "Classifier":
        from newslora.predict.classifier import Classifier

        with tempfile.TemporaryDirectory(prefix="newslora-", ignore_cleanup_errors=True) as name:
            found = Classifier.load(self.write(name), device=device, engine=engine)
        contents = self.contents  # not this adapter, which holds what is found: neither would be freed
        found.reopen = lambda: PackedAdapter(contents)._open(device, "padded")  # its folder is gone
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"contents": self.contents, "_loaded": {}}


class _Printing(Silent):
    """Prints notes and epochs; no bar, so that lines of fits in parallel stay whole."""

    def epoch(self, entry: dict[str, Any]) -> None:
        print(
            f"epoch {entry['epoch']}: training loss {entry['train_loss']:.4f}, validation loss "
            f"{entry['validation_loss']:.4f}, accuracy {entry['validation_accuracy']:.2%}"
        )

    def note(self, text: str) -> None:
        print(text)

    warn = note


def _plain(value: Any) -> Any:
    """A parameter as TOML can say it: numpy's scalars, which grids are made of, and paths."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
