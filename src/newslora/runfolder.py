"""A run is a folder that explains itself. This module owns its layout, its lock and its manifest (written last).

recipe.toml        the resolved recipe             adapter/       stock PEFT folder: tokenizer, labels, model card
data.json          sources, hashes, label names    evaluation/    JSON, CSV of rows, CSV of errors per split
quarantine.jsonl   rows set aside, with reasons    figures/       SVG and PNG
metrics.jsonl      one line per logged step        report.html    everything above, for a reader
checkpoints/       what resuming needs             manifest.json  last: the run is whole
tensorboard/       the same metrics as event files exports/       published by `newslora export`
rows/              tables that were given in Python
"""

import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from newslora import files
from newslora.config import Recipe, load_recipe, to_toml
from newslora.errors import RunError, SettingsError, near
from newslora.records.evaluation import Evaluation, counts_absent
from newslora.records.reading import Part, check_line, read_dict
from newslora.records.run import Data, Line, Manifest

FORMAT = 1
TRAINED_IN = "trained_in"  # in data.json alone, which stays on its machine: cards, reports and exports travel
STARTED_FROM = "started_from"  # in data.json and the manifest: the adapter whose weights training began with, if any
RESTORE = "Train the run again, or restore the file."
SCORE_AGAIN = "Restore it, or remove it and score its rows again: `newslora evaluate RUN --data SOURCE`."
COUNTED = (
    "An older newslora made these figures: a class that is neither among the rows nor predicted counts as 0 in its macro "
    "averages, which leave it out today."
)
OWN_EVALUATIONS = ("test", "validation")  # of a run's own rows, the first tells more
NOT_EVALUATIONS = ("explanations", "faithfulness")  # other files in evaluation/
FRAMES = {"data.source": "train.jsonl", "data.validation": "validation.jsonl", "data.test": "test.jsonl"}  # in rows/


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.toml"
        self.data_file = path / "data.json"
        self.quarantine_file = path / "quarantine.jsonl"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.adapter = path / "adapter"
        self.evaluation = path / "evaluation"
        self.figures = path / "figures"
        self.exports = path / "exports"
        self.rows = path / "rows"  # that had no file of their own
        self.report_file = path / "report.html"
        self.manifest_file = path / "manifest.json"
        self._made: list[Path] = []  # folders above it that `create` made, innermost first

    def __fspath__(self) -> str:
        """The path, so that whatever takes a run takes this."""
        return str(self.path)

    def __repr__(self) -> str:
        return f"<RunFolder {self.path}, {'finished' if self.complete else 'unfinished'}>"

    @classmethod
    def create(cls, path: Path | None, recipe: Recipe) -> "RunFolder":
        """A new run folder holding the resolved recipe; without a path, at `usual_path`.

        Raises:
            RunError: the folder exists and holds more than what a refused start left (`discard_unbegun`).
            StorageError: it cannot be written.
        """
        if path is None:
            path = usual_path(recipe)
        if path.exists() and (not path.is_dir() or {item.name for item in path.iterdir()} - {"quarantine.jsonl"}):
            hint = f"continue it with `newslora train --resume {path}`, " if (path / "recipe.toml").exists() else ""
            raise RunError(
                f"The run folder {path} exists and is not empty: {hint}name another (--output), or remove it."
            )
        run = cls(path)
        run._made = [folder for folder in path.parents if not folder.exists()]
        files.write_text(run.recipe_file, to_toml(recipe))
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder, whole or not.

        Raises:
            RunError: nothing there, or not a run folder.
        """
        if not path.exists():
            beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
            raise RunError(f"There is no run folder '{path}'.{near(path.name, beside)} `newslora train` makes one.")
        run = cls(path)
        if not run.recipe_file.is_file():
            raise RunError(
                f"{path} is not a run folder: it has no recipe.toml. Name a folder that `newslora train` made."
            )
        return run

    def discard_unbegun(self) -> None:
        """Undo `create` where no step was taken; rows that were set aside stay, for the error may send people there."""
        if self.metrics() or self.checkpoints.exists():
            return
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        shutil.rmtree(self.rows, ignore_errors=True)
        for path in (self.recipe_file, self.data_file, self.metrics_file, self.path / ".lock"):
            path.unlink(missing_ok=True)
        if self.quarantine_file.exists() and not self.quarantine_file.stat().st_size:
            self.quarantine_file.unlink()
        with contextlib.suppress(OSError):  # there is something in it
            for folder in (self.path, *self._made):
                folder.rmdir()

    @property
    def complete(self) -> bool:
        return self.manifest_file.is_file()

    def recipe(self) -> Recipe:
        """The resolved recipe; tables that `rows` holds by where they lie now.

        Raises:
            RunError: recipe.toml is damaged.
        """
        try:
            recipe = load_recipe(self.recipe_file)
            given = {key: getattr(recipe.data, key.removeprefix("data.")) for key in FRAMES}
            kept = {key: self.rows / name for key, name in FRAMES.items() if self._keeps(given[key], name)}
            return load_recipe(recipe, kept) if kept else recipe
        except SettingsError as error:
            told = " ".join(str(error).split())
            newer = " A newer newslora may have it." if "There is no setting" in told else ""
            raise RunError(f"{self.recipe_file} is damaged: {told}{newer} {RESTORE}") from None

    def _keeps(self, source: str | None, name: str) -> bool:
        """Whether a source is a table in `rows`, wherever the folder was when it was written."""
        return source is not None and Path(source).parts[-2:] == (self.rows.name, name) and (self.rows / name).is_file()

    def data(self) -> dict[str, Any]:
        """What data.json holds (newslora.records.run.Data): sources, hashes, counts and label names.

        Raises:
            RunError: there is none yet, or it is damaged.
        """
        return self._read(self.data_file, Data)

    def trained_in(self) -> str | None:
        """The working directory that names of the data files are relative to; None: none is, or it was not kept."""
        return self.data().get(TRAINED_IN) if self.data_file.exists() else None

    def trained_on(self) -> set[str]:
        """Hashes of the files whose rows trained this run, or the adapter that it started from, or one before that."""
        data = self.data()
        return {data["splits"]["train"]["sha256"], *(data.get(STARTED_FROM) or {}).get("trained_on", ())}

    def manifest(self) -> dict[str, Any]:
        """What manifest.json holds (newslora.records.run.Manifest).

        Raises:
            RunError: the run did not finish, or the file is damaged or of another format.
        """
        return self._read(self.manifest_file, Manifest, FORMAT)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line torn by a kill is left out.

        Raises:
            RunError: a line before the last is damaged.
        """
        lines = self.metrics_file.read_bytes().split(b"\n") if self.metrics_file.exists() else []
        return [check_line(self.metrics_file, number, line, Line, RESTORE) for number, line in enumerate(lines[:-1], 1)]

    def evaluations(self) -> list[dict[str, Any]]:
        """What evaluation/*.json hold: test first, then validation, then the others by name.

        Raises:
            RunError: one is damaged.
        """
        order = {name: place for place, name in enumerate(OWN_EVALUATIONS)}
        paths = [path for path in self.evaluation.glob("*.json") if path.stem not in NOT_EVALUATIONS]
        return [
            self.read_evaluation(path) for path in sorted(paths, key=lambda path: (order.get(path.stem, 2), path.stem))
        ]

    def own_evaluation(self) -> dict[str, Any] | None:
        """What evaluation/test.json holds, else validation.json; None before either is written.

        Raises:
            RunError: it is damaged.
        """
        paths = (self.evaluation / f"{name}.json" for name in OWN_EVALUATIONS)
        return next((self.read_evaluation(path) for path in paths if path.is_file()), None)

    def read_evaluation(self, path: Path) -> dict[str, Any]:
        """What one of evaluation/*.json holds (newslora.records.evaluation.Evaluation), under the file's own name.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            found = read_dict(path, Evaluation, SCORE_AGAIN) | {"name": path.stem}
        except FileNotFoundError:
            raise RunError(f"There is no {path}. {SCORE_AGAIN}") from None
        if counts_absent(found) and COUNTED not in (found["note"] or ""):
            found["note"] = f"{found['note'] or ''} {COUNTED}".lstrip()
        return found

    def adapter_folder(self) -> Path:
        """The trained adapter.

        Raises:
            RunError: the run has none yet.
        """
        if not (self.adapter / "newslora.json").is_file():
            raise RunError(f"The run {self.path} has no adapter yet. Finish it: `newslora train --resume {self.path}`.")
        return self.adapter

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Held while a process writes the run.

        Raises:
            RunError: another process holds it.
            StorageError: the folder cannot be written.
        """
        taken = RunError(
            f"Another process is training in {self.path}. Wait for it, stop it, or name another folder (--output)."
        )
        return files.locked(self.path / ".lock", self.path, taken)

    def _read(self, path: Path, kind: type[Part], known: int | None = None) -> dict[str, Any]:
        try:
            return read_dict(path, kind, RESTORE, known)
        except FileNotFoundError:
            raise RunError(
                f"The run {self.path} has no {path.name}: it did not finish. Go on with `newslora train --resume {self.path}`."
            ) from None


