"""A trained run put to work: texts -> labels and probabilities. No training code, no HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from newslora.data.batches import Rows
from newslora.data.tokens import tokenize
from newslora.errors import SettingsError
from newslora.metrics import Probabilities, softmax
from newslora.model.adapter import AdapterCard, load_adapter
from newslora.model.engine import Engine, make_engine
from newslora.model.inference import predict_logits
from newslora.runfolder import RunFolder
from newslora.runtime import Precision, pick_device, resolve_precision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_TOKENS = {
    "cpu": 1024,
    "cuda": 65_536,
}  # tokens a forward pass, by device: enough to fill it, few enough to stay in cache


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one text."""

    label: str
    probability: float  # of `label`
    probabilities: dict[str, float]  # of every label; they sum to 1


class Classifier:
    """A trained classifier.

    Example:
        >>> classify = Classifier.load("runs/my-run")  # doctest: +SKIP
        >>> classify("Striker scores twice as hosts reach final").label  # doctest: +SKIP
        'Sports'
    """

    def __init__(
        self, engine: Engine, tokenizer: "PreTrainedTokenizerBase", card: AdapterCard, precision: Precision
    ) -> None:
        self.engine, self.tokenizer, self.card, self.precision = engine, tokenizer, card, precision

    @classmethod
    def load(
        cls, run: str | Path, device: str | None = None, precision: str = "fp32", engine: str = "auto"
    ) -> "Classifier":
        """Load a run folder (or an adapter folder).

        Args:
            run: what `newslora train` made.
            device: 'cpu', 'cuda', ...; None picks.
            precision: as `train.precision`; fp32 by default, so that a text's answer does not depend on its neighbours
                in a batch beyond rounding; 'auto' is the device's fastest.
            engine: as `train.engine`.

        Raises:
            RunError, BackboneError, MissingExtraError, NetworkError: the run or its backbone cannot be had.
        """
        path = Path(run)
        folder = path if (path / "newslora.json").is_file() else RunFolder.open(path).adapter_folder()
        target = pick_device(device)
        model, tokenizer, card = load_adapter(folder)
        resolved = resolve_precision(precision, target)
        return cls(make_engine(model.to(target), engine, resolved, release=True), tokenizer, card, resolved)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in id order, the columns of `predict_proba`."""
        return self.card.labels

    @overload
    def __call__(self, texts: str) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, texts: Sequence[str]) -> list[Prediction]: ...
    def __call__(self, texts: str | Sequence[str]) -> Prediction | list[Prediction]:
        """One text -> its prediction; many -> theirs, in order.

        Raises:
            SettingsError: something that is not text.
        """
        many = [texts] if isinstance(texts, str) else list(texts)
        answers = [self._answer(row) for row in self.predict_proba(many)]
        return answers[0] if isinstance(texts, str) else answers

    def predict_proba(self, texts: Sequence[str], progress: Callable[[int], None] = lambda rows: None) -> Probabilities:
        """(R, C) probabilities of R texts; columns as in `labels`."""
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise SettingsError(
                    f"Text {place} is {type(text).__name__}, not str. Give a string or a list of strings."
                )
        rows = self.rows([text.strip() for text in texts])  # as the rows it was trained on
        tokens = BATCH_TOKENS[self.engine.device.type]
        return softmax(predict_logits(self.engine, rows, batch_tokens=tokens, progress=progress))

    def rows(self, texts: Sequence[str]) -> Rows:
        """Texts as the engine takes them, without labels."""
        tokens = tokenize(self.tokenizer, texts, self.card.max_length)
        return Rows(tokens, np.full(len(texts), -1, dtype=np.int64), int(self.tokenizer.pad_token_id))

    def _answer(self, probabilities: Probabilities) -> Prediction:
        best = int(probabilities.argmax())
        return Prediction(
            self.labels[best],
            float(probabilities[best]),
            dict(zip(self.labels, map(float, probabilities), strict=True)),
        )
