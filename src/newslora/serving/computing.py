"""Forward passes: of many adapters on one encoder, or of one classifier that has an encoder to itself."""

from collections.abc import Sequence

import numpy as np

from newslora.data.batches import Rows, sorted_batches
from newslora.data.tokens import TokenTable
from newslora.metrics.basic import Logits
from newslora.model.engine import Engine
from newslora.model.packed.mixed import MixedEncoder
from newslora.model.shared import AdapterEngine
from newslora.serving.jobs import Piece


class Together:
    """Pieces of any adapters of one encoder, in one packed batch."""

    def __init__(self, encoder: MixedEncoder) -> None:
        self.encoder = encoder

    def __call__(self, pieces: Sequence[Piece]) -> list[Logits]:
        rows = _rows(pieces, pad_id=0)
        batch = self.encoder.collate(rows, range(len(pieces))).to(self.encoder.device)
        engines = [piece.job.classifier.engine for piece in pieces]
        weights = [engine.weights for engine in engines if isinstance(engine, AdapterEngine)]
        return [logits.cpu().numpy() for logits in self.encoder.logits_of(batch, weights)]


class Alone:
    """Pieces of one classifier, through its own engine."""

    def __init__(self, engine: Engine, pad_id: int, budget: int) -> None:
        self.engine, self.pad_id, self.budget = engine, pad_id, budget

    def __call__(self, pieces: Sequence[Piece]) -> list[Logits]:
        import torch

        rows = _rows(pieces, self.pad_id)
        found: list[Logits] = [np.zeros(0, dtype=np.float32)] * len(pieces)
        with torch.inference_mode():
            # a padded batch counts its padding: rows of like length go together, and all of them go now
            for chosen in sorted_batches(rows.tokens.lengths, batch_tokens=self.budget):
                batch = self.engine.collate(rows, chosen).to(self.engine.device)
                for place, logits in zip(chosen, self.engine.logits(batch).cpu().numpy(), strict=True):
                    found[place] = logits
        return found


def _rows(pieces: Sequence[Piece], pad_id: int) -> Rows:
    return Rows.unlabelled(TokenTable.of([piece.ids for piece in pieces]), pad_id)
