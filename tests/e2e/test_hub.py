"""Backbones and data sets by hub name: online, from the cache, without a network, and what is refused.

The hub is a server of this machine (hub_server.py). newslora runs in processes of its own, as the hub libraries read
their environment when they are imported.
"""

import contextlib
import errno
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_server import Files, HubServer, files_of

from newslora import hub as hub_manners
from newslora.data import hubsets, sources
from newslora.errors import BackboneError, DataError, NetworkError, NewsloraError, StorageError

LABELS = ["World", "Sports", "Business", "Sci/Tech"]
SETTINGS = (
    "--set", "train.epochs=1", "--set", "train.log_every_steps=1", "--set", "data.validation_rows=8",
    "--set", "data.workers=0", "--device", "cpu",
)  # fmt: skip
# Runs command after command, one JSON list a line, in one process: its imports take longer than most commands. No report is
# drawn, which takes as long as a run.
DRIVER = """
import contextlib, faulthandler, io, json, sys, time, traceback
from newslora import pipeline
from newslora.cli.app import main
pipeline.write_report = lambda run, manifest: None
for line in sys.stdin:
    faulthandler.dump_traceback_later(90, exit=True)  # a command that hangs fails, and shows where
    shown, began = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            code = main(json.loads(line))
        except SystemExit as exit:
            code = exit.code
        except BaseException:
            traceback.print_exc()
            code = 1
    faulthandler.cancel_dump_traceback_later()
    answer = {"code": code, "shown": shown.getvalue(), "seconds": time.monotonic() - began}
    print(json.dumps(answer), flush=True)
"""


SOON = 40  # seconds; nearly all of it is imports on a slow, busy machine, and waiting for a silent hub takes longer


@dataclass(frozen=True)
class Outcome:
    """What a command came to, and what it asked of the hub."""

    code: int
    shown: str  # standard output and error
    seconds: float
    requests: list[str]

    def refuses(self, code: int, *words: str) -> None:
        """One kind sentence with these words in it, this exit code, no traceback, and soon."""
        assert self.code == code, self.shown
        assert "Traceback" not in self.shown
        complaint = self.shown.strip().splitlines()[-1]
        assert complaint.startswith("newslora: ")
        assert self.shown.count("newslora: ") == 1
        for word in words:
            assert word in complaint
        assert self.seconds < SOON


@dataclass
class Session:
    """A process that runs newslora's commands against a hub."""

    hub: HubServer
    process: "subprocess.Popen[str]"
    folder: Path

    def run(self, *arguments: str) -> Outcome:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        before = len(self.hub.requests)
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process died or hung; its standard error says where"
        answer = json.loads(line)
        return Outcome(answer["code"], answer["shown"], answer["seconds"], self.hub.requests[before:])

    def train(self, backbone: str, data: str, *more: str) -> Outcome:
        output = self.folder / f"run-{len(list(self.folder.iterdir()))}"
        return self.run("train", "seed", "--backbone", backbone, "--data", data, *SETTINGS, *more, "-o", str(output))


@contextlib.contextmanager
def session(hub: HubServer, home: Path, folder: Path) -> Iterator[Session]:
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
        env=environment(hub, home),
    )  # fmt: skip
    with process:
        yield Session(hub, process, folder)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def environment(hub: HubServer, home: Path) -> dict[str, str]:
    """Ours without what steers the hub libraries, and with this hub and this cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return kept | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NEWSLORA_CACHE": str(home / "newslora"),
        "OMP_NUM_THREADS": "1",
    }


class Trap:
    """Unpickling this leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def parquet(rows: int, words: str) -> bytes:
    """Rows with a ClassLabel, as `push_to_hub` writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": LABELS, "_type": "ClassLabel"}}
    table = pa.table(
        {"text": [f"{words} {number}" for number in range(rows)], "label": [number % 4 for number in range(rows)]}
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def card(*configurations: str) -> bytes:
    """README.md of a data set: where each configuration has its splits."""
    lines = ["---", "configs:"]
    for name in configurations:
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [f"  - {{split: {split}, path: data/{split}-*}}" for split in ("train", "test")]
    return "\n".join([*lines, "---", "A data set of a test.", ""]).encode()


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exists once foreign code has run."""
    return tmp_path_factory.mktemp("marker") / "foreign-code-ran"


