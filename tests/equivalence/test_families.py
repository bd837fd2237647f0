"""Every supported family: an adapter saved here answers the same in another process, by our loader and by stock PEFT."""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import (
    AlbertConfig,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)  # fmt: skip
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from children import in_child
from newslora.config import LoraSettings
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.errors import BackboneError
from newslora.exporting.forms import merge, write_merged, write_onnx
from newslora.model.adapter import AdapterCard, load_adapter, read_card, save_adapter
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import (
    build_classifier,
    count_parameters,
    length_limit,
    random_classifier,
    trainable_parameters,
)
from newslora.model.engine import make_engine
from newslora.model.exported import load_config, load_merged
from newslora.model.families import FAMILIES, family_of
from newslora.model.inference import predict_logits
from newslora.model.onnx_engine import OnnxEngine
from newslora.runtime import Precision

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 66, "pad_token_id": 0,
}  # fmt: skip
TINY: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES),
    "xlm-roberta": XLMRobertaConfig(**SIZES),
    "distilbert": DistilBertConfig(vocab_size=60, dim=32, hidden_dim=64, n_layers=2, n_heads=2, pad_token_id=0),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    # relative attention as published DeBERTa-v3 has it, sharing its projections; position embeddings off
    "deberta-v2": DebertaV2Config(
        **SIZES,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        share_att_key=True,
    ),
    "mpnet": MPNetConfig(**SIZES),
    "albert": AlbertConfig(**SIZES, embedding_size=16),
    "camembert": CamembertConfig(**SIZES),
    "modernbert": ModernBertConfig(**SIZES, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2),
}
ROTARY = [name for name in ("nomic_bert", "gte", "jina_embeddings_v3") if name in CONFIG_MAPPING_NAMES]  # 5.17 has none
TINY |= {name: AutoConfig.for_model(name, **SIZES) for name in ROTARY}
# tracing takes some six seconds a family; NEWSLORA_ALL_FAMILIES=1 tries the others too, and clones in every test
ALL = bool(os.environ.get("NEWSLORA_ALL_FAMILIES"))
TRACED = tuple(TINY) if ALL else ("roberta", "deberta-v2")
# modules of another family's: RoBERTa's under other names, NomicBERT's with biases
CLONES = () if ALL else ("xlm-roberta", "camembert", "gte")
CASES = [
    (family, targets)
    for family in TINY
    for targets in ("query-value", "all-linear")
    if targets == "query-value" or family not in CLONES
]
EXPORT_TOLERANCE = (
    1e-5  # the gate's; LoRA inside the weight, and sums in another order, move an fp32 logit by some 1e-6
)
TOLERANCE = 1e-6  # same weights, same operations, another process: only a wrong weight can move a logit
LABELS = ("World", "Sports", "Business", "Sci/Tech")


def ids_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of different lengths, padded."""
    ids = torch.randint(3, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    ids[1, 7:] = 0
    ids[2, 4:] = 0
    return ids, (ids != 0).long()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, tuple[Path, torch.Tensor]]:
    """Adapters of all cases, as training would leave them: every trainable parameter moved; with their logits."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    root = tmp_path_factory.mktemp("families")
    adapters = {}
    ids, mask = ids_and_mask()
    for family, targets in CASES:
        torch.manual_seed(5)
        folder = root / family
        if not folder.exists():
            AutoModel.from_config(TINY[family]).save_pretrained(folder)
        lora = LoraSettings(rank=4, alpha=16, dropout=0.1, targets=targets)  # type: ignore[arg-type]
        backbone = resolve_backbone(str(folder))
        model = build_classifier(backbone, LABELS, lora, seed=3)
        with torch.no_grad():
            for _, parameter in trainable_parameters(model):
                parameter.add_(0.2 * torch.randn_like(parameter))
            logits = model.eval()(input_ids=ids, attention_mask=mask).logits
        card = AdapterCard(
            backbone=str(folder), backbone_kind="folder", backbone_revision=None,
            backbone_sha256=backbone.weights_sha256(), labels=LABELS, max_length=64, text_columns=("text",),
            lora=lora.model_dump(),
        )  # fmt: skip
        place = root / f"{family}.{targets}"
        save_adapter(model, tokenizer, card, place)
        adapters[f"{family}.{targets}"] = (place, logits)
    return adapters


@pytest.fixture(scope="module")
def reloaded(saved: dict[str, tuple[Path, torch.Tensor]]) -> dict[str, list[torch.Tensor]]:
    answers = in_child(logits_of, {name: folder for name, (folder, _) in saved.items()})
    return {name: [torch.from_numpy(logits) for logits in pair] for name, pair in answers.items()}


