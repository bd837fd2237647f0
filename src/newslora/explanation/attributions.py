"""Integrated gradients: how much each word of a text moves the classifier towards its label.

What is explained is the log-odds of the label, log p / (1 - p): unlike the probability it does not flatten where the
classifier is sure, and unlike the label's own logit it counts what a word does for the other labels. Where a text may carry
several labels, each is decided by itself, and the log-odds are its logit. The gradient is
integrated on the word embeddings along the straight line from a baseline to the text (Sundararajan, Taly and Yan 2017,
"Axiomatic Attribution for Deep Networks", eq. 1), by captum. The baseline is the text with every word masked, special
tokens and positions kept: encoders have met that token in pretraining and know it to say nothing.

A text runs alone, its integration steps side by side as one batch: nothing is padded, and the answer does not depend
on the other texts. The windows of a long text are integrated together, for their mean is what answers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, overload

from newslora.data.tokens import nothing
from newslora.errors import BackboneError, SettingsError, near, needing
from newslora.explanation.words import Word, join_words
from newslora.model.classifier import stock_model
from newslora.model.families import family_of
from newslora.predict.classifier import Classifier, list_texts, refuse_empty

if TYPE_CHECKING:
    import torch

Windows = tuple["torch.Tensor", ...]  # (B, L, H) word embeddings of each window
Places = tuple["torch.Tensor | None", ...]  # (1, L) of its tokens among the position embeddings; None: as they stand
FIRST_STEPS, MOST_STEPS = 32, 512  # of the integral; doubled until it is close, or comes no closer
TOLERANCE = 0.01  # of completeness: share of what there is to explain, or as many nats where that is less than one
BATCH_TOKENS = 2048  # a forward and backward pass; the graph of every layer is held at once


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a text got its label.

    Attributes:
        text: as it was given.
        label: that is explained; the predicted one unless another was asked for.
        probability: of `label`.
        predicted: several labels are joined as the data joins them.
        words: in the order of the text, with scores in nats of log-odds; above zero: for `label`.
        log_odds: of `label`.
        baseline: log-odds with every word masked; the words' scores should add up to log_odds - baseline.
        steps: of the integral.
        read_to: characters the classifier read; None: all.
    """

    text: str
    label: str
    probability: float
    predicted: str
    words: tuple[Word, ...]
    log_odds: float
    baseline: float
    steps: int
    read_to: int | None

    @property
    def error(self) -> float:
        """Completeness error in nats: how far the scores' sum is from what they should add up to."""
        return abs(sum(word.score for word in self.words) - (self.log_odds - self.baseline))

    @property
    def complete(self) -> bool:
        """Whether that error is small."""
        return self.error <= TOLERANCE * max(1.0, abs(self.log_odds - self.baseline))

    @property
    def remarks(self) -> list[str]:
        """What a reader of the scores must know, one sentence each."""
        found = []
        if not self.complete:
            found.append(
                f"The scores miss what they should add up to by {self.error:.2f} of "
                f"{abs(self.log_odds - self.baseline):.2f} nats after {self.steps} steps: take them as rough."
            )
        if self.read_to is not None:
            found.append(
                f"The classifier reads no further than character {self.read_to:,} of {len(self.text):,}: the rest was cut "
                "and had no part in the answer."
            )
        return found

    def top(self, many: int) -> tuple[Word, ...]:
        """The words that weigh most, for or against, heaviest first."""
        return tuple(sorted(self.words, key=lambda word: -abs(word.score))[:many])

    def record(self) -> dict[str, Any]:
        """As JSON; offsets count characters."""
        return asdict(self) | {"error": self.error, "remarks": self.remarks}


@overload
def explain(classifier: Classifier, texts: str, label: str | None = None) -> Explanation: ...  # type: ignore[overload-overlap]
@overload
def explain(
    classifier: Classifier,
    texts: Sequence[str],
    label: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Explanation]: ...
