"""A trained run put to work: texts -> labels, probabilities and answer sets. No training code, no HTTP."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from newslora.data.articles import is_empty
from newslora.data.batches import Rows
from newslora.data.labels import is_unicode
from newslora.data.tokens import tokenize
from newslora.errors import DataError, RunError, SettingsError
from newslora.metrics.basic import Logits, Probabilities, softmax
from newslora.metrics.multi_label import HALF, sigmoid
from newslora.model.adapter import CARD, AdapterCard, read_card
from newslora.model.engine import Engine
from newslora.model.exported import ONNX, WEIGHTS, manifest
from newslora.model.inference import predict_logits
from newslora.predict.calibration import Calibration, load_calibration
from newslora.predict.conformal import AnswerSets, check_level
from newslora.predict.opening import DEFAULT, open_engine, refuse_forked
from newslora.predict.thresholds import LabelThresholds, load_thresholds
from newslora.runfolder import adapter_in, run_path
from newslora.runtime import Precision, machine_record, package_version

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

# tokens a forward pass, by device: enough to fill it, few enough to stay in cache
BATCH_TOKENS = {"cpu": 1024, "cuda": 65_536}
# characters read of a text: tokenizers take some hundred bytes a character, and cut at `max_length` tokens afterwards
TEXT_LIMIT = 1_000_000
VERSION_DIGITS = 12
LABELS_SHOWN = 10
# held while one is opened: transformers' lazy imports, and the notices of its that are silenced meanwhile, are the process's
_OPENING = threading.RLock()
LEVELS_KEPT = 16  # answer sets of a classifier: a client of the server may ask for any number of levels
# guards the kept ones, and their making: it silences a warning, which Python does for all threads at once
_MAKING_SETS = threading.Lock()


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one text.

    Attributes:
        label: the likeliest of `labels`; None where there is none.
        probability: of the likeliest label, given or not (0 to 1).
        probabilities: of every label, in id order; they sum to 1, unless a text may carry several labels.
        answer_set: likeliest first, where abstaining was asked for: one label is an answer.
        labels: those given, likeliest first: one or, where the classifier abstained, none; where a text may carry several
            labels, any number.
    """

    label: str | None
    probability: float
    probabilities: dict[str, float]
    answer_set: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()

    @property
    def abstained(self) -> bool:
        """Whether the text was left undecided."""
        return self.answer_set is not None and self.label is None

    def top(self, count: int) -> list[tuple[str, float]]:
        """The likeliest labels with their probabilities, likeliest first."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:count]


class Classifier:
    """A trained classifier.

    A pickle of it holds the path of its folder: who reads the pickle needs that folder, and loads it anew.

    Example:
        >>> classify = Classifier.load("runs/my-run")  # doctest: +SKIP
        >>> classify("Striker scores twice as hosts reach final").label  # doctest: +SKIP
        'Sports'
        >>> frame["label"] = [answer.label for answer in classify(frame["title"])]  # doctest: +SKIP
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: "PreTrainedTokenizerBase",
        card: AdapterCard,
        precision: Precision,
        folder: Path,
        calibration: Calibration | None = None,
        thresholds: LabelThresholds | None = None,
        export_sha256: str | None = None,
    ) -> None:
        self.engine, self.tokenizer, self.card, self.precision = engine, tokenizer, card, precision
        # the adapter's folder, and what lies in it
        self.folder, self.calibration, self.thresholds = folder, calibration, thresholds
        self.export_sha256 = export_sha256  # of its weights, where it is an export
        self._options: tuple[str | None, str, str] | None = None  # device, precision and engine, as `load` was asked
        self.reopen: Callable[[], Classifier] | None = None  # how `padded` comes by its own, if not from the folder
        self._padded: Classifier | None = None
        self._answer_sets: OrderedDict[float, AnswerSets] = OrderedDict()  # by level, lately asked for last

    @classmethod
    def load(
        cls, run: str | os.PathLike[str], device: str | None = None, precision: str = "fp32", engine: str = "auto"
    ) -> "Classifier":
        """Load a run folder, an adapter folder, or an export.

        Args:
            run: what `newslora train` or `newslora export` made.
            device: 'cpu', 'cuda', ...; None picks. ONNX and int8 exports run on the CPU.
            precision: as `train.precision`; fp32 by default, so that a text's answer does not depend on its neighbours
                in a batch beyond rounding; 'auto' is the device's fastest. ONNX and int8 exports compute in what they were
                made for.
            engine: as `train.engine`; 'padded' takes an int8 export through the stock forward, on any device.

        Raises:
            RunError, BackboneError, MissingExtraError, NetworkError: the run or its backbone cannot be had.
            SettingsError: something that is no path; a device, precision or engine that this machine or the export has not.
        """
        # to be found again from wherever the program goes, and where a link points elsewhere
        folder = adapter_in(run_path(run)).resolve()
        return cls.of_card(folder, read_card(folder), device, precision, engine)

    @classmethod
    def of_card(
        cls, folder: Path, card: AdapterCard, device: str | None = None, precision: str = "fp32", engine: str = "auto"
    ) -> "Classifier":
        """As `load`, of an adapter or export folder whose card was read, and so its files checked."""
        calibration = load_calibration(folder, card.weights_sha256, len(card.labels))
        thresholds = load_thresholds(folder, card.weights_sha256, len(card.labels))
        weights = None if card.export is None else manifest(folder)["files"][WEIGHTS[card.export]]
        with _OPENING:
            made, tokenizer, resolved = open_engine(folder, card, device, precision, engine)
        found = cls(made, tokenizer, card, resolved, folder, calibration, thresholds, weights)
        found._options = device, precision, engine
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by the path of its folder, which is loaded again with the same options where the pickle is read.

        Raises:
            RunError: here, where it has no folder (any more); there, where the folder is gone or holds another classifier.
        """
        if self._options is None or not (self.folder / CARD).is_file():
            raise RunError(
                "A classifier is pickled by the path of its folder, and this one has none that is still there. Pickle the "
                "fitted NewsClassifier it is from, or call newslora.Classifier.load(FOLDER) in the other process."
            )
        return type(self)._again, (str(self.folder.resolve()), self.version, self.temperature, *self._options)

    def __setstate__(self, state: Any) -> None:
        """Only pickles of the first newsloras ask for it: they held the parts themselves, and those have changed.

        Raises:
            RunError: always.
        """
        raise RunError(
            "The pickle holds a classifier of an older newslora, part by part, which this one does not read. Load its folder: "
            "newslora.Classifier.load(FOLDER)."
        )

    @classmethod
    def _again(
        cls, folder: str, version: str, temperature: float, device: str | None, precision: str, engine: str
    ) -> "Classifier":
        """What was loaded from a folder before, loaded from it once more."""
        found = cls.load(folder, device, precision, engine)
        if found.version != version:
            raise RunError(
                f"{folder} holds other weights ({found.version}) than were loaded from it ({version}). Load it again."
            )
        if found.temperature != temperature:
            raise RunError(
                f"{folder} holds another temperature ({found.temperature:g}) than was loaded from it ({temperature:g}). "
                "Load it again."
            )
        return found

    def padded(self) -> "Classifier":
        """This classifier through the stock forward in fp32: itself, or else another loaded from its folder and kept.

        Raises:
            SettingsError: an ONNX export, which has no stock forward.
            RunError: the folder is no longer there, or holds another classifier by now.
            BackboneError, NetworkError: its backbone is no longer there.
        """
        check_gradients(self.card, str(self.folder))
        if self.engine.name == "padded" and self.precision.name == "fp32":
            return self
        with _OPENING:
            if self._padded is None:
                self._padded = self._stock() if self.reopen is None else self.reopen()
        return self._padded

    def _stock(self) -> "Classifier":
        return self._again(str(self.folder), self.version, self.temperature, str(self.engine.device), DEFAULT, "padded")

    def __repr__(self) -> str:
        labels = ", ".join(self.labels[:LABELS_SHOWN]) + (", ..." if len(self.labels) > LABELS_SHOWN else "")
        how = f"{self.card.backbone_name}, {self.engine.name} in {self.precision.name}"
        return f"<Classifier of {labels}: {how}, version {self.version}>"

    @property
    def version(self) -> str:
        """Tells it from what else has been or will be served under its name: the first hex digits of the sha256 of the weights
        that answer, an export's own or the adapter's."""
        return (self.export_sha256 or self.card.weights_sha256)[:VERSION_DIGITS]

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in id order, the columns of `predict_proba`."""
        return self.card.labels

    def identity(self) -> dict[str, Any]:
        """Plain values of all that decides the bits of its answers: weights, calibration, machine and libraries."""
        held = self.calibration
        rows = b"" if held is None else held.logits.tobytes() + held.labels.tobytes()
        machine = machine_record(self.engine.device, self.precision)
        decides = ("device", "accelerator", "cpu", "instructions", "threads", "precision")
        return {
            "adapter": self.card.weights_sha256,
            "adapter card": self.card.record(),
            "temperature": self.temperature,
            "thresholds": self.label_thresholds.tolist(),
            "validation rows": hashlib.sha256(rows).hexdigest(),
            "engine": self.engine.name,
            "tokens a batch": BATCH_TOKENS[self.engine.device.type],
            **{name: machine[name] for name in decides},
            **machine["packages"],
            **self._export_identity(),
        }

    def _export_identity(self) -> dict[str, Any]:
        """What tells an export from its run and from its other exports."""
        if self.export_sha256 is None:
            return {}
        how = {"onnxruntime": package_version("onnxruntime")} if self.card.export in ONNX else {}
        if self.engine.name == "packed-int8":
            how["products"] = self.precision.reason  # which differ by chip, in their last bits
        return {"export": self.card.export, "export weights": self.export_sha256} | how

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 where none was fitted."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    @property
    def multi_label(self) -> bool:
        """Whether a text may carry several labels, or none."""
        return self.card.multi_label

    @property
    def label_thresholds(self) -> "NDArray[np.float64]":
        """(C,) probability from which a label is given, where a text may carry several; 0.5 where none was tuned."""
        return np.full(len(self.labels), HALF) if self.thresholds is None else self.thresholds.values

    @overload
    def __call__(self, texts: str, abstain: float | None = None) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, texts: Iterable[str], abstain: float | None = None) -> list[Prediction]: ...
    def __call__(self, texts: str | Iterable[str], abstain: float | None = None) -> Prediction | list[Prediction]:
        """One text -> its prediction; many -> theirs, in order.

        Args:
            texts: a string or strings.
            abstain: leave a text undecided unless its answer set at this level, as 0.99, is a single label (see
                `newslora.predict.conformal.AnswerSets` for what that promises); None decides every text.

        Raises:
            SettingsError: something that is not text, or a level the run's validation rows cannot tell.
            DataError: a text that is empty, which only `predict_proba` answers.
            MissingExtraError: abstaining needs the extra 'abstain'.
        """
        many = list_texts(texts)
        refuse_empty(many)
        answers = self.predictions(self.rows(many), abstain)
        return answers[0] if isinstance(texts, str) else answers

    def predictions(self, rows: Rows, abstain: float | None = None) -> list[Prediction]:
        """The predictions of tokenised texts (from `rows`), in order; `abstain` as when called with texts."""
        sets = None if abstain is None else self.answer_sets(abstain)
        probabilities = self.probabilities(self.finite_logits(rows))
        members = None if sets is None else sets(probabilities)
        return [self.answer(row, None if members is None else members[i]) for i, row in enumerate(probabilities)]

    def predict_proba(self, texts: Iterable[str], progress: Callable[[int], None] = lambda rows: None) -> Probabilities:
        """(R, C) calibrated probabilities of R texts; columns as in `labels`.

        An empty text gets the answer of the encoder's special tokens alone, which means little.
        Where a text may carry several labels, each is the probability of its label by itself, not calibrated.
        """
        return self.probabilities(self.finite_logits(self.rows(texts), progress))

    def probabilities(self, logits: Logits) -> Probabilities:
        """(R, C) logits -> the probabilities this classifier answers with."""
        return sigmoid(logits) if self.multi_label else softmax(logits, self.temperature)

    def logits(self, rows: Rows, progress: Callable[[int], None] = lambda rows: None) -> Logits:
        """(R, C) logits of R rows, before the temperature.

        Raises:
            WorkerError: in a forked process (`newslora.predict.opening.refuse_forked`).
        """
        refuse_forked()
        tokens = BATCH_TOKENS[self.engine.device.type]
        return predict_logits(self.engine, rows, batch_tokens=tokens, progress=progress)

    def finite_logits(self, rows: Rows, progress: Callable[[int], None] = lambda rows: None) -> Logits:
        """As `logits`.

        Raises:
            RunError: some are not finite, which no answer can be made of.
        """
        found = self.logits(rows, progress)
        if not np.isfinite(found).all():
            raise RunError(
                f"{self.folder} answers with numbers that are not finite, in {self.precision.name}. Restore the folder, or "
                "train it again; in fp16 or bf16, try fp32 first."
            )
        return found

    def answer_sets(self, level: float) -> AnswerSets:
        """Probabilities -> answer sets at a level, out of the run's stored validation rows.

        Raises:
            SettingsError: no level, or the run stored no rows, or too few for this one.
            MissingExtraError: abstaining needs the extra 'abstain'.
        """
        if self.multi_label:
            raise SettingsError(
                "This run gives a text any number of labels, and sets of answers are made for one: leave abstaining out "
                "(--abstain). A label is given from its own threshold on; the probabilities (--probabilities) tell how likely "
                "each is."
            )
        if self.calibration is None:
            raise SettingsError(
                "This run holds no validation rows to abstain by: it is from an older newslora, or was validated on its own "
                "training rows. Train it again with validation rows of its own."
            )
        check_level(level, len(self.calibration.labels))
        with _MAKING_SETS:
            held = self._answer_sets.pop(level, None)
            found = held or AnswerSets(self.calibration.probabilities(), self.calibration.labels, level)
            self._answer_sets[level] = found
            while len(self._answer_sets) > LEVELS_KEPT:
                self._answer_sets.popitem(last=False)
        return found

    def rows(self, texts: Iterable[str]) -> Rows:
        """Texts as the engine takes them, without labels.

        Raises:
            SettingsError: one text by itself, or something that is not text.
        """
        if isinstance(texts, str):
            raise SettingsError("The texts are one str. Give a list of strings: [text].")
        texts = list_texts(texts)
        limit = TEXT_LIMIT if self.card.overlap is None else None  # windows read the whole text
        stripped = [text.strip()[:limit] for text in texts]  # as the rows it was trained on
        tokens = tokenize(self.tokenizer, stripped, self.card.max_length, overlap=self.card.overlap)
        return Rows.unlabelled(tokens, int(self.tokenizer.pad_token_id))

    def answer(self, probabilities: Probabilities, members: "NDArray[np.bool_] | None" = None) -> Prediction:
        """One row's (C,) probabilities and, where abstaining was asked for, (C,) which labels its set holds."""
        # plain numbers: numpy lets go of Python's lock for each of its sorts, which costs a server more than sorting
        shares = probabilities.tolist()
        named = dict(zip(self.labels, shares, strict=True))
        best = max(range(len(shares)), key=shares.__getitem__)
        if members is None and not self.multi_label:
            return Prediction(self.labels[best], shares[best], named, labels=(self.labels[best],))
        likeliest = sorted(range(len(shares)), key=lambda label: -shares[label])
        if self.multi_label:
            given = tuple(self.labels[k] for k in likeliest if shares[k] >= self.label_thresholds[k])
            return Prediction(given[0] if given else None, shares[best], named, labels=given)
        answer_set = tuple(self.labels[k] for k in likeliest if members is not None and members[k])
        decided = answer_set[0] if len(answer_set) == 1 else None
        return Prediction(decided, shares[best], named, answer_set, () if decided is None else (decided,))


