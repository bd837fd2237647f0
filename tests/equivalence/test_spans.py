"""Spans and their kernels against groups: every logit, every gradient; and the real kernel where there is a GPU."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_families import TINY
from test_packed import (
    BF16,
    DISTINCT,
    FP32,
    classifier,
    logits_and_gradients,
    rows_of,
)
from torch.nn.functional import cross_entropy
from transformers import AutoModel, ModernBertConfig

from newslora.config import ModelSettings
from newslora.model.engine import make_engine
from newslora.model.inference import predict_logits
from newslora.model.packed.grouped import Groups
from newslora.model.packed.segments import SegmentedBatch, collate_for
from newslora.model.packed.spans import STEP, Spans, spare_bucket
from newslora.model.packed.varlen import EVERYWHERE, Call, Flash, RowByRow, _same_order, kernel_for
from newslora.runtime import Precision

TOLERANCE = 1e-5  # fp32, the same sums in another order
LENGTHS = [7, 30, 1, 12, 30, 29, 3, 18, 2]
SPANNED = [name for name in DISTINCT if name != "mpnet"]  # kernels take no bias
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("spans")
    windows = TINY["modernbert"].to_dict() | {
        "num_hidden_layers": 4, "local_attention": 8, "classifier_pooling": "mean",
    }  # fmt: skip
    windows.pop("layer_types", None)
    found = {}
    for name in SPANNED:
        torch.manual_seed(2)
        config = ModernBertConfig(**windows) if name == "modernbert" else TINY[name]
        AutoModel.from_config(config).save_pretrained(root / name)
        found[name] = str(root / name)
    return found


def assert_like_groups(model: Any, lengths: list[int], precision: Precision = FP32) -> None:
    rows, chosen = rows_of(lengths, 60), list(range(len(lengths)))
    groups = make_engine(model, "packed", precision, trains=True)
    spans = make_engine(model, "packed", precision, trains=True, kernel=RowByRow())
    assert isinstance(groups.collate(rows, chosen).segments, Groups)  # type: ignore[union-attr]
    assert isinstance(spans.collate(rows, chosen).segments, Spans)  # type: ignore[union-attr]
    wanted, wanted_gradients = logits_and_gradients(groups, rows, chosen)
    got, gradients = logits_and_gradients(spans, rows, chosen)
    assert wanted.std() > 1e-3
    assert (got - wanted).abs().max() <= TOLERANCE
    for name, gradient in gradients.items():
        scale = wanted_gradients[name].abs().max()
        assert scale > 0, name
        assert (gradient - wanted_gradients[name]).abs().max() <= TOLERANCE * max(scale, 1.0), name


@pytest.mark.parametrize("targets", ["query-value", "all-linear"])
@pytest.mark.parametrize("family", SPANNED)
def test_spans_are_groups(family: str, targets: str, folders: dict[str, str]) -> None:
    """ModernBERT's local attention sees 4 tokens each way here, in rows of up to 60, and its head takes rows' means."""
    assert_like_groups(classifier(folders[family], targets), [*LENGTHS, 60])


@pytest.mark.parametrize("lengths", [[STEP], [STEP - 2, 2], [3], [STEP - 1]], ids=str)
def test_filler_of_every_size_changes_nothing(lengths: list[int], tmp_path: Any) -> None:
    """T is a whole step longer than the rows, one token longer, and all but one token longer."""
    config = copy.deepcopy(TINY["roberta"])
    config.max_position_embeddings = 2 * STEP
    AutoModel.from_config(config).save_pretrained(tmp_path)
    assert_like_groups(classifier(str(tmp_path), "query-value"), lengths)


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_prediction_on_spans_is_prediction_on_groups(family: str, folders: dict[str, str]) -> None:
    model, rows = classifier(folders[family], "query-value"), rows_of(LENGTHS, 60)
    wanted = predict_logits(make_engine(model, "packed", FP32), rows, batch_tokens=50)
    got = predict_logits(make_engine(model, "packed", FP32, kernel=RowByRow()), rows, batch_tokens=50)
    assert np.abs(got - wanted).max() <= TOLERANCE


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_dropout_on_spans_has_the_distribution_of_groups(family: str, folders: dict[str, str]) -> None:
    """Attention's own dropout, over many draws: the same mean and spread, within 5 standard errors."""
    model = classifier(folders[family], "query-value", ModelSettings(hidden_dropout=0.0, attention_dropout=0.3))
    rows, draws, samples = rows_of([11, 4, 20], 60), 100, []
    for kernel in (None, RowByRow()):
        engine = make_engine(model, "packed", FP32, trains=True, kernel=kernel)
        batch = engine.collate(rows, [0, 1, 2])
        seen = []
        for draw in range(draws):
            model.zero_grad()
            logits = engine.logits(batch, (9, draw))
            cross_entropy(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
            gradient = next(p.grad for n, p in model.named_parameters() if "lora_A" in n and p.requires_grad)
            seen.append(torch.cat([logits.detach().flatten(), gradient.flatten()[:20]]))
        samples.append(torch.stack(seen).double())
    a, b = samples
    assert (a.std(0) > 0).all()
    assert ((a.mean(0) - b.mean(0)).abs() < 5 * ((a.var(0) + b.var(0)) / draws).sqrt()).all()
    fourth = [(x - x.mean(0)).pow(4).mean(0) - x.var(0) ** 2 for x in samples]
    assert ((a.var(0) - b.var(0)).abs() < 5 * ((fourth[0] + fourth[1]) / draws).sqrt()).all()


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_spans_cover_every_token_once(lengths: list[int]) -> None:
    lengths = sorted(lengths, reverse=True)
    total = spare_bucket(sum(lengths))
    spans = Spans.of(lengths, total, RowByRow())
    assert total % STEP == 0
    assert 0 < total - sum(lengths) <= STEP
    sizes = [*lengths, total - sum(lengths)]
    assert spans.borders.diff().tolist() == sizes
    assert spans.firsts.tolist() == (np.cumsum(sizes) - sizes).tolist()
    assert spans.longest % STEP == 0
    assert max(sizes) <= spans.longest < max(sizes) + STEP
    owners, counts = spans.owners(total)
    assert owners.tolist() == np.repeat(np.arange(len(sizes)), sizes).tolist()
    assert counts.tolist() == sizes


@pytest.mark.parametrize("kernel", [None, RowByRow()], ids=["groups", "spans"])
def test_a_batch_with_its_segments_goes_through_processes(kernel: Any) -> None:
    collate = collate_for(torch.device("cpu"), torch.float32, 8, kernel)
    batch = pickle.loads(pickle.dumps(collate))(rows_of(LENGTHS, 60), [0, 4, 2])  # noqa: S301
    again = pickle.loads(pickle.dumps(batch)).to(torch.device("cpu"))  # noqa: S301
    assert isinstance(again, SegmentedBatch)
    assert torch.equal(again.segments.firsts, batch.segments.firsts)
    total = len(batch.packed.input_ids)
    for got, wanted in zip(again.segments.owners(total), batch.segments.owners(total), strict=True):
        assert torch.equal(got, wanted)


def test_where_there_is_no_kernel_rows_are_grouped() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert kernel_for(torch.device("cpu"), dtype, 64) is None
    assert kernel_for(torch.device("cuda"), torch.float32, 64) is None
    assert kernel_for(torch.device("cuda"), torch.bfloat16, 12) is None  # flash attention wants a multiple of 8
    assert kernel_for(torch.device("cuda"), torch.bfloat16, 264) is None


def test_flash_is_called_as_torch_declares_it() -> None:
    """The two operators' declarations hold every argument that is passed, in its place, in whatever torch this is."""
    forward = torch.ops.aten._flash_attention_forward.default._schema.arguments
    backward = torch.ops.aten._flash_attention_backward.default._schema.arguments
    assert [a.name for a in forward[:10]] == [
        "query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal", "return_debug_mask",
    ]  # fmt: skip
    assert [a.name for a in backward[:14]] == [
        "grad_out", "query", "key", "value", "out", "logsumexp", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p",
        "is_causal", "rng_state", "unused",
    ]  # fmt: skip
    for arguments in (forward, backward):
        by_name = {a.name for a in arguments if a.kwarg_only}
        assert {"scale", "window_size_left", "window_size_right"} <= by_name


def test_one_order_of_sums_is_asked_for_and_given_back() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with _same_order():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


@needs_gpu
@pytest.mark.parametrize("reach", [EVERYWHERE, 16])
def test_flash_is_the_plain_kernel(reach: int) -> None:
    """bf16 keeps 8 bits: within 2 % of the largest number, forward and backward."""
    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(1)
    borders = torch.tensor([0, 5, 140, 141, 256], dtype=torch.int32, device=device)
    q, k, v, d_out = torch.randn(4, 256, 4, 64, device=device, generator=generator).bfloat16()
    call = Call(borders, borders, 256, 256, scale=0.125, reach=reach)
    out, saved = Flash().forward(q, k, v, call)
    wanted, held = RowByRow().forward(q.float(), k.float(), v.float(), call)
    assert (out.float() - wanted).abs().max() <= 0.02 * wanted.abs().max()
    gradients = Flash().backward(d_out, q, k, v, saved, call)
    exact = RowByRow().backward(d_out.float(), q.float(), k.float(), v.float(), held, call)
    for got, right in zip(gradients, exact, strict=True):
        assert (got.float() - right).abs().max() <= 0.02 * right.abs().max()


@needs_gpu
@pytest.mark.parametrize("family", SPANNED)
def test_flash_in_whole_encoders(family: str, folders: dict[str, str]) -> None:
    """bf16 against the same engine's plain kernel: heads of 16 numbers, so rounding is all that differs."""
    model = classifier(folders[family], "query-value").to("cuda")
    rows, chosen = rows_of(LENGTHS, 60), list(range(len(LENGTHS)))
    answers = []
    for kernel in (None, RowByRow()):
        engine = make_engine(model, "packed", BF16, trains=True, kernel=kernel)
        with torch.no_grad():
            answers.append(engine.logits(engine.collate(rows, chosen).to(engine.device)).float())
    assert (answers[0] - answers[1]).abs().max() <= 0.02 * answers[1].abs().max()
