"""What layers drop in the packed engine, one kind of dropout at a time, beside the padded stock forward."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from test_families import ROTARY, TINY
from test_packed import DISTINCT, FP32, LOGIT_TOLERANCE, assert_same_distribution, classifier, rows_of, saved

from newslora.config import ModelSettings
from newslora.model.engine import PaddedEngine, make_engine

_OF_BERT = ("attention.self.dropout", "attention.output.dropout", "output.dropout")
_OF_ROTARY = ("self_attn.attention_dropout", "post_attention_dropout", "post_mlp_dropout")
# family -> what its layers drop, by the name of the stock module (under rotary positions the attention holds a number)
OF_LAYERS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _OF_BERT),
    "distilbert": ("attention.dropout", "ffn.dropout"),
    "mpnet": ("attention.attn.dropout", "attention.dropout", "output.dropout"),
    "albert": ("attention.attention_dropout", "attention.output_dropout"),
    "nomic_bert": _OF_ROTARY,
    "gte": (*_OF_ROTARY, "mlp.dropout"),
    "jina_embeddings_v3": _OF_ROTARY,
    "modernbert": ("attn.attention_dropout", "attn.out_drop", "mlp.drop"),
}


@pytest.mark.parametrize(
    ("family", "dropout"),
    [(family, one) for family in dict.fromkeys([*DISTINCT, *ROTARY]) for one in OF_LAYERS[family]],
)
def test_each_dropout_of_a_layer_has_the_stock_distribution(family: str, dropout: str, tmp_path: Path) -> None:
    """Each alone: what the embeddings and the head drop moves logits much further than all that the layers do.

    Right code gave 3 standard errors at most, half the rate 10 at least.
    """
    dropped = ModelSettings(hidden_dropout=0.3, attention_dropout=0.3)
    model = classifier(saved(TINY[family], tmp_path), "query-value", dropped)
    drop_only(model, dropout)
    rows, copies, draws = rows_of([11, 4, 20], 60), 32, 20
    samples = []
    for engine in (PaddedEngine(model, FP32), make_engine(model, "packed", FP32)):
        batch = engine.collate(rows, [0, 1, 2] * copies)
        with torch.no_grad():
            seen = [engine.logits(batch, (9, draw)).view(copies, -1) for draw in range(draws)]
        samples.append(torch.cat(seen))
    assert samples[0].std(0).min() > LOGIT_TOLERANCE  # more than rounding: something was dropped
    assert_same_distribution(*samples)


def drop_only(model: Any, dropout: str) -> None:
    """Turn off all dropout but one of `OF_LAYERS`."""
    for name, module in model.named_modules():
        place = re.sub(r".*\.\d+\.", "", name)  # in its layer
        if isinstance(module, torch.nn.Dropout) and place != dropout:
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float) and f"{place}.attention_dropout" != dropout:
            module.attention_dropout = 0.0