def check_gradients(card: AdapterCard, what: str) -> None:
    """Refuse to explain what has no gradients; `what` it is, for the message.

    Raises:
        SettingsError: an ONNX export.
    """
    if card.export in ONNX:
        raise SettingsError(
            f"{what} is an ONNX export: it gives answers, but no gradients to explain them by. Explain the run it was made of, "
            "or its adapter: both give the same answers to rounding (int8: to what its gate measured)."
        )


def list_texts(texts: object) -> list[str]:
    """One text or many -> a list of them.

    Raises:
        SettingsError: something that is not text.
    """
    kind = type(texts).__name__
    # names would be taken for texts, or have no order
    if hasattr(texts, "columns") or isinstance(texts, (Mapping, Set)):
        raise SettingsError(
            f"The texts are a {kind}. Give a list of strings, such as one column of a table: list(TABLE[NAME])."
        )
    if isinstance(texts, bytes) or not isinstance(texts, Iterable) or getattr(texts, "ndim", 1) != 1:
        shape = f" of shape {texts.shape}" if hasattr(texts, "shape") else ""
        raise SettingsError(f"The texts are {kind}{shape}, not str. Give a string or a list of strings.")
    many = [texts] if isinstance(texts, str) else list(texts)
    for place, text in enumerate(many):
        if not isinstance(text, str):
            raise SettingsError(f"Text {place} is {type(text).__name__}, not str. Give a string or a list of strings.")
        if not is_unicode(text):
            raise SettingsError(f"Text {place} holds lone surrogates, which are broken text. Read the data as UTF-8.")
    return cast("list[str]", many)


def refuse_empty(texts: Sequence[str]) -> None:
    """Refuse a text in which nothing can be seen, as files and the server do.

    Raises:
        DataError: naming the first such place.
    """
    for place, text in enumerate(texts):
        if is_empty(text):
            raise DataError(
                f"Text {place} of {len(texts)}, counted from 0, is an empty text: {text[:20]!r}. Leave it out."
            )
