"""Sources by name: files, folders and their splits, slices, saved data sets, and what is said of a name that is none."""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from source_parts import COLUMNS, ROWS, as_csv, as_lines, fields, parquet, read, write

from newslora.data.combinations import split_labels
from newslora.data.readers import open_file
from newslora.data.sources import available_splits, parse_source, source_files, split_for
from newslora.errors import DataError


@pytest.mark.parametrize("name", ["missing.csv", "newz.csv", "./newz-csv", "deep/er/newz.csv", "./newz-csv:train"])
def test_a_missing_file_is_a_data_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "news.csv", as_csv())
    with pytest.raises(DataError, match="There is no data file or folder") as caught:
        parse_source(name)
    assert ("Did you mean 'news.csv'" in str(caught.value)) is ("newz" in name)


@pytest.mark.parametrize("text", ["Oil climbs. " * 100, "Oil climbs as stocks fall", "news " + "x" * 300 + ".csv"])
def test_a_text_in_place_of_a_file_is_told_where_texts_go(text: str) -> None:
    with pytest.raises(DataError, match=r"There is no data file.*echo 'TEXT' \| newslora predict RUN -") as caught:
        parse_source(text)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "~nobody-of-this-name/a.csv"])
def test_a_name_that_can_be_no_path_is_a_data_error(name: str) -> None:
    with pytest.raises(DataError, match="There is no data file"):
        parse_source(name)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(DataError, match="no regular file but a pipe or device"):
        parse_source(str(tmp_path / "a.csv"))


@pytest.mark.parametrize("name", ["a.txt", "a.xlsx", "a", "a.csv.bz2"])
def test_an_unknown_suffix_names_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot tell the format.*\.csv.*\.parquet.*\.gz or \.zst"):
        open_file(write(tmp_path / name, "x"))


def test_a_folder_of_split_files(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", as_csv())
    write(tmp_path / "dev.jsonl.gz", gzip.compress(as_lines().encode()))
    parquet(tmp_path / "test.parquet")
    write(tmp_path / "notes.txt", "x")
    write(tmp_path / "other.csv", as_csv())
    source = parse_source(str(tmp_path))
    assert source.kind == "folder"
    assert available_splits(source) == ("dev", "test", "train")
    assert [split_for(source, role) for role in ("train", "validation", "test")] == ["train", "dev", "test"]
    for split in ("train", "dev", "test", None):
        assert fields(read(tmp_path, split)[1]) == ROWS
    assert fields(read(f"{tmp_path}:dev")[1]) == ROWS
    with pytest.raises(DataError, match=r"no split 'tets'.*dev, test, train.*Did you mean 'test'"):
        read(f"{tmp_path}:tets")


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "train.old.csv"),
        ("train.csv", "train.jsonl"),
        ("Train.csv", "train.csv.gz"),
        ("train-00000-of-00002.csv", "train-00001-of-00002.csv"),
    ],
)
def test_several_files_of_one_split_are_refused_by_name(names: Sequence[str], tmp_path: Path) -> None:
    for name in (*names, "test.csv"):
        write(tmp_path / name, as_csv())
    with pytest.raises(DataError, match=r"2 files of its split 'train'") as caught:
        read(tmp_path, "test")
    assert all(name in str(caught.value) for name in names)


def test_the_only_part_of_a_split_is_the_split(tmp_path: Path) -> None:
    parquet(tmp_path / "train-00000-of-00001.parquet")
    assert fields(read(tmp_path)[1]) == ROWS


def test_a_folder_without_a_train_split_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no train split.*train\.csv.*nothing readable"):
        read(tmp_path)


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", as_csv())
    assert available_splits(parse_source(str(path))) == ()
    with pytest.raises(DataError, match="no split 'train': it has no splits"):
        read(f"{path}:train")


def test_a_colon_in_a_file_name_is_part_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a:b.csv", as_csv())
    assert parse_source(str(path)).split is None
    assert fields(read(path)[1]) == ROWS


def test_the_bundled_corpus() -> None:
    source = parse_source("corpus")
    assert [split_for(source, role) for role in ("train", "validation", "test")] == ["train", "validation", "test"]
    assert parse_source("corpus:test").split == "test"
    assert len(read("corpus:test")[1]) > 50


