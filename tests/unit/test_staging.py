"""An export's place: what may stand there, what a kill leaves, and who removes it."""

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from children import start
from newslora import files
from newslora.errors import RunError, StorageError
from newslora.exporting.staging import discard_left, publish, require_place, staging


def export_at(path: Path, content: str) -> Path:
    """As much of an export as its place cares for."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.onnx").write_text(content)
    (path / "README.md").write_text("a card that somebody edited")
    files.write_json(path / "export.json", {"files": {"model.onnx": "hash"}})
    return path


def content(path: Path) -> str:
    return (path / "model.onnx").read_text()


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_where_nothing_stands_nothing_is_asked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty"):
        for replace in (False, True):
            require_place(tmp_path / name, replace)


def test_an_export_makes_place_only_when_told(tmp_path: Path) -> None:
    export_at(tmp_path / "onnx", "old")
    with pytest.raises(
        RunError,
        match=r"holds an export already: put the new one in its place with --replace \(replace=True\), or name",
    ):
        require_place(tmp_path / "onnx", replace=False)
    require_place(tmp_path / "onnx", replace=True)


def spoil(name: str) -> Callable[[Path], object]:
    return {
        "another file": lambda path: (path / "notes.txt").write_text("mine"),
        "a folder": lambda path: (path / "checkpoints").mkdir(),
        "no manifest": lambda path: (path / "export.json").unlink(),
        "a manifest of something else": lambda path: (path / "export.json").write_text("[]"),
        "a manifest that is no JSON": lambda path: (path / "export.json").write_text("{"),
    }[name]


@pytest.mark.parametrize(
    "name", ["another file", "a folder", "no manifest", "a manifest of something else", "a manifest that is no JSON"]
)
def test_what_is_not_an_export_alone_is_never_replaced(name: str, tmp_path: Path) -> None:
    spoil(name)(export_at(tmp_path / "onnx", "old"))
    with pytest.raises(
        RunError, match=r"replacing \(--replace\) takes the place of an export only.*name another place \(--output\)"
    ):
        require_place(tmp_path / "onnx", replace=True)
    with pytest.raises(RunError, match="exists and is not empty") as caught:
        require_place(tmp_path / "onnx", replace=False)
    assert "--replace" not in str(caught.value)


def test_neither_a_file_nor_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(export_at(tmp_path / "onnx", "old"))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "dangling"):
        with pytest.raises(RunError, match="it is not a folder"):
            require_place(tmp_path / name, replace=True)


def test_the_new_export_takes_the_old_ones_place(tmp_path: Path) -> None:
    target = export_at(tmp_path / "onnx", "old")
    with staging(target) as made:
        export_at(made, "new")
        assert content(target) == "old"
        publish(made, target)
        assert content(target) == "new"
    assert content(target) == "new"
    assert hidden(tmp_path) == []


def test_an_export_that_is_not_published_changes_nothing(tmp_path: Path) -> None:
    target = export_at(tmp_path / "onnx", "old")
    with staging(target) as made:
        export_at(made, "new")
    assert content(target) == "old"
    assert hidden(tmp_path) == []


def test_broken_off_between_the_renames_the_old_export_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = export_at(tmp_path / "onnx", "old"), Path.rename

    def interrupted(path: Path, to: Path) -> Path:
        if to == target and path.name == "made":
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), staging(target) as made:
        publish(export_at(made, "new"), target)
    assert content(target) == "old"
    assert hidden(tmp_path) == []


def wait_in_staging(target: Path, started: Path, between: bool) -> None:
    """In a child: an export that never ends; `between`: the old one is out of its place at that moment."""
    with staging(target) as made:
        export_at(made, "new")
        if between:
            target.rename(made.with_name("old"))
        started.touch()
        time.sleep(600)


@pytest.mark.parametrize("between", [False, True])
def test_what_a_killed_export_left_is_removed_and_what_a_living_one_makes_is_not(between: bool, tmp_path: Path) -> None:
    target = export_at(tmp_path / "exports" / "onnx", "old")
    started = tmp_path / "started"
    child = start(wait_in_staging, target, started, between)
    deadline = time.monotonic() + 100
    while not started.exists() and child.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    (left,) = hidden(target.parent)
    for name in (None, "onnx"):
        discard_left(target.parent, name)
        assert (target.parent / left / "made" / "model.onnx").exists()  # its maker lives
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    assert target.exists() is not between
    discard_left(target.parent, "merged")
    assert hidden(target.parent) == [left]  # another export's
    discard_left(target.parent, "onnx")
    assert hidden(target.parent) == []
    assert content(target) == "old"


def test_hidden_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    for name in (".onnx.abcdefgh.tmp", ".config", ".onnx.abc.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".config" / ".lock").touch()
    (tmp_path / ".onnx.abc.tmp" / ".lock").touch()
    (tmp_path / ".onnx.12345678.tmp").touch()  # a file, as atomic writing has
    discard_left(tmp_path)
    discard_left(tmp_path / "nowhere")
    assert len(hidden(tmp_path)) == 4


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="free space"), staging(tmp_path / "onnx"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
