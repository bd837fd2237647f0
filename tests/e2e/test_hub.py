"""Backbones and data sets by hub name: online, from the cache, without a network, and what is refused."""

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_parts import LABELS, SOON, Session, Trap, card, parquet, session
from hub_server import Files, HubServer, files_of


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