def explain(
    classifier: Classifier,
    texts: str | Sequence[str],
    label: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Explanation | list[Explanation]:
    """Attribute the answer to its words: one text -> its explanation; many -> theirs, in order.

    Args:
        classifier: a loaded run; of a fitted `NewsClassifier`, its `adapter_.classifier()`. If its engine is packed, the
            stock padded one is loaded beside it from the same folder.
        texts: one text or many.
        label: to explain; None: the one predicted for each text, or the likeliest where it may carry several.
        progress: told the rows done.

    Raises:
        MissingExtraError: captum is not installed.
        SettingsError: something that is not text, a label the classifier does not know, or an ONNX export.
        DataError: a text that is empty.
        BackboneError: a tokenizer that does not say where in the text its tokens are.

    Example:
        >>> classify = newslora.Classifier.load("runs/mine")  # doctest: +SKIP
        >>> [word.text for word in newslora.explain(classify, "Oil climbs past 55 dollars").top(2)]  # doctest: +SKIP
        ['Oil', 'dollars']
    """
    with needing("Explaining predictions", "explain"):
        import captum.attr  # noqa: F401
    if not isinstance(classifier, Classifier):
        raise SettingsError(
            f"Explanations are of a Classifier, not of {type(classifier).__name__}. Load one, newslora.Classifier.load(RUN), "
            "or take that of a fitted NewsClassifier, model.adapter_.classifier()."
        )
    many = list_texts(texts)
    refuse_empty(many)
    if label is not None and label not in classifier.labels:
        known = ", ".join(classifier.labels)
        raise SettingsError(f"There is no label '{label}'. Labels: {known}.{near(str(label), classifier.labels)}")
    if not classifier.tokenizer.is_fast:
        raise BackboneError(
            f"The tokenizer of '{classifier.card.backbone}' does not say where in the text its tokens are, so words cannot "
            "be marked. Train with a backbone that has a tokenizer.json."
        )
    stock = classifier.padded()
    found = []
    for text in many:
        found.append(_explain_one(stock, text, label))
        progress(1)
    return found[0] if isinstance(texts, str) else found


def heaviest_words(classifier: Classifier) -> Callable[[str, str, int], list[tuple[str, float]]]:
    """(text, label, how many) -> the words that weigh most for or against the label, heaviest first, with their scores.

    Raises:
        As `explain`, at once: what cannot be explained is told before a row is read.
    """
    explain(classifier, [])

    def heaviest(text: str, label: str, many: int) -> list[tuple[str, float]]:
        return [(word.text, word.score) for word in explain(classifier, text, label).top(many)]

    return heaviest


def _explain_one(classifier: Classifier, text: str, label: str | None) -> Explanation:
    import torch

    shift = len(text) - len(text.lstrip())
    windows = _encode(classifier, text.strip())  # as the rows the classifier was trained on
    base = stock_model(classifier.engine.model)
    embeddings, blank = base.get_input_embeddings(), _blank_id(classifier)
    places = tuple(_places(classifier, one.ids) for one in windows)
    with torch.no_grad():
        inside = tuple(embeddings(one.ids) for one in windows)
        baseline = tuple(embeddings(one.ids.masked_fill(~one.special, blank)) for one in windows)
        probabilities = classifier.probabilities(_logits(classifier, inside, places).cpu().numpy())[0]
        target = int(probabilities.argmax()) if label is None else classifier.labels.index(label)
        ends = [_log_odds(classifier, end, places, target).item() for end in (inside, baseline)]
    scores, steps = _integrate(classifier, inside, baseline, places, target, ends[0] - ends[1])
    tokens = [
        (start + shift, end + shift, score)
        for one, scored in zip(windows, scores, strict=True)
        for (start, end), special, score in zip(one.offsets, one.special[0].tolist(), scored, strict=True)
        if not special
    ]
    tokens.sort(key=lambda token: token[0])  # what two windows share lies side by side, and becomes one word
    read = max((end for _, end, _ in tokens), default=shift)
    cut = windows[-1].ids.shape[1] >= classifier.card.max_length and text[read:].strip() != ""
    return Explanation(
        text=text,
        label=classifier.labels[target],
        probability=float(probabilities[target]),
        predicted=classifier.card.label_separator.join(classifier.answer(probabilities).labels),
        words=join_words(text, [token[:2] for token in tokens], [token[2] for token in tokens]),
        log_odds=ends[0],
        baseline=ends[1],
        steps=steps,
        read_to=read if cut else None,
    )


@dataclass(frozen=True, slots=True)
class _Window:
    """Tokens that the classifier reads at once."""

    ids: "torch.Tensor"  # (1, L)
    special: "torch.Tensor"  # (1, L) bool
    offsets: list[tuple[int, int]]  # L places in the text


def _encode(classifier: Classifier, text: str) -> list[_Window]:
    """A text in windows as the classifier takes it: one, unless it was trained on several (data.long_texts)."""
    import torch

    overlap = classifier.card.overlap
    encoded = classifier.tokenizer(
        [text],
        truncation=True,
        max_length=classifier.card.max_length,
        return_overflowing_tokens=overlap is not None,
        stride=overlap or 0,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    device = classifier.engine.device
    parts = zip(encoded["input_ids"], encoded["special_tokens_mask"], encoded["offset_mapping"], strict=True)
    unread = nothing(classifier.tokenizer), [1], [(0, 0)]
    return [
        _Window(torch.tensor([ids], device=device), torch.tensor([special], device=device).bool(), offsets)
        for ids, special, offsets in (part if part[0] else unread for part in parts)
    ]


def _blank_id(classifier: Classifier) -> int:
    """The token that stands for 'some word'; padding where a vocabulary has none."""
    tokenizer = classifier.tokenizer
    return int(tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id)


def _places(classifier: Classifier, ids: "torch.Tensor") -> "torch.Tensor | None":
    """Where the stock model puts tokens among its position embeddings; told only embeddings, it cannot see padding tokens.

    A text may spell the padding token out. RoBERTa and MPNet do not count it then, and leave it at padding's own place.
    """
    config = classifier.engine.model.config
    first = family_of(config.model_type).first_position(config)
    if not first:
        return None
    kept = (ids != first - 1).long()
    return kept.cumsum(1) * kept + first - 1


def _integrate(
    classifier: Classifier, inside: Windows, baseline: Windows, places: Places, target: int, wanted: float
) -> tuple[list[list[float]], int]:
    """Embeddings and baseline of each window -> L scores each that add up to `wanted` together, and the steps that took."""
    from captum.attr import IntegratedGradients

    integral = IntegratedGradients(lambda *embedded: _log_odds(classifier, embedded, places, target))
    tokens = sum(window.shape[1] for window in inside)
    best: tuple[float, list[list[float]], int] = math.inf, [], 0  # error of completeness, scores, steps
    steps = FIRST_STEPS
    while True:
        parts = integral.attribute(
            inside,
            baseline,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=max(1, BATCH_TOKENS // tokens),
        )
        scores = [part.double().sum(-1)[0].tolist() for part in parts]
        error = abs(sum(map(sum, scores)) - wanted)
        if error >= best[0]:  # the path has a step in it, which more points miss as these did
            return best[1:]
        if error <= TOLERANCE * max(1.0, abs(wanted)) or steps >= MOST_STEPS:
            return scores, steps
        best, steps = (error, scores, steps), 2 * steps


def _logits(classifier: Classifier, embedded: Windows, places: Places) -> "torch.Tensor":
    """Word embeddings of each window -> (B, C) logits: of the stock model, LoRA in, dropout out, mean over windows."""
    import torch

    model = classifier.engine.model.eval()
    logits = []
    for window, place in zip(embedded, places, strict=True):
        attended = torch.ones(window.shape[:2], dtype=torch.int64, device=window.device)
        placed = {} if place is None else {"position_ids": place.expand(attended.shape)}
        logits.append(model(inputs_embeds=window, attention_mask=attended, **placed).logits)
    return torch.stack(logits).mean(0)


def _log_odds(classifier: Classifier, embedded: Windows, places: Places, label: int) -> "torch.Tensor":
    """(B,) log p / (1 - p) of one label: its logit, less what the others come to together where only one can hold."""
    import torch

    logits = _logits(classifier, embedded, places) / classifier.temperature
    if classifier.multi_label:
        return logits[:, label]
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    return logits[:, label] - others.logsumexp(dim=1)