@pytest.fixture(scope="module")
def content(tiny_bert: Path, marker: Path) -> dict[str, dict[str, Files]]:
    """Everything the hub of these tests has."""
    model = files_of(tiny_bert)  # its head belongs to two labels, and makes way for one of four
    code = f"open({str(marker)!r}, 'w')\n".encode()
    configuration = json.loads(model["config.json"])
    exotic = configuration | {
        "model_type": "exotic",
        "auto_map": {"AutoConfig": "code.Exotic", "AutoModelForSequenceClassification": "code.ExoticModel"},
    }
    rest = {name: content for name, content in model.items() if name != "model.safetensors"}
    news = {
        "README.md": card("default"),
        "data/train-00000-of-00001.parquet": parquet(48, "army and rebels sign peace accord"),
        "data/test-00000-of-00001.parquet": parquet(16, "striker scores twice"),
    }
    models = {
        "someone/tiny-bert": model,
        "roberta-base": model,
        "someone/pickled": {**rest, "pytorch_model.bin": pickle.dumps(Trap(marker))},
        "someone/exotic": {**model, "config.json": json.dumps(exotic).encode(), "code.py": code},
    }
    datasets = {
        "someone/tiny_news": news,
        "fancyzhx/ag_news": news,
        "someone/two": {**news, "README.md": card("short", "long")},
        "someone/script": {"README.md": b"Rows by script.", "script.py": code},
        "someone/empty": {"README.md": b"Soon.", "load.py": code},
    }
    return {"models": models, "datasets": datasets}


@dataclass(frozen=True)
class Trained:
    """A run trained from the hub, what the hub was asked, and the cache it left."""

    run: Path
    requests: list[str]
    home: Path
    hub: HubServer  # another, which has stopped


