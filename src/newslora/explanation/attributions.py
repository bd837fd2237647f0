"""Integrated gradients: how much each word of a text moves the classifier towards its label.

What is explained is the log-odds of the label, log p / (1 - p): unlike the probability it does not flatten where the
classifier is sure, and unlike the label's own logit it counts what a word does for the other labels. Where a text may carry
several labels, each is decided by itself, and the log-odds are its logit. The gradient is
integrated on the word embeddings along the straight line from a baseline to the text (Sundararajan, Taly and Yan 2017,
"Axiomatic Attribution for Deep Networks", eq. 1), by captum. The baseline is the text with every word masked, special
tokens and positions kept: encoders have met that token in pretraining and know it to say nothing.

A text runs alone, its integration steps side by side as one batch: nothing is padded, and the answer does not depend
on the other texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, overload

from newslora.errors import BackboneError, MissingExtraError, SettingsError, near
from newslora.explanation.words import Word, join_words
from newslora.predict.classifier import Classifier, check_texts

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding

FIRST_STEPS, MOST_STEPS = 32, 512  # of the integral; doubled until it is close
TOLERANCE = 0.01  # of completeness: share of what there is to explain, or as many nats where that is less than one
BATCH_TOKENS = 2048  # a forward and backward pass; the graph of every layer is held at once


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a text got its label."""

    text: str
    label: str  # that is explained; the predicted one unless another was asked for
    probability: float  # of `label`
    predicted: str  # several labels are joined as the data joins them
    words: tuple[Word, ...]  # scores in nats of log-odds; above zero: for `label`
    log_odds: float  # of `label`
    baseline: float  # log-odds with every word masked; the words' scores should add up to log_odds - baseline
    steps: int  # of the integral
    read_to: int | None  # characters the classifier read; None: all

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
        classifier: a loaded run. If its engine is packed, the stock padded one is loaded beside it from the same folder.
        texts: one text or many.
        label: to explain; None: the one predicted for each text, or the likeliest where it may carry several.
        progress: told the rows done.

    Raises:
        MissingExtraError: captum is not installed.
        SettingsError: something that is not text, or a label the classifier does not know.
        BackboneError: a tokenizer that does not say where in the text its tokens are.
    """
    try:
        import captum.attr  # noqa: F401
    except ImportError:
        raise MissingExtraError("Explaining predictions", "explain") from None
    many = [texts] if isinstance(texts, str) else list(texts)
    check_texts(many)
    if label is not None and label not in classifier.labels:
        known = ", ".join(classifier.labels)
        raise SettingsError(f"There is no label '{label}'. Labels: {known}.{near(label, classifier.labels)}")
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


def _explain_one(classifier: Classifier, text: str, label: str | None) -> Explanation:
    import torch

    stripped = text.strip()  # as the rows the classifier was trained on
    shift = len(text) - len(text.lstrip())
    encoded = _encode(classifier, stripped)
    device = classifier.engine.device
    ids = encoded["input_ids"].to(device)
    special = encoded["special_tokens_mask"].to(device).bool()
    masked = ids.masked_fill(~special, _blank_id(classifier))
    base: Any = classifier.engine.model.get_base_model()
    embeddings = base.get_input_embeddings()
    with torch.no_grad():
        inside, baseline = embeddings(ids), embeddings(masked)
        probabilities = classifier.probabilities(_logits(classifier, inside).cpu().numpy())[0]
        target = int(probabilities.argmax()) if label is None else classifier.labels.index(label)
        ends = [_log_odds(classifier, end, target).item() for end in (inside, baseline)]
    scores, steps = _integrate(classifier, inside, baseline, target, ends[0] - ends[1])
    kept = (~special[0]).nonzero()[:, 0].tolist()
    offsets = encoded["offset_mapping"][0].tolist()
    places = [(offsets[place][0] + shift, offsets[place][1] + shift) for place in kept]
    read = max((end for _, end in places), default=shift)
    cut = ids.shape[1] >= classifier.card.max_length and text[read:].strip() != ""
    return Explanation(
        text=text,
        label=classifier.labels[target],
        probability=float(probabilities[target]),
        predicted=classifier.card.label_separator.join(classifier.answer(probabilities).labels),
        words=join_words(text, places, [scores[place] for place in kept]),
        log_odds=ends[0],
        baseline=ends[1],
        steps=steps,
        read_to=read if cut else None,
    )


def _encode(classifier: Classifier, text: str) -> "BatchEncoding":
    """One row of token ids as the classifier takes it, with places in the text and which tokens are special."""
    encoded: BatchEncoding = classifier.tokenizer(
        text,
        truncation=True,
        max_length=classifier.card.max_length,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_tensors="pt",
    )
    return encoded


def _blank_id(classifier: Classifier) -> int:
    """The token that stands for 'some word'; padding where a vocabulary has none."""
    tokenizer = classifier.tokenizer
    return int(tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id)


def _integrate(
    classifier: Classifier, inside: "torch.Tensor", baseline: "torch.Tensor", target: int, wanted: float
) -> tuple[list[float], int]:
    """(1, L, H) embeddings and baseline -> L scores that add up to `wanted`, and the steps that took."""
    from captum.attr import IntegratedGradients

    integral = IntegratedGradients(lambda embedded: _log_odds(classifier, embedded, target))
    steps = FIRST_STEPS
    while True:
        parts = integral.attribute(
            inside,
            baseline,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=max(1, BATCH_TOKENS // inside.shape[1]),
        )
        scores = parts.double().sum(-1)[0]
        close = abs(float(scores.sum()) - wanted) <= TOLERANCE * max(1.0, abs(wanted))
        if close or steps >= MOST_STEPS:
            return scores.tolist(), steps
        steps *= 2


def _logits(classifier: Classifier, embedded: "torch.Tensor") -> "torch.Tensor":
    """(B, L, H) word embeddings -> (B, C) logits: of the stock model, LoRA in, dropout out."""
    import torch

    model = classifier.engine.model.eval()
    attended = torch.ones(embedded.shape[:2], dtype=torch.int64, device=embedded.device)
    logits: torch.Tensor = model(inputs_embeds=embedded, attention_mask=attended).logits
    return logits


def _log_odds(classifier: Classifier, embedded: "torch.Tensor", label: int) -> "torch.Tensor":
    """(B, L, H) word embeddings -> (B,) log p / (1 - p) of one label: its logit, against the others together if one holds."""
    import torch

    logits = _logits(classifier, embedded) / classifier.temperature
    if classifier.multi_label:
        return logits[:, label]
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    return logits[:, label] - others.logsumexp(dim=1)
