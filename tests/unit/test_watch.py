"""A watched folder: adapters are served as they come, change and go, and nothing half-written takes a place."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

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
    watch = Watch(service, folder, lambda name, what: told.append((name, what)), fixed=("fixed",))
    names = lambda: [one.name for one in service.adapters()]  # noqa: E731

    shutil.copytree(adapter, folder / "news")
    (folder / "news" / "newslora.json").rename(folder / "news" / "later")
    (folder / "not-an-adapter").mkdir()
    shutil.copytree(adapter, folder / "fixed")
    shutil.copytree(planted, folder / "run")
    watch.look()
    assert names() == ["fixed", "run"]  # news is half written
    (folder / "news" / "later").rename(folder / "news" / "newslora.json")
    watch.look()
    watch.look()
    assert names() == ["fixed", "run", "news"]
    assert told == [("run", "loaded"), ("news", "loaded")]  # each once

    before = service.get("news")
    (folder / "news" / "README.md").write_text("a card written anew is no new version")
    watch.look()
    assert service.get("news") is before
    weights = folder / "news" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    watch.look()
    watch.look()
    assert service.get("news") is before
    assert told[2:] == [("news", told[2][1])]  # told once
    assert "hash is not the card's" in told[2][1]
    assert told[2][1].endswith("What was served under this name before is kept.")

    make_adapter(folder / "news", seed=2)
    watch.look()
    assert service.get("news").version != before.version
    shutil.rmtree(folder / "news")
    service.remove("run")  # by another hand
    shutil.rmtree(folder / "run")
    watch.look()
    assert names() == ["fixed"]
    assert told[-1] == ("news", "removed: its folder has gone")
    shutil.rmtree(folder)
    watch.look()  # a drive that is away takes nothing along
    assert names() == ["fixed"]


def test_changes_are_seen_as_they_happen_and_watching_ends(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newslora.serving.watch.REST_MS", 20)
    folder, came = tmp_path / "watched", threading.Event()
    folder.mkdir()
    service, stop = Service(ServeSettings()), threading.Event()
    watch = Watch(service, folder, lambda name, what: came.set() if what == "loaded" else None)
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


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="There is no folder"):
        Watch(Service(ServeSettings()), tmp_path / "none", lambda *_: None)
