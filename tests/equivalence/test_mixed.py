"""Many adapters in one batch against each adapter's own classifier, packed and padded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_families import TINY
from transformers import AutoModel

from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.errors import BackboneError, RunError
from newslora.model.adapter import read_card, same_backbone
from newslora.model.packed.mixed import MixedEncoder, head_modules, in_one_piece
from newslora.model.shared import AdapterEngine, adapted_modules, load_encoder, load_weights, shares
from newslora.predict.classifier import Classifier
from newslora.runtime import Precision

FP32, CPU = Precision("fp32", "test"), torch.device("cpu")
FAMILIES = ["bert", "roberta", "distilbert", "electra", "albert", "mpnet"]  # XLM-R is RoBERTa here
# fp32 sums in another order, over two layers: rounding of some 1e-7 of logits near 1
TOLERANCE = 1e-5
LENGTHS = [7, 30, 2, 12, 30, 29, 3, 18, 2, 44, 9, 9]
KINDS: dict[str, dict[str, Any]] = {
    "reference": {"labels": ("World", "Sports", "Business", "Sci/Tech")},
    "wide": {"labels": ("a", "b"), "lora": {"rank": 3, "alpha": 7.5, "targets": "all-linear"}},
    "several": {"labels": tuple("abcdefg"), "multi_label": True, "lora": {"rank": 8, "alpha": 8}},
    "windows": {"labels": ("yes", "no", "maybe"), "max_length": 12, "long_texts": "windows", "window_overlap": 2},
}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, make_adapter: Callable[..., Path]) -> dict[str, list[Path]]:
    root = tmp_path_factory.mktemp("mixed")
    found = {}
    for family in FAMILIES:
        torch.manual_seed(2)
        AutoModel.from_config(TINY[family]).save_pretrained(root / family)
        found[family] = [
            make_adapter(root / f"{family}.{kind}", root / family, seed=seed, **values)
            for seed, (kind, values) in enumerate(KINDS.items())
        ]
    return found


def opened(folders: list[Path]) -> tuple[MixedEncoder, list[Any]]:
    cards = [read_card(folder) for folder in folders]
    encoder = load_encoder(same_backbone(cards[0]), FP32, CPU)
    return encoder, [load_weights(encoder, folder, card) for folder, card in zip(folders, cards, strict=True)]


def rows_of(lengths: list[int]) -> Rows:
    generator = np.random.default_rng(1)
    ids = [generator.integers(5, 60, length).astype(np.int32) for length in lengths]
    return Rows(TokenTable.of(ids), np.full(len(lengths), -1), pad_id=0)


def assert_rows_equal(got: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for row, (one, other) in enumerate(zip(got, wanted, strict=True)):
        assert one.shape == other.shape
        off = (one - other).abs()
        assert off.max() <= TOLERANCE, f"row {row}: logits differ by {off.max():.1e}, mean {off.mean():.1e}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_batch_is_each_adapters_own_classifier(family: str, adapters: dict[str, list[Path]]) -> None:
    encoder, weights = opened(adapters[family])
    rows = rows_of(LENGTHS)
    whose = [0, 1, 2, 3, 0, 0, 1, 2, 2, 3, 1, 0]  # neighbours of one adapter and lone rows, in any order of length
    order = [5, 0, 11, 3, 2, 1, 8, 4, 7, 10, 9, 6]
    got = encoder.logits_of(encoder.collate(rows, order), [weights[whose[row]] for row in order])
    for name in ("packed", "padded"):
        owners = [Classifier.load(folder, engine=name) for folder in adapters[family]]
        assert {owner.engine.name for owner in owners} == {name}
        alone = [torch.from_numpy(owner.logits(rows)) for owner in owners]
        assert min((alone[a] - alone[b][:, :1]).abs().max() for a, b in ((0, 1), (1, 2), (2, 3))) > 0.01
        assert_rows_equal(got, [alone[whose[row]][row] for row in order])


def test_an_adapter_alone_is_an_engine_like_any_other(adapters: dict[str, list[Path]]) -> None:
    """Windows and all: what `Classifier` makes of it is what it makes of its own engine."""
    texts = ["striker scores twice as club wins cup final " * 4, "treaty", "army and rebels sign peace accord"]
    for folder in adapters["bert"]:
        encoder, (weights,) = opened([folder])
        own = Classifier.load(folder)
        shared = Classifier(AdapterEngine(encoder, weights), own.tokenizer, own.card, FP32, folder)
        rows = own.rows(texts)
        assert (rows.tokens.firsts is not None) == (own.card.overlap is not None)
        assert np.abs(shared.logits(rows) - own.logits(rows)).max() <= TOLERANCE
        assert [one.labels for one in shared(texts)] == [one.labels for one in own(texts)]
        batch = encoder.collate(rows, [2, 0, 1])
        assert (shared.engine.logits(batch) - torch.from_numpy(own.logits(rows))[[2, 0, 1]]).abs().max() <= TOLERANCE


def test_without_lora_the_head_stands_on_the_bare_encoder(adapters: dict[str, list[Path]]) -> None:
    encoder, (weights, *_) = opened(adapters["roberta"])
    batch = encoder.collate(rows_of(LENGTHS), range(len(LENGTHS)))
    engine = AdapterEngine(encoder, weights)
    own = Classifier.load(adapters["roberta"][0], engine="padded")
    with own.engine.model.disable_adapter():  # PEFT's own way; it takes the trained head off too
        assert not torch.equal(engine.without_lora().logits(batch), engine.logits(batch))
    for name, module in own.engine.model.named_modules():
        if name.endswith("lora_B.default"):
            module.weight.data.zero_()
    bare = torch.from_numpy(own.logits(rows_of(LENGTHS)))
    assert (engine.without_lora().logits(batch) - bare).abs().max() <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", ["query-value", "all-linear"])
def test_adapted_modules_are_those_peft_adapts(family: str, targets: str, adapters: dict[str, list[Path]]) -> None:
    from newslora.config import LoraSettings
    from newslora.model.classifier import build_classifier

    encoder, _ = opened(adapters[family][:1])
    settings = LoraSettings(targets=targets)  # type: ignore[arg-type]
    backbone = same_backbone(read_card(adapters[family][0]))
    peft = build_classifier(backbone, ("a", "b"), settings, 0).get_base_model()
    assert adapted_modules(encoder, settings) == sorted(n for n, m in peft.named_modules() if hasattr(m, "lora_A"))


def test_bf16_is_near_and_memory_is_the_adapters_own(adapters: dict[str, list[Path]]) -> None:
    folder = adapters["bert"][1]
    card = read_card(folder)
    encoder = load_encoder(same_backbone(card), Precision("bf16", "test"), CPU)
    weights = load_weights(encoder, folder, card)
    batch = encoder.collate(rows_of(LENGTHS), range(len(LENGTHS)))
    got = torch.stack(encoder.logits_of(batch, [weights] * len(LENGTHS)))
    wanted = torch.from_numpy(Classifier.load(folder, precision="bf16").logits(rows_of(LENGTHS)))
    scale = wanted.abs().max()
    assert (got - wanted).abs().max() <= 0.03 * scale  # 8 bits of mantissa, B scaled before or after it is rounded
    encoder, (weights,) = opened([folder])
    file = folder / "adapter_model.safetensors"
    assert weights.bytes <= file.stat().st_size  # the same numbers, without the file's header


def test_what_does_not_fit_is_refused(adapters: dict[str, list[Path]]) -> None:
    from dataclasses import replace

    from transformers import ModernBertForSequenceClassification

    encoder, _ = opened(adapters["bert"][:1])
    reference, wide = adapters["bert"][0], adapters["bert"][1]
    with pytest.raises(RunError, match=r"does not fit its backbone: \d+ tensors differ"):
        load_weights(encoder, wide, read_card(reference))
    card = read_card(reference)
    with pytest.raises(RunError, match=r"'classifier.weight' has another shape"):
        load_weights(encoder, reference, replace(card, labels=("a", "b")))
    with pytest.raises(RunError, match="another shape"):
        load_weights(encoder, reference, replace(card, lora=card.lora | {"rank": 2}))
    assert not shares(TINY["deberta-v2"], FP32, CPU)
    assert not shares(TINY["bert"], Precision("fp16", "test"), CPU)
    with pytest.raises(BackboneError, match="outside linear modules"):
        head_modules(ModernBertForSequenceClassification(TINY["modernbert"]))


def test_one_piece_of_memory_holds_the_same_tensors() -> None:
    tensors = [torch.randn(3, 5), torch.randn(4, 2).bfloat16(), torch.randn(7), torch.randn(2, 2, 2).bfloat16()]
    placed = in_one_piece(tensors)
    assert all(torch.equal(*pair) for pair in zip(placed, tensors, strict=True))
    assert [one.dtype for one in placed] == [one.dtype for one in tensors]
    assert len({one.untyped_storage().data_ptr() for one in placed}) == 2  # a block a type
    placed[0].add_(1)  # a block is memory of this process alone, as any tensor
    assert not torch.equal(placed[0], tensors[0])
    assert torch.equal(placed[2], tensors[2])