def logits_of(folders: dict[str, Path]) -> dict[str, list[np.ndarray]]:
    """For each adapter our loader's logits and stock PEFT's."""
    ids, mask = ids_and_mask()
    answers = {}
    for name, adapter in folders.items():
        torch.manual_seed(987)  # a fresh module left out of the adapter would differ from the saved one
        card = read_card(adapter)
        ours = load_adapter(adapter, card)
        config = AutoConfig.from_pretrained(adapter)
        base = AutoModelForSequenceClassification.from_pretrained(card.backbone, config=config)
        stock = PeftModel.from_pretrained(base, adapter).eval()
        with torch.no_grad():
            answers[name] = [one(input_ids=ids, attention_mask=mask).logits.numpy() for one in (ours, stock)]
        assert config.id2label == dict(enumerate(card.labels))
    return answers


def test_the_table_and_the_tests_cover_the_same_families() -> None:
    assert set(TINY) == {name for name in FAMILIES if name in CONFIG_MAPPING_NAMES}


@pytest.mark.parametrize(("family", "targets"), CASES)
def test_another_process_gives_the_same_logits(
    family: str, targets: str, saved: dict[str, tuple[Path, torch.Tensor]], reloaded: dict[str, list[torch.Tensor]]
) -> None:
    name = f"{family}.{targets}"
    wanted = saved[name][1]
    assert wanted.std() > 1e-3  # the rows differ, so equal logits mean something
    for who, got in zip(("newslora", "stock PEFT"), reloaded[name], strict=True):
        difference = (got - wanted).abs().max().item()
        assert difference <= TOLERANCE, f"{who} on {name}: logits differ by {difference:.2e}"


@pytest.mark.parametrize("family", TINY)
def test_only_lora_and_head_train_and_lora_stays_in_the_encoder(family: str, tmp_path: Path) -> None:
    AutoModel.from_config(TINY[family]).save_pretrained(tmp_path)
    for targets in ("query-value", "all-linear"):
        lora = LoraSettings(rank=2, targets=targets)  # type: ignore[arg-type]
        model = build_classifier(resolve_backbone(str(tmp_path)), LABELS, lora, seed=0)
        known = family_of(family)
        adapted = {name.split(".lora_A")[0] for name, _ in trainable_parameters(model) if ".lora_A." in name}
        linear = {
            name.removesuffix(".base_layer")
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and "layer" in name and "lora_" not in name
        }
        if targets == "all-linear":
            assert adapted == linear, "all-linear is every projection of the encoder's layers"
        else:
            layers = 1 if family == "albert" else 2  # ALBERT's layers share their weights
            assert adapted < linear
            assert len(adapted) == layers * len(known.query_value)
        for name, _ in trainable_parameters(model):
            in_head = any(part in known.head for part in name.split("."))
            assert in_head != (".lora_" in name), name


def test_roberta_base_has_the_reference_counts() -> None:
    from newslora.model.classifier import empty_classifier

    config = resolve_backbone("roberta-base").architecture()
    assert config is not None
    counts = count_parameters(empty_classifier(config, LABELS, LoraSettings()))
    assert (counts.lora, counts.head, counts.trainable) == (147_456, 593_668, 741_124)


def test_a_family_that_is_not_in_the_table_is_refused_with_those_that_are(tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=60).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"'gpt2' is not supported.*roberta"):
        build_classifier(resolve_backbone(str(tmp_path)), LABELS, LoraSettings(), seed=0)


