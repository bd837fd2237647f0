"""A folder -> a classifier that may be served, and the lane that computes it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora import files
from newslora.model.adapter import CARD, WEIGHTS, AdapterCard, load_tokenizer, read_card, same_backbone
from newslora.model.packed.mixed import MixedEncoder
from newslora.model.shared import AdapterEngine, encoder_key, load_encoder, load_weights, shares
from newslora.predict.calibration import CALIBRATION, LOGITS, load_calibration
from newslora.predict.canary import CANARY
from newslora.predict.classifier import BATCH_TOKENS, Classifier
from newslora.predict.thresholds import THRESHOLDS, load_thresholds
from newslora.runfolder import adapter_in
from newslora.runtime import passes_at_once, pick_device, resolve_precision
from newslora.serving.computing import Alone, Together
from newslora.serving.lane import Lane, Passes
from newslora.serving.settings import ServeSettings
from newslora.serving.vouching import vouch

if TYPE_CHECKING:
    import torch

# files of an adapter folder that its tokenizer does not read; any other is taken to be one that it does
NOT_TOKENIZER = {
    CARD, WEIGHTS, CALIBRATION, LOGITS, THRESHOLDS, CANARY, "adapter_config.json", "config.json", "README.md",
}  # fmt: skip
# tokens a forward pass may take before it is held to half of what waits, by device; a GPU takes all in the time of little
SMALL_PASS = {"cpu": 192}


@dataclass(frozen=True, slots=True)
class Opened:
    """A classifier, checked."""

    classifier: Classifier
    lane: Lane
    new_lane: bool
    warning: str | None


class Opener:
    """Opens adapters, sharing encoders and tokenizers among them. One call at a time."""

    def __init__(self, limits: ServeSettings) -> None:
        self.limits, self.passes = limits, Passes()
        self.device = pick_device(limits.device)
        self.precision = resolve_precision(limits.precision, self.device)
        self.at_once = limits.passes or passes_at_once(self.device)
        self._shared: dict[str, tuple[MixedEncoder, Lane]] = {}  # by encoder_key
        self._tokenizers: dict[Lane, dict[str, Any]] = {}  # by hash of their files

    def open(self, name: str, folder: Path) -> Opened:
        """Open a run, adapter or export folder, and refuse one that does not answer as it should.

        Raises:
            NewsloraError: as `Service.load`.
        """
        inside = adapter_in(folder)
        if (inside / WEIGHTS).is_file():
            card = read_card(inside)
            backbone = same_backbone(card)
            if shares(backbone.config(), self.precision, self.device):
                key = encoder_key(backbone, self.precision, self.device)
                if key in self._shared and self._shared[key][1].broken is None:
                    return self._adapter(*self._shared[key], inside, card, new_lane=False)
                encoder = load_encoder(backbone, self.precision, self.device)
                made = self._lane(card.backbone_name, Together(encoder), self.device)
                opened = self._adapter(encoder, made, inside, card, new_lane=True)
                self._shared[key] = encoder, made  # only now: one whose first adapter is refused is not kept
                return opened
        # by what was asked for, not by what was found: an export that runs on the CPU alone may be served beside a GPU
        classifier = Classifier.load(inside, self.limits.device, self.limits.precision)
        warning = vouch(classifier)
        device = classifier.engine.device
        compute = Alone(classifier.engine, int(classifier.tokenizer.pad_token_id), self._budget(device))
        return Opened(classifier, self._lane(name, compute, device), True, warning)

    def forget(self, lane: Lane) -> None:
        """Nothing uses this lane any more."""
        self._shared = {key: held for key, held in self._shared.items() if held[1] is not lane}
        self._tokenizers.pop(lane, None)

    def _budget(self, device: "torch.device") -> int:
        """Tokens a pass."""
        return self.limits.batch_tokens or BATCH_TOKENS[device.type]

    def _lane(self, name: str, compute: Together | Alone, device: "torch.device") -> Lane:
        small = SMALL_PASS.get(device.type)
        return Lane(name, compute, self._budget(device), self.limits, self.passes, self.at_once, small)

    def _adapter(self, encoder: MixedEncoder, lane: Lane, folder: Path, card: AdapterCard, new_lane: bool) -> Opened:
        engine = AdapterEngine(encoder, load_weights(encoder, folder, card))
        key = _tokenizer_key(folder)
        held = self._tokenizers.get(lane, {})
        tokenizer = held[key] if key in held else load_tokenizer(folder)
        classifier = Classifier(
            engine, tokenizer, card, self.precision, folder,
            load_calibration(folder, card.weights_sha256, len(card.labels)),
            load_thresholds(folder, card.weights_sha256, len(card.labels)),
        )  # fmt: skip
        with lane.tokenising:
            warning = vouch(classifier)
        # only now: of an adapter that is refused nothing is kept, least of all a lane, which holds its encoder
        self._tokenizers.setdefault(lane, {})[key] = tokenizer
        return Opened(classifier, lane, new_lane, warning)


def _tokenizer_key(folder: Path) -> str:
    """Adapters of one backbone have equal tokenizers, each of which would take more memory than all of an adapter."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in NOT_TOKENIZER)
    told = [(path.name, files.sha256_file(path)) for path in paths if not path.name.startswith(".")]
    return hashlib.sha256(repr(told).encode()).hexdigest()
