"""Whether a loaded adapter may answer: its stored canary, and never the base model's answers in its name."""

import numpy as np

from newslora import files
from newslora.errors import CanaryError, RunError
from newslora.metrics.basic import Logits
from newslora.model.adapter import WEIGHTS, read_tensors
from newslora.model.shared import AdapterEngine
from newslora.predict.canary import CANARY, canary_texts, check_canary, load_canary
from newslora.predict.classifier import Classifier

COMPARED = 4  # texts answered without LoRA too
# differences below this are rounding: the adapter's LoRA then does nothing at all
NOTHING = 1e-6


def vouch(classifier: Classifier) -> str | None:
    """Check a classifier before it is served.

    Returns:
        None; or why its answers could not be compared with stored ones, for whoever looks at the service.

    Raises:
        CanaryError: it answers otherwise than when it was trained or exported, or as its backbone would without it.
        RunError: damaged files.
    """
    card, folder = classifier.card, classifier.folder
    what = f"The adapter {folder}"
    _check_label_map(classifier)
    canary = load_canary(folder, card.weights_sha256)
    texts = canary_texts() if canary is None else canary.texts
    logits = classifier.logits(classifier.rows(texts))
    if not np.isfinite(logits).all():
        raise CanaryError(f"{what} answers with numbers that are not finite. Restore its folder, or train it again.")
    if (folder / WEIGHTS).is_file():  # an adapter, or an export of it by itself
        _check_trained(classifier)
    if isinstance(classifier.engine, AdapterEngine):
        _check_not_bare(classifier, classifier.engine, logits[:COMPARED], texts[:COMPARED])
    if canary is None:
        return f"It has no {CANARY}, because an older newslora trained it: that it answers as it did then could not be checked."
    exact = classifier.precision.name == "fp32" and "int8" not in classifier.engine.name
    check_canary(canary, classifier.labels, logits, exact, what)
    return None


def _check_label_map(classifier: Classifier) -> None:
    """config.json, which other tools read, names the labels of the card."""
    path = classifier.folder / "config.json"
    try:
        named = files.read_json(path)["id2label"]
        ordered = tuple(named[str(number)] for number in range(len(named)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is missing or damaged ({type(error).__name__}). Restore the adapter's folder."
        ) from None
    if ordered != classifier.labels:
        raise CanaryError(
            f"The adapter {classifier.folder} names its labels {', '.join(classifier.labels)}, and its config.json "
            f"{', '.join(map(str, ordered))}. Restore the folder."
        )


def _check_trained(classifier: Classifier) -> None:
    """Its file holds what training leaves: LoRA that adds something, and a head whose biases have moved from zero."""
    what = f"The adapter {classifier.folder}"
    tensors = read_tensors(classifier.folder / WEIGHTS)
    pairs = [(tensors[name.replace("lora_B", "lora_A")], b) for name, b in tensors.items() if "lora_B" in name]
    if not any(a.any() and b.any() for a, b in pairs):
        raise CanaryError(
            f"{what} adds nothing: every A or B of its LoRA is zero, as before training. Restore or train it."
        )
    biases = [tensor for name, tensor in tensors.items() if ".classifier." in name and name.endswith(".bias")]
    if biases and not any(bias.any() for bias in biases):
        raise CanaryError(
            f"{what} has a fresh head: every bias of it is zero, as before training. Restore or train it."
        )


def _check_not_bare(classifier: Classifier, engine: AdapterEngine, logits: Logits, texts: tuple[str, ...]) -> None:
    """It has a head of its own, and LoRA moves its answers."""
    what = f"The adapter {classifier.folder}"
    stock = engine.encoder.stock_head
    if all(weight.equal(stock[f"{name}.weight"]) for name, (weight, _) in engine.weights.head.items()):
        raise CanaryError(f"{what} has its backbone's own head, as before training. Restore or train it.")
    bare = Classifier(
        engine.without_lora(), classifier.tokenizer, classifier.card, classifier.precision, classifier.folder
    )
    if np.abs(bare.logits(bare.rows(texts)) - logits).max() <= NOTHING:
        raise CanaryError(f"{what} answers as its backbone does without its LoRA. Restore or train it.")
