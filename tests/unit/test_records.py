"""The JSON files of an adapter folder: whatever stands in them, it is served or refused in a sentence that says where."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import newslora
from newslora.errors import BackboneError, NewsloraError, RunError
from newslora.exporting.forms import open_stock_peft
from newslora.files import sha256_file
from newslora.model.adapter import load_adapter, read_card, same_backbone
from newslora.predict.classifier import Classifier
from newslora.serving.service import Service
from newslora.serving.settings import ServeSettings

ODD: list[Any] = [
    None, True, -1, 0, 2, 10**30, 1e308, "", "x", "512", "a\x00b", "../..", "x" * 5000, [], [1], ["x", "x"], [[]],
    [None, "x"], {}, {"x": []},
]  # fmt: skip
FILES = {
    "newslora.json": None,
    "calibration.json": ("format", "weights_sha256", "logits_sha256", "temperature", "reason"),
    "canary.json": None,
    "config.json": ("id2label",),
}


@pytest.fixture
def adapter(planted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted / "adapter", tmp_path / "adapter"))


@pytest.mark.parametrize("name", FILES)
def test_no_value_of_any_field_is_more_than_refused(
    name: str, adapter: Path, planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newslora.model.backbones.hub_answers", lambda: False)
    service = Service(ServeSettings())
    service.load("kept", planted)  # its encoder is loaded once
    good = json.loads((adapter / name).read_text())
    refused = 0
    for field in FILES[name] or tuple(good):
        for changed in (*({field: value} for value in ODD), None):
            record = {key: value for key, value in good.items() if key != field} | (changed or {})
            (adapter / name).write_text(json.dumps(record))
            try:
                service.load("news", adapter)
            except NewsloraError as error:
                refused += 1
                assert str(adapter) in str(error) or field.startswith("backbone"), (field, changed, error)
            except Exception as error:
                raise AssertionError(f"{name}: {field} as {changed}") from error
    assert refused > 10


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("newslora.json", {"max_length": "512"}, "max_length is '512': input should be a valid integer"),
        ("newslora.json", {"max_length": 0}, "max_length is 0: input should be greater than or equal to 1"),
        ("newslora.json", {"lora": [1]}, r"lora is \[1\]: input should be an object"),
        (
            "newslora.json",
            {"lora": {"rank": "x"}},
            "lora is {'rank': 'x'}: rank is 'x': input should be a valid integer",
        ),
        ("newslora.json", {"lora": {"rank": 0}}, "rank is 0: input should be greater than or equal to 1"),
        ("newslora.json", {"lora": {"alpha": -4}}, "alpha is -4: input should be greater than 0"),
        ("newslora.json", {"lora": {"alpha": float("nan")}}, "alpha is nan: input should be a finite number"),
        (
            "newslora.json",
            {"lora": {"alpha": 1e308}},
            r"alpha is 1e\+308: input should be less than or equal to 1000000",
        ),
        ("newslora.json", {"backbone": -1}, "backbone is -1: input should be a valid string"),
        ("newslora.json", {"backbone_sha256": 1e308}, "backbone_sha256 is 1e[+]308: input should be a valid string"),
        ("newslora.json", {"labels": ["World", "World"]}, "labels is .*: a name stands there twice"),
        ("newslora.json", {"labels": ["World", 2]}, "labels.1 is 2: input should be a valid string"),
        ("newslora.json", {"colour": 1}, "there is no field 'colour' here \\(a newer newslora may have it\\)"),
        ("newslora.json", {"max_length": None, "multi_label": 1, "lora": 1, "backbone": 1}, "; 1 more"),
        ("calibration.json", {"temperature": "1"}, "temperature is '1': input should be a valid number"),
        ("canary.json", {"weights_sha256": 0}, "weights_sha256 is 0: input should be a valid string"),
        ("canary.json", {"logits": [[1.0, 2.0], [1.0]]}, "its logits are not those of its texts and labels"),
        ("canary.json", {"logits": [[1e308, 1.0]] * 32}, "its logits are not those of its texts and labels"),
    ],
)
def test_the_sentence_names_the_file_and_the_field(
    name: str, changes: dict[str, Any], told: str, adapter: Path
) -> None:
    path = adapter / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(RunError, match=f"{name} is damaged: .*{told}") as refused:
        Service(ServeSettings()).load("news", adapter)
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_card_or_a_configuration_of_another_adapter_is_a_sentence(adapter: Path) -> None:
    backbone = same_backbone(read_card(adapter))
    for name, change, told in (
        ("adapter_config.json", {"peft_type": {}}, r"by its adapter_config\.json: TypeError: .*Restore the folder"),
        ("adapter_config.json", {"modules_to_save": [10**30]}, r"by its adapter_config\.json: "),
        ("config.json", {"model_type": "no such"}, r"by its config\.json: "),
    ):
        before = (adapter / name).read_text()
        (adapter / name).write_text(json.dumps(json.loads(before) | change))
        with pytest.raises(BackboneError, match=told):
            open_stock_peft(adapter, backbone)
        (adapter / name).write_text(before)
    card = json.loads((adapter / "newslora.json").read_text())
    (adapter / "newslora.json").write_text(json.dumps(card | {"labels": card["labels"][:1]}))
    with pytest.raises(RunError, match=r"does not fit its newslora\.json or its backbone: .*Restore the folder"):
        load_adapter(adapter, read_card(adapter))


def test_answers_that_are_no_numbers_are_refused(
    adapter: Path, news_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load(adapter)
    monkeypatch.setattr(
        Classifier, "logits", lambda self, rows, progress=None: np.full((len(rows), 2), np.nan, np.float32)
    )
    told = r"adapter answers with numbers that are not finite, in fp32\. Restore the folder"
    for ask in (classifier, classifier.predict_proba):
        with pytest.raises(RunError, match=told):
            ask(["treaty games"])
    with pytest.raises(RunError, match=told):
        newslora.predict_file(classifier, news_file, adapter.parent / "out.csv")


def test_what_is_missing_and_what_is_no_json_is_named(adapter: Path) -> None:
    path = adapter / "calibration.json"
    record = json.loads(path.read_text())
    del record["reason"]
    path.write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"calibration\.json is damaged: reason is missing\. Restore it, or remove it"):
        Service(ServeSettings()).load("news", adapter)
    for content, told in (
        (b"", "EOF"),
        (b"\xff", "invalid JSON"),
        (b"[" * 10**5, "recursion"),
        (b"[]", "not a JSON object"),
    ):
        (adapter / "newslora.json").write_bytes(content)
        with pytest.raises(RunError, match=rf"newslora\.json is damaged: .*{told}"):
            read_card(adapter)


def test_a_tokenizer_or_a_file_that_cannot_be_read_is_a_sentence_too(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (adapter / "tokenizer.json").write_text("{")
    with pytest.raises(RunError, match=r"The tokenizer in .* cannot be read"):
        Service(ServeSettings()).load("news", adapter)

    def closed(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("newslora.files.sha256_file", closed)
    with pytest.raises(RunError, match=r"adapter_model\.safetensors cannot be read: Permission denied\."):
        Service(ServeSettings()).load("news", adapter)


def test_what_newslora_wrote_is_read_as_it_was_written(planted: Path) -> None:
    card = read_card(planted / "adapter")
    assert json.loads(json.dumps(card.record())) == json.loads((planted / "adapter" / "newslora.json").read_text())
    assert card.weights_sha256 == sha256_file(planted / "adapter" / "adapter_model.safetensors")
