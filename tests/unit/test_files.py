"""A crash or a refusing disk leaves the old file or the new one, and says what to do."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusing_parts import files_end_at
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from newslora import files
from newslora.errors import NetworkError, StorageError


def only(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_text_is_written_as_utf8_with_plain_newlines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    files.write_text(path, "é\n🙂\n")
    assert path.read_bytes() == "é\n🙂\n".encode()
    assert only(path.parent) == ["file.txt"]


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "Input/output error"), ValueError("ours"), KeyboardInterrupt()])
def test_the_old_file_stays_when_writing_fails(failure: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    files.write_text(path, "old")

    def write_half() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise failure

    with pytest.raises(StorageError if isinstance(failure, OSError) else type(failure)):
        write_half()
    assert path.read_text() == "old"
    assert only(tmp_path) == ["file.txt"]


def test_the_old_file_stays_when_the_value_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        files.write_json(path, {"a": "\udcff"})
    assert files.read_json(path) == {"a": 1}
    assert only(tmp_path) == ["file.json"]


def test_the_old_file_stays_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    files.write_text(path, "old")
    script = (
        "import os, signal, sys; from pathlib import Path; from newslora import files\n"
        "with files.atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half of the n')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"
    assert [name for name in only(tmp_path) if not name.startswith(".")] == ["file.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_names_the_way_out(number: int, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    files.write_text(path, "old")

    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(StorageError, match=r"free space or name another place \(--output\)") as caught:
        files.write_text(path, "new")
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert path.read_text() == "old"
    assert only(tmp_path) == ["file.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_really_full_device_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="No space left on device"), files.disk_errors(Path("x")):
        Path("/dev/full").write_text("a")


@pytest.mark.parametrize("writer", ["safetensors", "tokenizers"])
def test_what_libraries_in_rust_are_refused_is_a_storage_error_too(writer: str, tmp_path: Path) -> None:
    """They raise errors of their own, no OSErrors."""
    write = {
        "safetensors": lambda path: save_file({"x": torch.zeros(10_000)}, path),
        "tokenizers": lambda path: Tokenizer(models.WordLevel({f"word{n}": n for n in range(1000)})).save(str(path)),
    }[writer]
    path = tmp_path / "file"
    files.write_text(path, "old")
    with (
        files_end_at(1000),
        pytest.raises(StorageError, match=r"Cannot write .*file: File too large\. To go on: check"),
        files.atomic_path(path) as temporary,
    ):
        write(temporary)
    assert path.read_text() == "old"
    assert only(tmp_path) == ["file"]


def test_errors_about_something_else_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no disk"), files.disk_errors(tmp_path):
        raise ValueError("this is about no disk (os error)")


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="check that the place exists"):
        files.write_text(tmp_path / "file" / "below.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="Cannot write"):
        files.write_text(tmp_path / "folder", "x")
    assert only(tmp_path) == ["file", "folder"]


def test_our_own_errors_pass_unchanged(tmp_path: Path) -> None:
    # NetworkError is an OSError: it must not come out as a disk that cannot be written
    with pytest.raises(NetworkError, match="hub"), files.atomic_path(tmp_path / "file"):
        raise NetworkError("the hub is away")


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_new_file_gets_the_permissions_of_the_umask(
    mask: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", None)  # the mask is the whole process's: no other thread may meet another one
            files.write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == expected


def test_equal_values_give_equal_json_and_come_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": "é"}
    files.write_json(tmp_path / "one.json", value)
    files.write_json(tmp_path / "two.json", value)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert list(files.read_json(tmp_path / "one.json")) == ["b", "a"]
    assert files.read_json(tmp_path / "one.json") == value


@given(st.text(st.sampled_from('a\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\\"\udcff\0é🙂')))
def test_a_line_of_json_is_one_line_to_every_reader(text: str) -> None:
    line = files.json_line({text: [text]})
    assert line.splitlines(keepends=True) == [line]
    assert line.encode("utf-8").endswith(b"\n")
    assert json.loads(line) == {text: [text]}


def test_a_line_of_json_keeps_letters_readable() -> None:
    assert files.json_line({"é🙂": Path("x")}, default=str) == '{"é🙂": "x"}\n'


def test_json_has_no_numbers_for_nan_and_infinities() -> None:
    row = {
        "a": float("nan"),
        "b": [1e999, {"c": -1e999}],
        "d": 0.1 + 0.2,
        "e": "NaN \udcff",
        "f": Path("x"),
        "g": 2**80,
    }
    line = files.json_line(row, default=str)
    assert "null" in line
    assert json.loads(line, parse_constant=pytest.fail) == row | {"a": None, "b": [None, {"c": None}], "f": "x"}


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "file").write_bytes(content)
    assert files.sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
