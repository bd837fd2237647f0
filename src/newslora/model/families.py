"""What LoRA needs to know of each encoder family: its projections and the modules a classifier adds.

PEFT's own table covers a few of these families; for the others it raises, or (DeBERTa-v2) leaves a freshly
initialised module out of the adapter, which then answers differently after loading. `head` names every module of the
stock `*ForSequenceClassification` above the encoder: all of them are trained and saved. BERT's and ALBERT's pooler
comes with the checkpoint but plays the part of RoBERTa's dense layer, so it is trained too.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from newslora.errors import BackboneError, near

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class Family:
    """Module names are suffixes, as PEFT matches them."""

    query_value: tuple[str, ...]
    all_linear: tuple[str, ...]
    head: tuple[str, ...]
    position_offset: Literal["none", "after padding", "two"] = "none"  # see `first_position`
    positions_limit_length: bool = True  # learned absolute positions; False: as the configuration says
    hidden_dropout: tuple[str, ...] = ("hidden_dropout_prob",)  # names in the configuration
    attention_dropout: str = "attention_probs_dropout_prob"

    def targets(self, setting: str) -> tuple[str, ...]:
        """`lora.targets` -> module names."""
        return self.query_value if setting == "query-value" else self.all_linear

    def first_position(self, config: "PretrainedConfig") -> int:
        """Place of a row's first token among the position embeddings; those before it are never used.

        RoBERTa counts on from its padding id, MPNet from a fixed two, whatever its padding id is.
        """
        return {"none": 0, "after padding": (config.pad_token_id or 0) + 1, "two": 2}[self.position_offset]


_BERT_LINEAR = ("query", "key", "value", "output.dense", "intermediate.dense")
_ROBERTA = Family(("query", "value"), _BERT_LINEAR, ("classifier",), position_offset="after padding")
_ROTARY_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_ROTARY_GATED = (*_ROTARY_ATTENTION, "gate_proj", "up_proj", "down_proj")

# model_type of the configuration -> family
FAMILIES: dict[str, Family] = {
    "bert": Family(("query", "value"), _BERT_LINEAR, ("pooler", "classifier")),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Family(("query", "value"), _BERT_LINEAR, ("classifier",)),
    "distilbert": Family(
        ("q_lin", "v_lin"),
        ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
        ("pre_classifier", "classifier"),
        hidden_dropout=("dropout",),
        attention_dropout="attention_dropout",
    ),
    # relative positions: the embeddings' size is no limit where they are not added (`position_biased_input`), as in v3
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
        position_offset="two",
    ),
    # one layer's weights are used at every depth, so its LoRA is too
    "albert": Family(
        ("query", "value"),
        ("query", "key", "value", "attention.dense", "ffn", "ffn_output"),
        ("pooler", "classifier"),
    ),
    # query, key and value are one matrix here: adapting query and value adapts key with them
    "modernbert": Family(
        ("attn.Wqkv",),
        ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"),
        ("head", "classifier"),
        hidden_dropout=("embedding_dropout", "mlp_dropout"),
        attention_dropout="attention_dropout",
    ),
    "nomic_bert": Family(("q_proj", "v_proj"), _ROTARY_GATED, ("pooler", "classifier")),
    "gte": Family(("q_proj", "v_proj"), _ROTARY_GATED, ("pooler", "classifier")),
    "jina_embeddings_v3": Family(("q_proj", "v_proj"), (*_ROTARY_ATTENTION, "fc1", "fc2"), ("classifier",)),
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