@pytest.mark.parametrize(
    ("text", "location", "split"),
    [
        ("someone/news:train[:10%]", "someone/news", "train[:10%]"),
        ("news:train[10:-5]", "news", "train[10:-5]"),
        ("news:train[:33%](pct1_dropremainder)", "news", "train[:33%](pct1_dropremainder)"),
        ("news:train[:10%]+test[5:]", "news", "train[:10%]+test[5:]"),
        ("news:train+test", "news", "train+test"),
        ("news:train[:10%", "news", "train[:10%"),  # for `datasets` to refuse
    ],
)
def test_slices_are_parted_from_a_hub_name(text: str, location: str, split: str) -> None:
    found = parse_source(text)
    assert (found.kind, found.location, found.split) == ("hub", location, split)
    assert (found.whole.text, found.whole.split) == (location, None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A save_to_disk folder of 120 and 30 rows, with brackets and a colon in its name."""
    folder = tmp_path_factory.mktemp("saved") / "news[1]:all"
    splits = {"train": range(120), "test": range(1000, 1030)}
    rows = {name: {"text": [str(n) for n in some], "label": ["A"] * len(some)} for name, some in splits.items()}
    made = {name: datasets.Dataset.from_dict(one) for name, one in rows.items()}
    datasets.disable_progress_bars()
    datasets.DatasetDict(made).save_to_disk(folder)
    return folder


def sliced(saved: Path, spec: str) -> tuple[str, list[str]]:
    table, rows = read(f"{saved}:{spec}")
    return table.sha256, [row["text"] for row in fields(rows)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("train[:10%]", range(12)),
        ("train[-5%:]", range(114, 120)),
        ("train[100:110]", range(100, 110)),
        ("train[:-110]", range(10)),
        ("train[118:1_000]", range(118, 120)),
        ("train[:33%](pct1_dropremainder)", range(33)),
        ("train[:]", range(120)),
        ("test[:2] + train[5:7]", [1000, 1001, 5, 6]),
        ("test+train[:1]", [*range(1000, 1030), 0]),
    ],
)
def test_slices_of_a_saved_data_set_are_those_of_datasets(saved: Path, spec: str, expected: Sequence[int]) -> None:
    digest, texts = sliced(saved, spec)
    assert texts == [str(number) for number in expected]
    assert sliced(saved, spec) == (digest, texts)  # the hash is of the rows, and the same each time
    assert digest != sliced(saved, "train[1:2]")[0]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("train[:10%", "Unrecognized instruction format"),
        ("train[10%]", "Unrecognized instruction format"),
        ("train[:1.5%]", "Unrecognized instruction format"),
        ("train[a:b]", "Unrecognized instruction format"),
        ("[:10%]", "Unrecognized instruction format"),
        ("train[:200%]", "Percent slice boundaries"),
        ("train[:5](pct1_dropremainder)", "rounding"),
        ("tran[:10%]", "Unknown split"),
        ("train+tset", "Unknown split"),
        ("train[:0]", "rows 0 to 0 of 'train' are none"),
        ("train[9:5]+test", "rows 9 to 5 of 'train' are none"),
    ],
)
def test_a_slice_that_cannot_be_read_says_why_and_how_to_write_it(saved: Path, spec: str, reason: str) -> None:
    with pytest.raises(DataError, match=r"The slice of '.*' cannot be read.*NAME:train\[:10%\]") as caught:
        read(f"{saved}:{spec}")
    assert reason in str(caught.value)


@pytest.mark.parametrize("spec", ["train[:10%]", "train+dev", "[:1]"])
def test_only_data_sets_of_datasets_are_sliced(spec: str, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", as_csv())
    write(tmp_path / "dev.csv", as_csv())
    for place in (tmp_path, tmp_path / "dev.csv", "corpus"):
        with pytest.raises(
            DataError, match=r"Only data sets of the hub or of save_to_disk can be sliced; data\.train_rows"
        ):
            read(f"{place}:{spec}")


def test_a_servers_database_is_no_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "news").touch()
    found = {scheme: source_files(parse_source(f"{scheme}:///news#desk")) for scheme in ("sqlite", "postgresql")}
    assert found == {"sqlite": (Path("news"),), "postgresql": ()}


def test_a_hub_name_is_told_from_a_path() -> None:
    assert parse_source("someone/some_news").kind == "hub"
    assert parse_source("someone/some_news:test").split == "test"


def with_class_labels() -> datasets.Dataset:
    features = datasets.Features(
        {"label": datasets.ClassLabel(names=["World", "Sports"]), "title": datasets.Value("string"),
         "text": datasets.Value("string")}
    )  # fmt: skip
    coded = [row | {"label": ["World", "Sports"].index(row["label"])} for row in ROWS]
    return datasets.Dataset.from_list(coded, features=features)


def test_a_saved_data_set_gives_label_names(tmp_path: Path) -> None:
    with_class_labels().save_to_disk(tmp_path / "saved")
    source = parse_source(str(tmp_path / "saved"))
    assert source.kind == "arrow"
    assert available_splits(source) == ()
    table, rows = read(tmp_path / "saved")
    assert fields(rows) == ROWS
    assert table.columns == COLUMNS
    assert table.label_names == ("World", "Sports")


def test_an_unlabelled_row_of_a_saved_data_set_has_no_label(tmp_path: Path) -> None:
    saved = with_class_labels()
    coded = saved.with_format("arrow")[:].set_column(0, "label", pa.array([0, -1, None], pa.int64()))
    datasets.Dataset(coded, info=saved.info).save_to_disk(tmp_path / "saved")
    assert [row.fields["label"] for row in read(tmp_path / "saved")[1]] == ["World", None, None]


def test_an_unlabelled_entry_of_a_list_has_no_name(tmp_path: Path) -> None:
    several = datasets.Sequence(datasets.ClassLabel(names=["World", "Sports", "Business"]))
    features = datasets.Features({"text": datasets.Value("string"), "labels": several})
    numbers = [[0, 2], [-1], [0, None], None, []]
    rows = {"text": ["a text"] * len(numbers), "labels": numbers}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    found = [row.fields["labels"] for row in read(tmp_path / "saved")[1]]
    assert found == [["World", "Business"], [None], ["World", None], None, []]
    assert [isinstance(split_labels(labels, ";"), str) for labels in found] == [False, True, True, True, False]


def test_a_saved_data_set_with_splits(tmp_path: Path) -> None:
    data = with_class_labels()
    datasets.DatasetDict({"train": data, "val": data.select([1])}).save_to_disk(tmp_path / "saved")
    source = parse_source(str(tmp_path / "saved"))
    assert source.kind == "arrow"
    assert set(available_splits(source)) == {"train", "val"}
    assert [split_for(source, role) for role in ("train", "validation", "test")] == ["train", "val", None]
    assert fields(read(tmp_path / "saved")[1]) == ROWS
    assert fields(read(f"{tmp_path / 'saved'}:val")[1]) == [ROWS[1]]
    one, other = read(tmp_path / "saved", "train")[0].sha256, read(tmp_path / "saved", "val")[0].sha256
    assert one != other
    with pytest.raises(DataError, match="no split 'test'"):
        read(f"{tmp_path / 'saved'}:test")


def test_a_saved_data_set_without_a_train_split_names_those_it_has(tmp_path: Path) -> None:
    datasets.DatasetDict({"north": with_class_labels()}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"no train split.*north"):
        read(tmp_path / "saved")


@pytest.mark.parametrize("damage", ["state", "arrow cut", "arrow overwritten", "arrow gone"])
def test_a_damaged_saved_data_set_is_a_data_error(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    with_class_labels().save_to_disk(folder)
    (arrow,) = folder.glob("*.arrow")
    if damage == "state":
        write(folder / "state.json", "{")
    elif damage == "arrow cut":
        write(arrow, arrow.read_bytes()[:100])
    elif damage == "arrow overwritten":
        write(arrow, b"\xff" * arrow.stat().st_size)
    else:
        arrow.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read(folder)


def test_a_path_names_a_source_and_rows_in_memory_do_not(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text,label\none,1\n")
    assert parse_source(source) == parse_source(str(source))
    for rows in (pa.table({"text": ["one"]}), [("one", "Sports")], None):
        with pytest.raises(
            DataError, match=r"not (Table|list|NoneType)\. Write rows in memory to a CSV or Parquet file"
        ):
            parse_source(rows)  # type: ignore[arg-type]