def test_a_decoder_is_refused(tmp_path: Path) -> None:
    """The first token, which the head reads, would see no other: every text would get one answer."""
    AutoModel.from_config(RobertaConfig(**SIZES, is_decoder=True)).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"is a decoder \(is_decoder is true in its config.json\).*Use an encoder"):
        build_classifier(resolve_backbone(str(tmp_path)), LABELS, LoraSettings(), seed=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_backbone_saved_in_half_precision_computes_and_trains_in_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    stock = AutoModel.from_config(TINY["roberta"]).to(dtype)
    stock.save_pretrained(tmp_path)
    model = build_classifier(resolve_backbone(str(tmp_path)), LABELS, LoraSettings(), seed=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    config = resolve_backbone(str(tmp_path)).config()
    assert config.dtype == dtype
    assert {parameter.dtype for parameter in random_classifier(config, LABELS, LoraSettings()).parameters()} == {
        torch.float32
    }
    held = model.get_base_model().roberta.embeddings.word_embeddings.weight
    assert torch.equal(held, stock.embeddings.word_embeddings.weight.float())
    engine = make_engine(model, "auto", Precision("fp32", "test"))
    assert np.isfinite(predict_logits(engine, as_rows())).all()


def test_debertas_added_positions_limit_its_rows_and_relative_ones_do_not() -> None:
    for added, limit in ((True, 66), (False, 512)):
        config = DebertaV2Config(**SIZES, relative_attention=True, position_biased_input=added)
        assert length_limit(config, 512) == limit


@pytest.mark.parametrize("family", TINY)
def test_explanations_add_up_with_lora_in(family: str, saved: dict[str, tuple[Path, torch.Tensor]]) -> None:
    from newslora.explanation.attributions import explain
    from newslora.predict.classifier import Classifier

    classifier = Classifier.load(saved[f"{family}.query-value"][0])
    text = "striker scores twice as club wins cup final"
    one = explain(classifier, text)
    answer = classifier(text)  # from token ids, through the engine: what is explained is what is answered
    assert (one.label, one.probability) == (answer.label, pytest.approx(answer.probability, abs=1e-5))
    assert [word.text for word in one.words] == text.split()
    wanted = one.log_odds - one.baseline
    assert abs(wanted) > 1e-3
    assert sum(word.score for word in one.words) == pytest.approx(wanted, abs=0.01)
    lora = [p for name, p in classifier.padded().engine.model.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        for parameter in lora:
            parameter.zero_()
    without = explain(classifier, text, label=one.label)
    assert max(abs(a.score - b.score) for a, b in zip(one.words, without.words, strict=True)) > 1e-4


def as_rows() -> Rows:
    """`ids_and_mask` as rows of their own lengths."""
    ids, mask = ids_and_mask()
    tokens = [row[: int(kept.sum())].numpy().astype(np.int32) for row, kept in zip(ids, mask, strict=True)]
    return Rows(TokenTable.of(tokens), np.full(len(tokens), -1, dtype=np.int64), pad_id=0)


@pytest.mark.parametrize(("family", "targets"), CASES)
def test_merged_weights_give_the_same_logits_padded_and_packed(
    family: str, targets: str, saved: dict[str, tuple[Path, torch.Tensor]], tmp_path: Path
) -> None:
    place, wanted = saved[f"{family}.{targets}"]
    write_merged(merge(place, read_card(place)), tmp_path)
    model = load_merged(tmp_path, LABELS)
    assert not [name for name, _ in model.named_parameters() if "lora" in name or "base_layer" in name]
    for setting in ("padded", "auto"):
        engine = make_engine(model, setting, Precision("fp32", "test"))
        assert engine.name == "packed" or setting == "padded" or family in ("mpnet", "deberta-v2")
        difference = np.abs(predict_logits(engine, as_rows()) - wanted.numpy()).max()
        assert difference <= EXPORT_TOLERANCE, f"{engine.name}: {difference:.2e}"


def one_layer(family: str, folder: Path) -> Any:
    """A merged classifier whose tracing takes half as long; tests of exports trace one of two layers."""
    config = copy.deepcopy(TINY[family])
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    torch.manual_seed(5)
    AutoModel.from_config(config).save_pretrained(folder)
    model = build_classifier(resolve_backbone(str(folder)), LABELS, LoraSettings(), seed=3)
    with torch.no_grad():
        for _, parameter in trainable_parameters(model):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.merge_and_unload().eval()


@pytest.mark.parametrize("family", TRACED)
def test_onnx_gives_the_same_logits_at_any_batch_and_length(family: str, tmp_path: Path) -> None:
    merged = one_layer(family, tmp_path / "backbone")
    (tmp_path / "onnx").mkdir()
    engine = OnnxEngine(write_onnx(merged, tmp_path / "onnx"), load_config(tmp_path / "onnx", LABELS), "onnx")
    draw = torch.Generator().manual_seed(3)
    for rows, length in ((1, 1), (1, 2), (2, 8), (3, 12), (7, 60)):
        ids = torch.randint(3, 60, (rows, length), generator=draw)
        lengths = torch.randint(1, length + 1, (rows, 1), generator=draw)
        mask = (torch.arange(length) < lengths).long()
        ids = ids * mask
        with torch.no_grad():
            wanted = merged(input_ids=ids, attention_mask=mask).logits.numpy()
        (got,) = engine.model.session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        assert np.abs(got - wanted).max() <= EXPORT_TOLERANCE, (rows, length)
    ids, mask = ids_and_mask()
    with torch.no_grad():
        wanted = merged(input_ids=ids, attention_mask=mask).logits.numpy()
    assert wanted.std() > 1e-3
    assert np.abs(predict_logits(engine, as_rows()) - wanted).max() <= EXPORT_TOLERANCE
