"""Columns come back as they were written, in memory or from a file, and a damaged file is never believed."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from newslora.data import store
from newslora.data.store import Spool, all_but, gathered, kept, read_columns, trim, write_columns
from newslora.errors import StorageError

COLUMNS = {
    "odd": np.frombuffer(b"seven77", np.uint8),
    "wide": np.arange(5, dtype=np.int64),
    "ids": np.arange(3, dtype=np.int32),
    "none": np.zeros(0, np.int64),
}
NOTES = {"names": ["a", "b"], "base": None}


@pytest.fixture
def tiny_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything beyond a few numbers goes to a file."""
    monkeypatch.setattr(store, "SPILL", 16)
    monkeypatch.setattr(store, "CHUNK", 3)
    monkeypatch.setattr(store, "BUFFER", 2)


def same(one: Any, other: Any) -> bool:
    return set(one) == set(other) and all(
        np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


@pytest.mark.usefixtures("tiny_memory")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_a_spool_gives_back_what_it_was_given(count: int) -> None:
    spool = Spool(np.int64)
    for number in range(count):
        spool.add(number)
    spool.extend(np.arange(count, 2 * count))
    spool.add(-1)
    assert spool.array().tolist() == [*range(2 * count), -1]
    assert spool.spilled == (8 * (2 * count + 1) > 16)


def mapped(array: Any) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.usefixtures("tiny_memory")
def test_a_large_spool_is_mapped_and_leaves_nothing_behind(tmp_path: Path) -> None:
    few, many = Spool(np.int32), Spool(np.int32)
    few.extend(np.arange(2, dtype=np.int32))
    many.extend(np.arange(1000, dtype=np.int32))
    assert not mapped(few.array())
    array = many.array()
    assert mapped(array)
    del many
    assert array.sum() == 499_500  # the numbers outlive what wrote them
    assert list((tmp_path / "cache").iterdir()) == []  # the file has no name that a killed process could leave


def test_a_full_disk_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  # the spool closes it
    monkeypatch.setattr(store, "SPILL", 0)
    monkeypatch.setattr(store.tempfile, "TemporaryFile", lambda dir: full)
    spool = Spool(np.int64)
    with pytest.raises(StorageError, match=r"No space left on device.*NEWSLORA_CACHE"):
        spool.extend(np.arange(4))


def test_a_small_column_touches_no_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEWSLORA_CACHE", str(tmp_path / "cache"))
    spool = Spool(np.int32)
    spool.extend(np.arange(5))
    assert spool.array().tolist() == [0, 1, 2, 3, 4]
    assert not (tmp_path / "cache").exists()


@given(count=st.integers(0, 40), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.usefixtures("tiny_memory")
def test_gathering_and_leaving_out(count: int, data: st.DataObject) -> None:
    places = np.array(sorted(data.draw(st.sets(st.integers(0, max(0, count - 1)), max_size=count))), dtype=np.int64)
    assert all_but(count, places).tolist() == sorted(set(range(count)) - set(places.tolist()))
    column = np.arange(count, dtype=np.int64) * 7
    assert gathered(column, places[::-1]).tolist() == (places[::-1] * 7).tolist()


@pytest.mark.parametrize("spill", [0, 10**6])
def test_columns_come_back(spill: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SPILL", spill)
    path = tmp_path / "a.safetensors"
    write_columns(path, COLUMNS, NOTES)
    found = read_columns(path)
    assert found is not None
    assert same(found[0], COLUMNS)
    assert found[1] == NOTES
    assert mapped(found[0]["wide"]) == (spill == 0)
    assert all(column.flags.aligned for column in found[0].values())
    assert not any(column.flags.writeable for column in found[0].values())


def test_the_file_is_safetensors(tmp_path: Path) -> None:
    write_columns(tmp_path / "a.safetensors", COLUMNS, NOTES)
    assert same(load_file(tmp_path / "a.safetensors"), COLUMNS)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_columns(path, COLUMNS, NOTES)
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (0x01, 0x40):
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            found = read_columns(path)
            assert found is None or (same(found[0], COLUMNS) and found[1] == NOTES), place
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert read_columns(path) is None, end


@pytest.mark.parametrize("header", [b"[]", b"{}", b'{"__metadata__": 3}', b'"x"', b"[" * 10_000])
def test_a_strange_header_is_no_column_file(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert read_columns(tmp_path / "a.safetensors") is None
    assert read_columns(tmp_path / "absent") is None


def test_what_cannot_be_kept_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert kept(tmp_path / "file" / "a.safetensors", COLUMNS, NOTES) is COLUMNS
    assert same(kept(tmp_path / "folder" / "a.safetensors", COLUMNS, NOTES), COLUMNS)
    assert (tmp_path / "folder" / "a.safetensors").is_file()


def test_the_newest_file_stays_however_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CACHE_LIMIT", 1)
    for age, name in enumerate("abc"):
        write_columns(tmp_path / f"{name}.safetensors", COLUMNS, NOTES)
        os.utime(tmp_path / f"{name}.safetensors", (age, age))
    trim(tmp_path / "a.safetensors")  # just written, though a clock says otherwise
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_notes_are_json(tmp_path: Path) -> None:
    write_columns(tmp_path / "a.safetensors", {}, NOTES)
    assert read_columns(tmp_path / "a.safetensors") == ({}, json.loads(json.dumps(NOTES)))
