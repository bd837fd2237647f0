"""Asking the hub from within a process: whether it answers, what its libraries raise, and the rows they give."""

import contextlib
import errno
import io
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hub_parts import LABELS
from hub_server import HubServer

from newslora import hub as hub_manners
from newslora.data import hubsets, sources
from newslora.errors import BackboneError, DataError, NetworkError, NewsloraError, StorageError


@pytest.fixture
def fresh_finding(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Whether the hub answers is not known yet, and this process may ask."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_manners, "_hub_found", None)
    return monkeypatch


def test_a_running_hub_answers(fresh_finding: pytest.MonkeyPatch) -> None:
    with HubServer() as hub:
        fresh_finding.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        assert hub_manners.hub_answers()
        assert hub_manners.hub_answers()
    assert hub.requests == ["HEAD /"]  # asked once


def test_a_hub_that_is_not_to_be_asked_is_not(fresh_finding: pytest.MonkeyPatch) -> None:
    with HubServer() as hub:
        fresh_finding.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        fresh_finding.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert not hub_manners.hub_answers()
    assert hub.requests == []


def test_a_silent_hub_is_not_waited_for(fresh_finding: pytest.MonkeyPatch) -> None:
    fresh_finding.setattr(hub_manners, "HUB_WAIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and never says a word
        fresh_finding.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        asked = threading.active_count()
        assert not hub_manners.hub_answers()
        assert threading.active_count() <= asked + 1


def test_a_failing_hub_does_not_answer(fresh_finding: pytest.MonkeyPatch) -> None:
    with HubServer(failing=True) as hub:
        fresh_finding.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        began = time.monotonic()
        assert not hub_manners.hub_answers()
    assert hub.requests == ["HEAD /"]
    assert time.monotonic() - began < hub_manners.HUB_WAIT  # a refusal is not waited out


class Answered(Exception):
    """A hub library's error that carries the hub's answer."""

    def __init__(self, status: int) -> None:
        self.response = type("Response", (), {"status_code": status})()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionError("no route"), NetworkError),
        (TimeoutError("late"), NetworkError),
        (Answered(503), NetworkError),
        (Answered(404), DataError),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (ValueError("someone/connect-offline-resolve is odd"), DataError),  # told by kind, not by words in a name
        (DataError("ours"), DataError),
    ],
)
def test_what_the_hub_libraries_raise_becomes_ours(error: Exception, kind: type[NewsloraError]) -> None:
    with pytest.raises(kind):
        fail_in_a_library(error)


def fail_in_a_library(error: Exception) -> None:
    with hubsets.hub_errors("someone/news"):
        if isinstance(error, NewsloraError):
            raise error
        raise RuntimeError("something went wrong") from error  # found behind whatever a library puts before it


@pytest.mark.parametrize(
    ("error", "kind"), [(TimeoutError("late"), NetworkError), (OSError(errno.EROFS, "Read-only"), StorageError)]
)
def test_the_same_for_backbones(error: Exception, kind: type[NewsloraError], fresh_finding: pytest.MonkeyPatch) -> None:
    from newslora.model.backbones import Backbone

    def loader(location: str, **arguments: Any) -> None:
        assert os.environ["DISABLE_SAFETENSORS_CONVERSION"] == "1"
        raise error

    fresh_finding.setattr(hub_manners, "_hub_found", (float("inf"), True))
    with pytest.raises(kind):
        Backbone("someone/connect", "someone/connect", "hub").load(loader)
    assert "DISABLE_SAFETENSORS_CONVERSION" not in os.environ
    with pytest.raises(BackboneError, match="cannot be loaded: 'odd'"):
        Backbone("someone/connect", "someone/connect", "hub").load(
            lambda location, **_: (_ for _ in ()).throw(KeyError("odd"))
        )


def test_class_numbers_become_names() -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS)})
    rows = {"text": ["a", "b", "c", "d"], "label": [3, 0, -1, None]}  # the hub's -1: no label given
    table = hubsets.dataset_table(datasets.Dataset.from_dict(rows, features=features))
    assert [row.fields["label"] for row in table.rows] == ["Sci/Tech", "World", None, None]
    assert table.label_names == tuple(LABELS)


def test_saved_data_sets(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": ["a"], "label": ["x"]})
    with contextlib.redirect_stderr(io.StringIO()):
        datasets.DatasetDict(test=rows).save_to_disk(tmp_path / "saved")
    source = sources.parse_source(str(tmp_path / "saved"))
    assert [row.fields for row in sources.open_table(source, "test").rows] == [{"text": "a", "label": "x"}]
    with pytest.raises(DataError, match=r"no train split: its splits are test"):
        sources.open_table(source, None)
    for broken in ("[]", "{}", "no JSON"):
        (tmp_path / "saved" / "dataset_dict.json").write_text(broken, encoding="utf-8")
        with pytest.raises(DataError, match="save_to_disk"):
            sources.available_splits(source)
