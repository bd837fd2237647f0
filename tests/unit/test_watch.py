"""A watched folder: adapters are served as they come, change and go, and nothing half-written takes a place."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from newslora.errors import SettingsError
from newslora.serving.service import Service
from newslora.serving.settings import ServeSettings
from newslora.serving.watch import Watch


@pytest.fixture
def adapter(tmp_path: Path, make_adapter: Callable[..., Path]) -> Path:
    return make_adapter(tmp_path / "made", seed=1)


def test_a_folder_is_followed(tmp_path: Path, adapter: Path, planted: Path, make_adapter: Callable[..., Path]) -> None:
    folder, told = tmp_path / "watched", []
    folder.mkdir()
    service = Service(ServeSettings())
    service.load("fixed", adapter)
    watch = Watch(service, folder, lambda *what: told.append(what), fixed=("fixed",))
    names = lambda: [one.name for one in service.adapters()]  # noqa: E731

    shutil.copytree(adapter, folder / "news")
    (folder / "news" / "newslora.json").rename(folder / "news" / "later")
    (folder / "not-an-adapter").mkdir()
    shutil.copytree(adapter, folder / "fixed")
    shutil.copytree(planted, folder / "run")
    (folder / "run" / "manifest.json").rename(folder / "run" / "later")
    watch.look()
    assert names() == ["fixed"]  # of neither all is written
    (folder / "run" / "later").rename(folder / "run" / "manifest.json")
    watch.look()
    assert names() == ["fixed", "run"]  # news is half written
    (folder / "news" / "later").rename(folder / "news" / "newslora.json")
    watch.look()
    watch.look()
    assert names() == ["fixed", "run", "news"]
    assert told == [("info", "run", "loaded"), ("info", "news", "loaded")]  # each once

    before = service.get("news")
    (folder / "news" / "README.md").write_text("a card written anew is no new version")
    watch.look()
    assert service.get("news") is before
    weights = folder / "news" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    watch.look()
    watch.look()
    assert service.get("news") is before
    assert told[2:] == [("warning", "news", told[2][2])]  # told once
    assert "hash is not the card's" in told[2][2]
    assert told[2][2].endswith("What was served under this name before is kept.")

    make_adapter(folder / "news", seed=2)
    watch.look()
    assert service.get("news").version != before.version
    shutil.rmtree(folder / "news")
    service.remove("run")  # by another hand
    shutil.rmtree(folder / "run")
    watch.look()
    assert names() == ["fixed"]
    assert told[-1] == ("info", "news", "removed: its folder has gone")
    shutil.rmtree(folder)
    watch.look()  # a drive that is away takes nothing along
    watch.look()
    assert names() == ["fixed"]
    assert told[-2][1:] == ("news", "removed: its folder has gone")
    assert told[-1] == ("warning", "watched", "cannot be watched now: No such file or directory. What is served stays.")


def test_a_bad_folder_is_told_of_once_and_the_others_are_followed(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told = tmp_path / "watched", []
    for name in ("good", "bad", "broken", "my name", "ünïcode", "lost+found"):
        shutil.copytree(adapter, folder / name)
    (folder / "also not").mkdir()  # no adapter, so nobody's name
    card = json.loads((adapter / "newslora.json").read_text())
    (folder / "bad" / "newslora.json").write_text(json.dumps(card | {"max_length": "512", "lora": [1]}))
    is_file = Path.is_file

    def closed(path: Path) -> bool:  # as for whoever is not its owner; root may read all
        if path.parent == folder / "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", closed)
    service = Service(ServeSettings())
    load = service.load
    failing = {"broken"}

    def load_or_fail(name: str, path: Path) -> object:
        if name in failing:
            raise KeyError("reason")
        return load(name, path)

    monkeypatch.setattr(service, "load", load_or_fail)
    watch = Watch(service, folder, lambda *what: told.append(what))
    for _ in range(3):
        watch.look()
    assert [one.name for one in service.adapters()] == ["good"]
    by_name = {name: (level, sentence) for level, name, sentence in told}
    assert len(told) == len(by_name) == 6  # each once
    assert by_name["lost+found"] == ("warning", "left alone: it cannot be read (Permission denied).")
    for name in ("my name", "ünïcode"):
        level, sentence = by_name[name]
        assert (level, sentence.split(" Allowed")[0]) == (
            "warning",
            f"not loaded: '{name}' is not a valid adapter name.",
        )
        assert sentence.endswith("Rename the folder.")
    assert by_name["bad"][0] == "warning"
    assert f"{folder / 'bad' / 'newslora.json'} is damaged: max_length is '512'" in by_name["bad"][1]
    assert by_name["broken"] == ("error", "not loaded, by a fault of newslora: KeyError: 'reason'.")

    monkeypatch.setattr(Path, "is_file", is_file)
    failing.clear()
    (folder / "broken" / "newslora.json").touch()
    shutil.copyfile(adapter / "newslora.json", folder / "bad" / "newslora.json")
    (folder / "my name").rename(folder / "my-name")
    shutil.rmtree(folder / "good")
    watch.look()
    assert [one.name for one in service.adapters()] == ["bad", "broken", "my-name"]  # lost+found is none either
    assert told[6:][0][:2] == ("warning", "lost+found")
    assert "not a valid adapter name" in told[6][2]
    shutil.rmtree(folder / "bad")
    watch.look()
    assert [one.name for one in service.adapters()] == ["broken", "my-name"]


def test_what_cannot_be_read_for_a_while_stays_served(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told = tmp_path / "watched", []
    shutil.copytree(adapter, folder / "news")
    service = Service(ServeSettings())
    watch = Watch(service, folder, lambda *what: told.append(what))
    watch.look()
    served = service.get("news")
    with monkeypatch.context() as patch:
        patch.setattr("newslora.serving.watch._stamp", closed_folder)
        watch.look()
    watch.look()
    assert service.get("news") is served
    assert [level for level, _, _ in told] == ["info", "warning"]


def test_what_changes_while_it_is_loaded_is_loaded_again(
    tmp_path: Path, adapter: Path, make_adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, service = tmp_path / "watched", Service(ServeSettings())
    shutil.copytree(adapter, folder / "news")
    load, loads = service.load, []

    def load_and_change(name: str, path: Path) -> None:
        load(name, path)
        loads.append(service.get(name).version)
        if len(loads) == 1:
            make_adapter(folder / "news", seed=2)

    monkeypatch.setattr(service, "load", load_and_change)
    watch = Watch(service, folder, lambda *_: None)
    for _ in range(3):
        watch.look()
    assert len(loads) == len(set(loads)) == 2


def closed_folder(folder: Path) -> None:
    raise PermissionError(13, "Permission denied", str(folder))


def test_a_look_that_fails_is_told_and_the_next_one_happens(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told = tmp_path / "watched", []
    shutil.copytree(adapter, folder / "news")
    service = Service(ServeSettings())
    watch = Watch(service, folder, lambda *what: told.append(what))
    with monkeypatch.context() as patch:
        patch.setattr("newslora.serving.watch._whole", lambda path: 1 / 0)
        watch.look()
    watch.look()
    assert [one[:2] for one in told] == [("error", "watched"), ("info", "news")]
    assert f"looking at {folder} failed: ZeroDivisionError" in told[0][2]


def test_changes_are_seen_as_they_happen_and_watching_ends(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newslora.serving.watch.REST_MS", 20)
    folder, came = tmp_path / "watched", threading.Event()
    folder.mkdir()
    (folder / "lost+found").mkdir(mode=0)  # unless root runs this, it cannot be read, and so not be watched
    service, stop = Service(ServeSettings()), threading.Event()
    watch = Watch(service, folder, lambda level, name, what: came.set() if what == "loaded" else None)
    thread = threading.Thread(target=watch.follow, args=(stop,))
    thread.start()
    try:
        time.sleep(0.2)
        shutil.copytree(adapter, folder / "news")
        assert came.wait(20)
        assert service.get("news").labels == ("World", "Sports")
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("inotify")], ids=type)
def test_where_the_system_tells_of_no_changes_the_folder_is_looked_through(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import watchfiles

    really = watchfiles.watch

    def watch_or_fail(*paths: Path, force_polling: bool | None = None, **how: Any) -> Any:
        if not force_polling:
            raise error
        return really(*paths, force_polling=True, **how)

    monkeypatch.setattr(watchfiles, "watch", watch_or_fail)
    for name in ("REST_MS", "LOOK_MS"):
        monkeypatch.setattr(f"newslora.serving.watch.{name}", 20)
    folder, came, told = tmp_path / "watched", threading.Event(), []
    folder.mkdir()

    def tell(level: str, name: str, what: str) -> None:
        told.append((level, name, what))
        if what == "loaded":
            came.set()

    stop = threading.Event()
    thread = threading.Thread(target=Watch(Service(ServeSettings()), folder, tell).follow, args=(stop,))
    thread.start()
    try:
        time.sleep(0.1)
        shutil.copytree(adapter, tmp_path / "moving")
        (tmp_path / "moving").rename(folder / "news")
        assert came.wait(20)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert told[0][:2] == ("warning", "watched")
    assert told[0][2].startswith(
        f"The system does not tell of changes in {folder} ({error}). It is looked through every"
    )


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="There is no folder"):
        Watch(Service(ServeSettings()), tmp_path / "none", lambda *_: None)
