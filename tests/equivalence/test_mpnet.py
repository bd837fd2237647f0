"""MPNet's pretrained weights through the padded path, rows bucketed by length, against the stock forward a row at a time."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_packed import LOGIT_TOLERANCE, classifier, rows_of

from newslora.model.engine import make_engine
from newslora.model.inference import predict_logits
from newslora.runtime import Precision

# all-mpnet-base-v2 is 438 MB and never fetched by a test: NEWSLORA_MPNET names its folder
FOLDER = Path(os.environ.get("NEWSLORA_MPNET") or ".no-mpnet")
FP32 = Precision("fp32", "test")


@pytest.mark.skipif(
    not (FOLDER / "model.safetensors").is_file(), reason="NEWSLORA_MPNET names no folder of its weights"
)
def test_rows_in_padded_batches_answer_as_alone() -> None:
    """Every logit to 1e-5: padding, relative positions and the order of rows leave no trace."""
    model = classifier(str(FOLDER), "query-value")
    lengths = np.random.default_rng(1).integers(4, 90, 22).tolist()
    rows = rows_of([*lengths, 200, 3], 30_000)
    engine = make_engine(model, "auto", FP32)
    assert engine.name == "padded"
    batched = predict_logits(engine, rows, batch_size=8)
    model.eval()
    with torch.no_grad():
        ids = [torch.from_numpy(rows.tokens[row])[None].long() for row in range(len(rows))]
        alone = torch.cat([model(input_ids=row).logits for row in ids]).numpy()
    difference = np.abs(batched - alone).max()
    assert alone.std(axis=0).min() > 100 * LOGIT_TOLERANCE  # no row could stand for another
    assert difference <= LOGIT_TOLERANCE, f"logits differ by {difference:.1e}"
