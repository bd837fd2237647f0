"""Long rows as windows that overlap: cut by the tokenizer, kept in the cache, and one row again wherever rows count."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from newslora.config import load_recipe
from newslora.data import tokens
from newslora.data.batches import Rows, sorted_batches
from newslora.data.packing import pack
from newslora.data.tokens import TokenTable, tokenize
from newslora.errors import SettingsError
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import build_classifier
from newslora.model.engine import make_engine
from newslora.model.inference import predict_logits
from newslora.plan import make_plan
from newslora.runtime import Precision

WORDS = [
    "army",
    "rebels",
    "sign",
    "peace",
    "accord",
    "striker",
    "scores",
    "club",
    "wins",
    "cup",
    "final",
    "sprinter",
    "record",
    "games",
    "minister",
    "treaty",
]
TEXTS = ["striker scores", " ".join(WORDS), "", " ".join(WORDS[:7]), "club wins"]
FP32 = Precision("fp32", "test")
FIELDS = ("input_ids", "attention_mask", "labels")


@pytest.fixture(scope="module")
def tokenizer(tiny_bert: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bert)


def rows_of(tokenizer: Any, overlap: int | None = 2, max_length: int = 8) -> Rows:
    table = tokenize(tokenizer, TEXTS, max_length, overlap=overlap)
    return Rows(table, np.arange(len(TEXTS)) % 2, pad_id=0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=50).map(" ".join), min_size=1, max_size=5),
    max_length=st.integers(8, 40),
    data=st.data(),
)
def test_windows_cover_every_token_in_order_with_the_stated_overlap(
    texts: list[str], max_length: int, data: st.DataObject, tokenizer: Any
) -> None:
    overlap = data.draw(st.integers(0, max_length // 2))
    table = tokenize(tokenizer, texts, max_length, overlap=overlap)
    assert len(table) == len(texts)
    for row, text in enumerate(texts):
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        numbers, _ = table.windows_of(np.array([row]))
        found = [table.windows[number].tolist() for number in numbers]
        assert all(one[0] == tokenizer.cls_token_id and one[-1] == tokenizer.sep_token_id for one in found)
        assert all(len(one) == max_length for one in found[:-1])
        assert len(found[-1]) <= max_length
        covered = found[0][1:-1]
        for one in found[1:]:
            assert one[1 : 1 + overlap] == covered[len(covered) - overlap :]
            assert len(one) - 2 > overlap  # it brings something new
            covered += one[1 + overlap : -1]
        assert covered == whole
        assert table[row].tolist() == [token for one in found for token in one]
    sizes = [len(table[row]) for row in range(len(texts))]
    assert table.lengths.tolist() == table.lengths_of(np.arange(len(texts))).tolist() == sizes


def test_rows_that_fit_give_the_table_and_the_batches_that_cutting_gives(tokenizer: Any) -> None:
    cut, windowed = rows_of(tokenizer, None, 64), rows_of(tokenizer, 8, 64)
    assert windowed.tokens.firsts is None
    assert np.array_equal(cut.tokens.ids, windowed.tokens.ids)
    assert np.array_equal(cut.tokens.offsets, windowed.tokens.offsets)


def test_a_batch_of_short_rows_is_the_one_that_cutting_gives_though_others_are_long(tokenizer: Any) -> None:
    cut, windowed = rows_of(tokenizer, None), rows_of(tokenizer)
    assert windowed.tokens.firsts is not None
    short = [4, 0, 2]
    for wanted, got in ((cut.batch(short), windowed.batch(short)), (pack(cut, short), pack(windowed, short))):
        assert got.owners is None
        fields = FIELDS if hasattr(wanted, "attention_mask") else ("input_ids", "positions", "order", "labels")
        assert all(getattr(wanted, name).tolist() == getattr(got, name).tolist() for name in fields)


def test_a_part_of_a_table_is_those_rows_with_their_windows(tokenizer: Any) -> None:
    table = rows_of(tokenizer).tokens  # windows: 1, 4, 1, 2, 1
    for start in range(len(table)):
        for stop in range(start + 1, len(table) + 1):
            part, places = table.part(start, stop), np.arange(start, stop)
            assert part.lengths.tolist() == table.lengths[start:stop].tolist()
            numbers, owners = part.windows_of(np.arange(stop - start))
            wanted, wanted_owners = table.windows_of(places)
            assert [part.windows[n].tolist() for n in numbers] == [table.windows[n].tolist() for n in wanted]
            assert (owners is None) == (wanted_owners is None)
            assert owners is None or wanted_owners is None or owners.tolist() == wanted_owners.tolist()


def test_batches_say_whose_each_window_is(tokenizer: Any) -> None:
    rows = rows_of(tokenizer)  # windows of 6 words that share 2: 1, 4, 1, 2, 1
    assert rows.tokens.firsts is not None
    assert np.diff(rows.tokens.firsts).tolist() == [1, 4, 1, 2, 1]
    chosen = [3, 0, 1]
    padded, packed = rows.batch(chosen), pack(rows, chosen)
    assert padded.owners is not None
    assert packed.owners is not None
    assert padded.owners.tolist() == packed.owners.tolist() == [0, 0, 1, 2, 2, 2, 2]
    assert padded.labels.tolist() == packed.labels.tolist() == [1, 0, 1]
    assert len(padded) == len(packed) == 3
    ends = np.cumsum(packed.lengths)
    for window, place in enumerate(packed.order.tolist()):
        size = int(padded.attention_mask[window].sum())
        start = int(ends[place]) - size
        assert packed.input_ids[start : start + size].tolist() == padded.input_ids[window, :size].tolist()


def test_a_cached_table_comes_back_with_its_windows(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [tokenize(tokenizer, TEXTS, 8, tmp_path, overlap) for overlap in (None, 2, 3)]
    assert len(list((tmp_path / "tokens").iterdir())) == 3  # cut, and each overlap, apart

    def fail(*arguments: Any) -> TokenTable:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(tokens, "_tokenize", fail)
    for table, overlap in zip(made, (None, 2, 3), strict=True):
        again = tokenize(tokenizer, TEXTS, 8, tmp_path, overlap)
        assert [again[row].tolist() for row in range(5)] == [table[row].tolist() for row in range(5)]
        starts = [None if one.firsts is None else one.firsts.tolist() for one in (again, table)]
        assert starts[0] == starts[1]
        assert (starts[0] is None) == (overlap is None)


def test_windows_over_several_calls_of_the_tokenizer_keep_their_rows(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows_of(tokenizer).tokens
    monkeypatch.setattr(tokens, "ROWS_A_CALL", 2)
    parts = rows_of(tokenizer).tokens
    assert whole.firsts is not None
    assert parts.firsts is not None
    assert whole.firsts.tolist() == parts.firsts.tolist()
    assert whole.offsets.tolist() == parts.offsets.tolist()


def test_windows_that_share_more_than_half_or_have_no_fast_tokenizer_are_refused(tokenizer: Any) -> None:
    with pytest.raises(SettingsError, match=r"window_overlap is 5, and windows hold 8 tokens: at most .* 4"):
        tokenize(tokenizer, TEXTS, 8, overlap=5)

    class Slow:
        is_fast = False

    with pytest.raises(SettingsError, match=r"Slow does not cut\. Use data\.long_texts=cut"):
        tokenize(Slow(), TEXTS, 8, overlap=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["padded", "packed"])
def test_prediction_within_any_token_budget_is_the_mean_of_windows(
    name: str, tokenizer: Any, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(tokenizer)
    recipe = load_recipe("seed")
    model = build_classifier(resolve_backbone(str(tiny_bert)), ("a", "b"), recipe.lora, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10 if parameter.ndim > 1 else 1)  # a fresh encoder answers all texts nearly alike
    engine = make_engine(model, name, FP32)
    alone = Rows(rows.tokens.windows, np.zeros(len(rows.tokens.windows), dtype=np.int64), 0)
    windows = predict_logits(engine, alone, batch_size=1)
    firsts = rows.tokens.firsts
    assert firsts is not None
    wanted = np.array([windows[firsts[row] : firsts[row + 1]].mean(axis=0) for row in range(len(rows))])
    assert wanted.std(axis=0).min() > 1e-3  # rows differ, so equal logits mean something
    # a whole batch at once, as training sees it
    together = engine.logits(engine.collate(rows, range(len(rows)))).detach().numpy()
    assert np.abs(together - wanted).max() < 1e-5

    most = 0
    forward = engine.logits

    def seen(batch: Any) -> Any:
        nonlocal most
        most = max(most, batch.input_ids.numel() if name == "padded" else sum(batch.packed.lengths))
        return forward(batch)

    monkeypatch.setattr(engine, "logits", seen)
    for budget in (8, 20, 10_000):
        most, told = 0, list[int]()
        got = predict_logits(engine, rows, batch_tokens=budget, progress=told.append)
        assert most <= budget
        assert sum(told) == len(rows)
        assert got.dtype == np.float32
        assert np.abs(got - wanted).max() < 1e-5
    assert int(rows.tokens.lengths.max()) > 20  # the second budget was less than its longest row
    assert len(sorted_batches(rows.tokens.lengths, batch_tokens=20)) > 1


def test_a_plan_tells_how_many_rows_are_cut_or_windowed(tiny_bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "news.csv"
    path.write_text("text,label\n" + "".join(f"{' '.join(WORDS[: 2 + i % 2 * 12])},{'ab'[i % 2]}\n" for i in range(20)))
    changes: dict[str, Any] = {
        "data.source": str(path), "data.validation": str(path), "data.max_length": 8, "data.window_overlap": 2,
        "data.text_columns": ["text"], "model.backbone": str(tiny_bert), "train.epochs": 1,
    }  # fmt: skip

    def plan(**more: Any) -> Any:
        return make_plan(load_recipe("seed", changes | {f"data.{key}": value for key, value in more.items()}), "cpu")

    cut, windowed, whole = plan(), plan(long_texts="windows"), plan(max_length=64)
    assert any(note.startswith("10 train rows fill the limit of 8 tokens; the rest is cut") for note in cut.notes)
    assert cut.tokens == 10 * 4 + 10 * 8
    # 14 words in windows of 6 that share 2: 6, 6 and 6
    assert any("10 train rows are longer than 8 tokens: they become 30 windows, 3 at most" in n for n in windowed.notes)
    assert windowed.tokens == 10 * 4 + 30 * 8
    assert any("tokens a window" in note for note in windowed.notes)
    assert not any("train rows" in note for note in whole.notes)
    assert windowed.steps == cut.steps == whole.steps


def test_a_plan_of_published_rows_cuts_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    monkeypatch.setattr("newslora.plan._time_step", lambda *given: lengths.append(given[4]) or 1.0)
    for limit, wanted in ((512, round(119_360 * 52.5)), (32, 119_360 * 32)):
        recipe = load_recipe("seed", {"data.max_length": limit, "train.epochs": 1})
        assert make_plan(recipe, "cpu").tokens == wanted
    windows = load_recipe("seed", {"data.max_length": 32, "data.long_texts": "windows", "data.window_overlap": 8})
    assert make_plan(windows, "cpu").tokens == round(119_360 * 52.5) * windows.train.epochs
    assert lengths == [52, 32, 52]
