"""The rows of a run: cut by label share, disjoint, the same for the same seed, and never a test on training rows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from newslora.config import DataSettings
from newslora.data import splits as splits_module
from newslora.data import store
from newslora.data.articles import ArticleSet
from newslora.data.sources import parse_source
from newslora.data.splits import Splits, cut_validation, draw_by_share, load_splits
from newslora.data.texts import Quarantine, Texts
from newslora.errors import DataError

DRAWN = [1, 8, 9, 10]
LABELS = ["World"] * 60 + ["Sports"] * 30 + ["Business"] * 10


def write(path: Path, labels: list[Any], start: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"text {number}", "label": label} for number, label in enumerate(labels, start)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(source: Path | str, seed: int = 42, quarantine: Path | None = None, **more: Any) -> Splits:
    return load_splits(DataSettings(source=str(source), **more), seed, quarantine)


def texts(found: ArticleSet | None) -> list[str]:
    assert found is not None
    return list(found.texts)


def shares(splits: Splits, found: ArticleSet) -> Counter[str]:
    return Counter(splits.labels.names[label] for label in found.labels)


def made_up(labels: list[int]) -> ArticleSet:
    rows = np.arange(1, len(labels) + 1)
    texts = Texts.of(f"text {row}" for row in rows)
    source, none = parse_source("corpus"), Quarantine("corpus", Texts.of([]), {})
    return ArticleSet(source, None, "", ("text",), "label", texts, np.array(labels, dtype=np.int64), rows, none)


@pytest.mark.parametrize("rows", [3, 10, 20, 50])
def test_validation_is_cut_by_label_share(rows: int, tmp_path: Path) -> None:
    splits = load(write(tmp_path / "a.jsonl", LABELS), validation_rows=rows)
    assert splits.validation_is_cut_from_train
    assert splits.test is None
    assert len(splits.validation) == rows
    assert sorted(texts(splits.train) + texts(splits.validation)) == sorted(f"text {n}" for n in range(100))
    for label, number in shares(splits, splits.validation).items():
        assert abs(number - rows * LABELS.count(label) / 100) < 1
    assert texts(splits.train) == sorted(texts(splits.train), key=lambda text: int(text.split()[1]))


def test_the_same_seed_cuts_the_same_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LABELS)
    one, same, other = (load(path, seed, validation_rows=20) for seed in (1, 1, 2))
    assert texts(one.validation) == texts(same.validation) != texts(other.validation)
    assert texts(one.train) == texts(same.train)


def test_the_rows_drawn_stay_as_they_were() -> None:
    """A published split must be found again: these rows were drawn by the first version."""
    assert draw_by_share(np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0]), 4, 42).tolist() == DRAWN


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    rows=st.integers(1, 59),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_row_goes_to_one_side_exactly_once(labels: list[int], rows: int, seed: int) -> None:
    whole = made_up(labels)
    if len(labels) - rows < len(set(labels)):
        with pytest.raises(DataError, match=r"data\.validation_rows is"):
            cut_validation(whole, rows, seed)
        return
    train, validation = cut_validation(whole, rows, seed)
    assert len(validation) == rows
    assert sorted([*train.rows, *validation.rows]) == list(range(1, len(labels) + 1))
    assert len(validation.quarantined) == 0


@settings(deadline=None)
@given(
    shares=st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(lambda shares: sum(shares) > 1),
    rows=st.integers(1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_very_many_rows_are_drawn_by_share_in_passing(shares: list[int], rows: int, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(shares)), shares))
    rows = min(rows, len(labels) - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits_module, "FEW", 1)
        patch.setattr(store, "CHUNK", 7)
        drawn = draw_by_share(labels, rows, seed)
        assert drawn.tolist() == draw_by_share(labels, rows, seed).tolist()
    assert len(drawn) == rows == len(set(drawn.tolist()))
    assert drawn.tolist() == sorted(drawn.tolist())
    assert 0 <= drawn[0] <= drawn[-1] < len(labels)
    present = [share for share in shares if share]
    if min(present) > 1 and len(present) <= rows <= len(labels) - len(present):
        wanted = np.array(shares) * rows / len(labels)
        assert (abs(np.bincount(labels[drawn], minlength=len(shares)) - wanted) < 1).all()


def test_rows_left_over_by_share_go_to_the_largest_remainders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits_module, "FEW", 1)
    labels = np.repeat([0, 1, 2], [7, 2, 11])
    assert np.bincount(labels[draw_by_share(labels, 6, 0)]).tolist() == [2, 1, 3]  # of 2.1, 0.6 and 3.3


def test_rows_drawn_in_passing_are_drawn_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-square over 4,000 seeds: no place, early or late, is likelier."""
    monkeypatch.setattr(splits_module, "FEW", 1)
    monkeypatch.setattr(store, "CHUNK", 7)
    labels = np.zeros(40, dtype=np.int64)
    counts = sum(np.bincount(draw_by_share(labels, 10, seed), minlength=40) for seed in range(4_000))
    spread = float(
        ((counts - 1_000) ** 2).sum() / (4_000 * 0.25 * 0.75)
    )  # a fixed total: 39 degrees of freedom times 40/39
    assert stats.chi2(39).sf(spread * 39 / 40) > 1e-4


