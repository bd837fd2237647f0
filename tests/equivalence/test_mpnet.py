"""MPNet's pretrained weights through the packed path against the stock forward: padded, and a row at a time."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_packed import FP32, LOGIT_TOLERANCE, assert_same, classifier, rows_of

from newslora.model.engine import make_engine
from newslora.model.inference import predict_logits

# all-mpnet-base-v2 is 438 MB and never fetched by a test: NEWSLORA_MPNET names its folder
FOLDER = Path(os.environ.get("NEWSLORA_MPNET") or ".no-mpnet")
pytestmark = pytest.mark.skipif(
    not (FOLDER / "model.safetensors").is_file(), reason="NEWSLORA_MPNET names no folder of its weights"
)


@pytest.mark.parametrize("targets", ["query-value", "all-linear"])
def test_packed_is_padded(targets: str) -> None:
    """Logits and every gradient, in rows whose distances fill all buckets."""
    assert_same(classifier(str(FOLDER), targets), rows_of([30, 1, 12, 29, 150], 30_000), [1, 0, 4, 2, 3])


@pytest.mark.parametrize("name", ["packed", "padded"])
def test_rows_in_batches_answer_as_alone(name: str) -> None:
    """Every logit to 1e-5: neighbours, relative positions and the order of rows leave no trace."""
    model = classifier(str(FOLDER), "query-value")
    lengths = np.random.default_rng(1).integers(4, 90, 22).tolist()
    rows = rows_of([*lengths, 200, 3], 30_000)
    engine = make_engine(model, "auto" if name == "packed" else name, FP32)
    assert engine.name == name
    batched = predict_logits(engine, rows, batch_size=8)
    model.eval()
    with torch.no_grad():
        ids = [torch.from_numpy(rows.tokens[row])[None].long() for row in range(len(rows))]
        alone = torch.cat([model(input_ids=row).logits for row in ids]).numpy()
    difference = np.abs(batched - alone).max()
    assert alone.std(axis=0).min() > 100 * LOGIT_TOLERANCE  # no row could stand for another
    assert difference <= LOGIT_TOLERANCE, f"logits differ by {difference:.1e}"
