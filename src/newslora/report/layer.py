"""One encoder layer as the architecture figure needs it: its matrices, which of them have LoRA, and the counts in words."""

from dataclasses import dataclass
from typing import Any

TIMES = "\N{THIN SPACE}\N{MULTIPLICATION SIGN}\N{THIN SPACE}"


@dataclass(frozen=True, slots=True)
class Names:
    """What a family calls the projections of a layer, as suffixes of module names."""

    inputs: tuple[str, ...]  # query, key and value; one name where one matrix holds all three
    output: str
    up: str
    down: str
    gated: bool = False  # one half of what is raised gates the other; `up` makes both
    gate: str | None = None  # unless this does the one
    norm_first: bool = False
    pooled: str = "First token"


_BERT = Names(("query", "key", "value"), "attention.output.dense", "intermediate.dense", "output.dense")
_ROTARY = ("q_proj", "k_proj", "v_proj")
_GATED = Names(_ROTARY, "o_proj", "up_proj", "down_proj", gated=True, gate="gate_proj")

# model_type -> names; a test holds it to newslora.model.families
NAMES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": Names(("q_lin", "k_lin", "v_lin"), "out_lin", "lin1", "lin2"),
    "deberta-v2": Names(
        ("query_proj", "key_proj", "value_proj"), "attention.output.dense", "intermediate.dense", "output.dense"
    ),
    "mpnet": Names(("attn.q", "attn.k", "attn.v"), "attn.o", "intermediate.dense", "output.dense"),
    "albert": Names(("query", "key", "value"), "attention.dense", "ffn", "ffn_output"),
    # a checkpoint's configuration says whether the first token or the mean is read
    "modernbert": Names(
        ("attn.Wqkv",), "attn.Wo", "mlp.Wi", "mlp.Wo", gated=True, norm_first=True, pooled="First token or mean"
    ),
    "nomic_bert": _GATED,
    "gte": _GATED,
    "jina_embeddings_v3": Names(_ROTARY, "o_proj", "fc1", "fc2"),
}


@dataclass(frozen=True, slots=True)
class Projection:
    """One weight matrix of a layer."""

    name: str
    rows: int  # out
    columns: int  # in
    rank: int | None  # None: not adapted

    @property
    def weights(self) -> int:
        return self.rows * self.columns

    @property
    def lora(self) -> int:
        """Trained parameters beside it."""
        return (self.rank or 0) * (self.rows + self.columns)


@dataclass(frozen=True, slots=True)
class Layer:
    """The matrices of one encoder layer, in the order text flows through them."""

    names: Names
    inputs: tuple[Projection, ...]
    output: Projection
    ups: tuple[Projection, ...]  # the gate's, where it has a matrix of its own, and the one that is gated
    down: Projection

    @property
    def projections(self) -> tuple[Projection, ...]:
        return (*self.inputs, self.output, *self.ups, self.down)


def layer_of(model: dict[str, Any]) -> Layer:
    """The manifest's facts -> one layer. Adapted names may say more than ours: 'attention.self.query'."""
    names = NAMES[model["model_type"]]
    hidden, inner = model["hidden_size"], model["intermediate_size"]
    adapted = [item["name"] for item in model["adapted"]]

    def projection(name: str, rows: int, columns: int) -> Projection:
        has = any(one == name or one.endswith(f".{name}") for one in adapted)
        return Projection(name, rows, columns, model["rank"] if has else None)

    wide = hidden if len(names.inputs) == 3 else 3 * hidden
    raised = 2 * inner if names.gated and not names.gate else inner
    return Layer(
        names,
        tuple(projection(name, wide, hidden) for name in names.inputs),
        projection(names.output, hidden, hidden),
        tuple(projection(name, raised, hidden) for name in (names.gate, names.up) if name),
        projection(names.down, hidden, inner),
    )


def is_shared(model: dict[str, Any]) -> bool:
    """Whether one layer's weights serve every depth (ALBERT): then its LoRA exists once."""
    adapted = sum(projection.rank is not None for projection in layer_of(model).projections)
    return bool(model["layers"] > 1 and model["adapted_modules"] == adapted)


def head_modules(model: dict[str, Any]) -> list[tuple[str, list[int], int]]:
    """(module, weight shape, parameters with bias) of each trained module above the encoder."""
    modules: dict[str, tuple[list[int], int]] = {}
    for item in model["head"]:
        name = item["name"].rpartition(".")[0]
        shape, count = modules.get(name, ([], 0))
        modules[name] = (max(shape, list(item["shape"]), key=len), count + item["parameters"])
    return [(name, shape, count) for name, (shape, count) in modules.items()]


def share(model: dict[str, Any]) -> str:
    """'741,124 of 124,796,164 parameters trained (0.59 %)'."""
    counts = model["parameters"]
    return (
        f"{counts['trainable']:,} of {counts['total']:,} parameters trained "
        f"({100 * counts['trainable'] / counts['total']:.2f}\N{NO-BREAK SPACE}%)"
    )


def caption(model: dict[str, Any]) -> str:
    """The figure in words, for readers and for screen readers."""
    counts = model["parameters"]
    adapted = [projection.name for projection in layer_of(model).projections if projection.rank is not None]
    where = "in the one layer that serves every depth" if is_shared(model) else f"in each of {model['layers']} layers"
    return (
        f"{model['class']} as built: {share(model)}. {counts['lora']:,} of them are low-rank branches "
        f"(rank {model['rank']}, alpha {model['alpha']:g}, dropout {model['dropout']:g}) beside {_listed(adapted)} "
        f"{where}, {model['adapted_modules']} modules in all; {counts['head']:,} are the head. The other "
        f"{counts['embeddings'] + counts['encoder']:,} stay as pretrained. Matrices are given as output{TIMES}input; "
        "a layer's counts leave out biases and norms."
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