def test_too_few_rows_say_how_many_to_ask_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LABELS)
    with pytest.raises(DataError, match=r"validation_rows is 640, but .* has 100 usable rows") as caught:
        load(path)
    assert "--set data.validation_rows=10)" in str(caught.value)
    assert len(load(path, validation_rows=10).validation) == 10


def test_a_label_with_a_single_row_is_cut_at_random(tmp_path: Path) -> None:
    splits = load(write(tmp_path / "a.jsonl", [*LABELS, "Rare"]), validation_rows=20)
    assert len(splits.validation) == 20
    assert len(splits.train) == 81


@pytest.mark.parametrize("rows", [2, 5, 40, 79])
def test_train_rows_are_drawn_after_the_cut(rows: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LABELS)
    whole, part = load(path, validation_rows=20), load(path, validation_rows=20, train_rows=rows)
    assert texts(part.validation) == texts(whole.validation)
    assert len(part.train) == rows
    assert set(texts(part.train)) < set(texts(whole.train))
    if rows >= 5:
        assert len(shares(part, part.train)) == 3
    assert texts(part.train) == texts(load(path, validation_rows=20, train_rows=rows).train)


def test_more_train_rows_than_there_are_take_all(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LABELS)
    assert len(load(path, validation_rows=20, train_rows=80).train) == 80
    assert len(load(path, validation_rows=20, train_rows=10_000).train) == 80


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data" / "train.jsonl", LABELS)
    write(tmp_path / "data" / "dev.jsonl", ["World", "Sports"], 100)
    write(tmp_path / "data" / "test.jsonl", ["World", "Sports", "Business"], 200)
    return tmp_path / "data"


@pytest.mark.parametrize("suffix", ["", ":train"])
def test_a_folders_own_splits_are_found(folder: Path, suffix: str) -> None:
    splits = load(f"{folder}{suffix}")
    assert not splits.validation_is_cut_from_train
    assert len(splits.train) == 100
    assert texts(splits.validation) == ["text 100", "text 101"]
    assert texts(splits.test) == ["text 200", "text 201", "text 202"]
    assert list(splits.present()) == ["train", "validation", "test"]


def test_a_folder_without_validation_is_cut_and_its_test_is_kept(folder: Path) -> None:
    (folder / "dev.jsonl").unlink()
    splits = load(folder, validation_rows=10)
    assert splits.validation_is_cut_from_train
    assert len(splits.train) == 90
    assert len(texts(splits.test)) == 3


