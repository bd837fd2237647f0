"""What LoRA needs to know of each encoder family: its projections and the modules a classifier adds.

PEFT's own table covers a few of these families; for the others it raises, or (DeBERTa-v2) leaves a freshly
initialised module out of the adapter, which then answers differently after loading. `head` names every module of the
stock `*ForSequenceClassification` above the encoder: all of them are trained and saved. BERT's and ALBERT's pooler
comes with the checkpoint but plays the part of RoBERTa's dense layer, so it is trained too.
"""

from dataclasses import dataclass

from newslora.errors import BackboneError, near


@dataclass(frozen=True, slots=True)
class Family:
    """Module names are suffixes, as PEFT matches them."""

    query_value: tuple[str, ...]
    all_linear: tuple[str, ...]
    head: tuple[str, ...]
    first_position: int = 0  # position embeddings before this one are never used
    positions_limit_length: bool = True  # learned absolute positions; False where any length runs

    def targets(self, setting: str) -> tuple[str, ...]:
        """`lora.targets` -> module names."""
        return self.query_value if setting == "query-value" else self.all_linear


_BERT_LINEAR = ("query", "key", "value", "output.dense", "intermediate.dense")
_ROBERTA = Family(("query", "value"), _BERT_LINEAR, ("classifier",), first_position=2)

# model_type of the configuration -> family
FAMILIES: dict[str, Family] = {
    "bert": Family(("query", "value"), _BERT_LINEAR, ("pooler", "classifier")),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "electra": Family(("query", "value"), _BERT_LINEAR, ("classifier",)),
    "distilbert": Family(
        ("q_lin", "v_lin"), ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"), ("pre_classifier", "classifier")
    ),
    # relative positions: the embeddings' size is no limit, and many checkpoints have none
    "deberta-v2": Family(
        ("query_proj", "value_proj"),
        ("query_proj", "key_proj", "value_proj", "output.dense", "intermediate.dense"),
        ("pooler", "classifier"),
        positions_limit_length=False,
    ),
    "mpnet": Family(
        ("attn.q", "attn.v"),
        ("attn.q", "attn.k", "attn.v", "attn.o", "output.dense", "intermediate.dense"),
        ("classifier",),
        first_position=2,
    ),
    # one layer's weights are used at every depth, so its LoRA is too
    "albert": Family(
        ("query", "value"),
        ("query", "key", "value", "attention.dense", "ffn", "ffn_output"),
        ("pooler", "classifier"),
    ),
    # query, key and value are one matrix here: adapting query and value adapts key with them
    "modernbert": Family(("attn.Wqkv",), ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"), ("head", "classifier")),
}


def family_of(model_type: str) -> Family:
    """The family of a configuration's `model_type`.

    Raises:
        BackboneError: a family the table does not have.
    """
    if model_type not in FAMILIES:
        raise BackboneError(
            f"The encoder family '{model_type}' is not supported.{near(model_type, FAMILIES)} "
            f"Supported: {', '.join(sorted(FAMILIES))}. A new one is a line in newslora/model/families.py."
        )
    return FAMILIES[model_type]