def run_path(given: object) -> Path:
    """What a caller names a run by -> its path.

    Raises:
        SettingsError: neither text nor a path.
    """
    if not isinstance(given, (str, os.PathLike)):
        told = f"A run is named by the path of its folder, a str or Path, not by {type(given).__name__}: {given!r:.60}."
        if hasattr(given, "adapter_"):  # a fitted NewsClassifier
            told += " Its adapter_.classifier() is a Classifier, and its run_ such a folder where runs_folder is set."
        raise SettingsError(told)
    return Path(given)


def adapter_in(path: Path) -> Path:
    """The adapter of a run folder; an adapter or export folder is its own.

    Raises:
        RunError: nothing there, another kind of folder, or a run that has no adapter yet.
    """
    return path if (path / "newslora.json").is_file() else RunFolder.open(path).adapter_folder()


def usual_path(recipe: Recipe) -> Path:
    """Where a run goes that nobody named a place for: runs/DATE-NAME."""
    return _free_name(Path("runs"), f"{time.strftime('%Y%m%d-%H%M%S')}-{recipe.name}")


def _free_name(folder: Path, name: str) -> Path:
    """`folder/name`, numbered when two runs start in the same second."""
    taken = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    if name not in taken:
        return folder / name
    used = [int(match[1]) for item in taken if (match := re.fullmatch(re.escape(name) + r"-(\d+)", item))]
    return folder / f"{name}-{max(used, default=1) + 1}"