def test_own_splits_of_a_named_split_are_described_by_names_that_can_be_read(folder: Path) -> None:
    splits = load(f"{folder}:train")
    assert splits.test is not None
    assert (splits.train.described, splits.test.described) == (f"{folder}:train", f"{folder}:test")
    assert texts(splits.test) == texts(load(folder).test)


def test_named_sources_go_before_own_splits(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", ["Business"], 300)
    more = write(tmp_path / "more.jsonl", ["World"], 400)
    splits = load(folder, validation=str(other), test=str(more))
    assert texts(splits.validation) == ["text 300"]
    assert texts(splits.test) == ["text 400"]
    assert texts(load(folder, validation=f"{folder}:test", test=str(more)).validation) == texts(load(folder).test)


def test_the_bundled_corpus_has_its_three_splits() -> None:
    splits = load("corpus")
    together = [text for one in splits.present().values() for text in texts(one)]
    assert len(splits.present()) == 3
    assert len(together) == len(set(together)) > 500
    assert all(len(one.quarantined) == 0 for one in splits.present().values())


def test_the_same_file_under_another_path_is_no_test(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes((folder / "train.jsonl").read_bytes())
    link = tmp_path / "link.jsonl"
    link.symlink_to(folder / "dev.jsonl")
    with pytest.raises(DataError, match=r"test rows, .* are the same data as the train rows"):
        load(folder, test=str(copy))
    with pytest.raises(DataError, match=r"test rows, .* are the same data as the validation rows"):
        load(folder, test=str(link))


def test_an_unknown_label_in_validation_is_set_aside_and_told(folder: Path, tmp_path: Path) -> None:
    write(folder / "dev.jsonl", ["World"] * 9 + ["Wrold"], 100)
    quarantine = tmp_path / "q.jsonl"
    with pytest.raises(DataError, match=r"1 of 10 rows of '.*:dev' cannot be used \(10\.0%.*unknown label 'Wrold'"):
        load(folder, quarantine=quarantine)
    (line,) = quarantine.read_text().splitlines()  # written before the error
    assert json.loads(line)["row"] == 10
    splits = load(folder, quarantine=quarantine, max_quarantine_share=0.1)
    assert len(splits.validation) == 9
    record = splits.record()["splits"]["validation"]
    assert (record["rows"], record["quarantined"]) == (9, 1)


def test_bad_rows_of_all_splits_are_in_one_file(folder: Path, tmp_path: Path) -> None:
    write(folder / "train.jsonl", [*LABELS, None])
    write(folder / "test.jsonl", ["World", None], 200)
    quarantine = tmp_path / "run" / "q.jsonl"
    splits = load(folder, quarantine=quarantine, max_quarantine_share=0.5)
    assert len(quarantine.read_text().splitlines()) == 2
    assert sum(len(one.quarantined) for one in splits.present().values()) == 2


def test_bad_training_rows_are_told_before_anything_they_cause(folder: Path, tmp_path: Path) -> None:
    write(folder / "train.jsonl", ["World", None, None])  # so Sports in validation is unknown
    with pytest.raises(DataError, match=r"2 of 3 rows of '.*:train'.*no label"):
        load(folder, quarantine=tmp_path / "q.jsonl")
    write(folder / "train.jsonl", ["World", "World"])
    with pytest.raises(DataError, match="at least two labels"):
        load(folder, quarantine=tmp_path / "q.jsonl")


def test_what_data_json_says(folder: Path) -> None:
    record = load(folder, validation_rows=10).record()
    assert record["labels"] == ["Business", "Sports", "World"]
    assert record["label_base"] is None
    assert {name: one["rows"] for name, one in record["splits"].items()} == {"train": 100, "validation": 2, "test": 3}
    assert record == json.loads(json.dumps(record))


def test_a_cut_leaves_the_counts_reconciled(tmp_path: Path) -> None:
    splits = load(write(tmp_path / "a.jsonl", [*LABELS, None]), validation_rows=10)
    assert sum(len(one) + len(one.quarantined) for one in splits.present().values()) == 101