@pytest.fixture(scope="module")
def online(content: dict[str, dict[str, Files]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A running hub and an empty cache."""
    folder = tmp_path_factory.mktemp("online")
    with HubServer(**content) as hub, session(hub, folder / "home", folder / "work") as running:
        yield running


@pytest.fixture(scope="module")
def trained(online: Session, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    outcome = online.train("someone/tiny-bert", "someone/tiny_news")
    assert outcome.code == 0, outcome.shown
    shutil.copytree(online.folder.parent / "home", folder / "home", symlinks=True)
    with HubServer() as gone:
        pass
    return Trained(online.folder / "run-0", outcome.requests, folder / "home", gone)


@pytest.fixture(scope="module")
def down(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A hub that is gone, nothing saying so, and a cache that holds what `trained` asked for and nothing else."""
    with session(trained.hub, trained.home, tmp_path_factory.mktemp("down") / "work") as running:
        yield running


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_from_the_hub(trained: Trained) -> None:
    data = read(trained.run / "data.json")
    assert data["labels"] == LABELS
    assert data["validation_is_cut_from_train"]
    rows = {name: (one["source"], one["rows"], one["quarantined"]) for name, one in data["splits"].items()}
    assert rows == {
        "train": ("someone/tiny_news:train", 40, 0),
        "validation": ("someone/tiny_news:train", 8, 0),
        "test": ("someone/tiny_news:test", 16, 0),  # found by itself
    }
    backbone = read(trained.run / "manifest.json")["backbone"]
    assert (backbone["kind"], backbone["name"]) == ("hub", "someone/tiny-bert")
    assert len(backbone["sha256"]) == 64
    adapter = read(trained.run / "adapter" / "adapter_config.json")
    assert adapter["base_model_name_or_path"] == "someone/tiny-bert"
    downloads = [request for request in trained.requests if request.startswith("GET") and "/resolve/" in request]
    assert len(downloads) == len(set(downloads)) > 4  # each file once
    # and the hub is asked once what the data set's newest commit is, or its splits could be of two
    assert sum(request.endswith("tiny_news/resolve/main/README.md") for request in trained.requests) == 2  # HEAD, GET


def test_the_cache_does_without_the_hub(trained: Trained, down: Session) -> None:
    outcome = down.train("someone/tiny-bert", "someone/tiny_news")
    assert outcome.code == 0, outcome.shown
    assert "Retrying" not in outcome.shown
    assert outcome.seconds < SOON
    run = down.folder / "run-0"
    assert read(run / "data.json") == read(trained.run / "data.json")
    weights = [read(one / "adapter" / "newslora.json")["weights_sha256"] for one in (run, trained.run)]
    assert weights[0] == weights[1]


def test_a_slice_of_a_hub_data_set(online: Session) -> None:
    outcome = online.train("someone/tiny-bert", "someone/tiny_news:train[25%:]")
    assert outcome.code == 0, outcome.shown
    run = sorted(online.folder.iterdir(), key=lambda path: int(path.name.removeprefix("run-")))[-1]
    rows = {name: (one["source"], one["rows"]) for name, one in read(run / "data.json")["splits"].items()}
    assert rows == {
        "train": ("someone/tiny_news:train[25%:]", 28),
        "validation": ("someone/tiny_news:train[25%:]", 8),
        "test": ("someone/tiny_news:test", 16),  # whole
    }
    outcome = online.run("evaluate", str(run), "--data", "someone/tiny_news:test[:5]+train[:1]")
    assert outcome.code == 0, outcome.shown
    assert "6 rows of someone/tiny_news:test[:5]+train[:1]" in " ".join(outcome.shown.split())
    outcome = online.run("evaluate", str(run), "--by", "label")  # its test rows are found again
    assert outcome.code == 0, outcome.shown


def test_a_slice_that_cannot_be_read(online: Session, tiny_bert: Path) -> None:
    for split, reason in (("train[:10%", "Unrecognized"), ("tarin[:5]", "Unknown split"), ("train[:0]", "are none")):
        outcome = online.train(str(tiny_bert), f"someone/tiny_news:{split}")
        outcome.refuses(3, f"'someone/tiny_news:{split}'", reason, "NAME:train[:10%]")


def test_dry_run_of_seed_asks_nobody(online: Session) -> None:
    # a row a batch, as it times steps of RoBERTa-base; the hub has both names and would answer
    outcome = online.run("train", "seed", "--dry-run", "--set", "train.batch_size=1", "--device", "cpu")
    assert outcome.code == 0, outcome.shown
    assert "741,124" in outcome.shown
    assert outcome.requests == []  # commands that need the hub do show up there: see the next tests


def test_backbone_without_network(down: Session) -> None:
    outcome = down.train("bert-base-cased", "someone/tiny_news")
    outcome.refuses(7, "bert-base-cased", "--backbone FOLDER", "minilm")
    assert "Did you mean" not in outcome.shown  # it is what was meant


def test_data_set_without_network(down: Session) -> None:
    down.train("someone/tiny-bert", "fancyzhx/ag_news").refuses(
        7, "fancyzhx/ag_news", "local file", "--data", "'corpus'"
    )


def test_misspelt_backbone(online: Session) -> None:
    outcome = online.train("robeta-base", "someone/tiny_news")
    outcome.refuses(4, "'robeta-base'", "Did you mean 'roberta-base'")
    assert outcome.requests  # it was looked for


def test_unknown_revision(online: Session) -> None:
    outcome = online.train("someone/tiny-bert", "someone/tiny_news", "--set", "model.revision=v9")
    outcome.refuses(4, "v9", "someone/tiny-bert")


def test_unknown_data_set(online: Session, tiny_bert: Path) -> None:
    outcome = online.train(str(tiny_bert), "someone/nothing")
    outcome.refuses(3, "someone/nothing", "spelling")
    assert outcome.requests


def test_unknown_split(online: Session, tiny_bert: Path) -> None:
    online.train(str(tiny_bert), "someone/tiny_news:tset").refuses(3, "'tset'", "train, test", "Did you mean 'test'?")


def test_data_set_of_several_configurations(online: Session, tiny_bert: Path) -> None:
    online.train(str(tiny_bert), "someone/two").refuses(3, "'short', 'long'", "save_to_disk")


def test_data_set_without_data(online: Session, tiny_bert: Path, marker: Path) -> None:
    online.train(str(tiny_bert), "someone/empty").refuses(3, "someone/empty")
    assert not marker.exists()


def test_data_set_of_a_script_is_refused(online: Session, tiny_bert: Path, marker: Path) -> None:
    outcome = online.train(str(tiny_bert), "someone/script")
    outcome.refuses(3, "own Python code", "never runs", "--data")
    assert any("script.py" in request for request in outcome.requests)  # it was there to be run
    assert not marker.exists()


def test_backbone_of_remote_code_is_refused(
    online: Session, content: dict[str, dict[str, Files]], marker: Path, tmp_path: Path
) -> None:
    online.train("someone/exotic", "someone/tiny_news").refuses(4, "own Python code", "never runs")
    for name, file in content["models"]["someone/exotic"].items():
        (tmp_path / name).write_bytes(file)
    online.train(str(tmp_path), "someone/tiny_news").refuses(4, "own Python code", "never runs")
    assert not marker.exists()


def test_pickled_weights_are_refused(online: Session, marker: Path) -> None:
    outcome = online.train("someone/pickled", "someone/tiny_news")
    outcome.refuses(4, "no model.safetensors", "pickle", "--backbone")
    assert any("model.safetensors" in request for request in outcome.requests)
    assert not any("pytorch_model.bin" in request for request in outcome.requests)  # not even fetched
    # transformers would look for a conversion, and order one from a public service
    assert not any("commits" in request or "discussions" in request for request in outcome.requests)
    assert not marker.exists()


def test_pickled_weights_in_a_folder_are_refused(
    online: Session, content: dict[str, dict[str, Files]], marker: Path, tmp_path: Path
) -> None:
    for name, file in content["models"]["someone/pickled"].items():
        (tmp_path / name).write_bytes(file)
    online.train(str(tmp_path), "someone/tiny_news").refuses(4, "no model.safetensors", "pickle")
    assert not marker.exists()
    pickle.loads((tmp_path / "pytorch_model.bin").read_bytes())  # noqa: S301  # the trap does spring
    assert marker.exists()
    marker.unlink()


def test_damaged_weights(online: Session, content: dict[str, dict[str, Files]], tmp_path: Path) -> None:
    for name, file in content["models"]["someone/tiny-bert"].items():
        (tmp_path / name).write_bytes(file[:500] if name == "model.safetensors" else file)
    online.train(str(tmp_path), "someone/tiny_news").refuses(4, str(tmp_path))


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
