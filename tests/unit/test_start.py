"""A run may start from a trained adapter: from its very weights, and only where recipe and rows are made for them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from article_parts import AG

from newslora.config import Recipe, load_recipe
from newslora.errors import BackboneError, DataError, RunError, SettingsError
from newslora.estimator import NewsClassifier
from newslora.model.backbones import resolve_backbone
from newslora.model.start import Start, find_start
from newslora.plan import make_plan

Make = Callable[..., Path]


def recipe(adapter: Path, backbone: Path, **changes: Any) -> Recipe:
    given = {"model.adapter": str(adapter), "model.backbone": str(backbone)}
    return load_recipe("seed", given | {key.replace("__", "."): value for key, value in changes.items()})


def start(made: Recipe, folder: str | None = None) -> Start:
    found = find_start(made, resolve_backbone(made.model.backbone), folder)
    assert found is not None
    return found


def test_nothing_is_started_from_where_nothing_is_named(tiny_bert: Path) -> None:
    assert find_start(load_recipe("seed"), resolve_backbone(str(tiny_bert))) is None


def test_a_run_and_its_adapter_folder_are_the_same_start(planted: Path, tiny_bert: Path) -> None:
    of_run, of_adapter = (start(recipe(path, tiny_bert)) for path in (planted, planted / "adapter"))
    assert of_run.version == of_adapter.version
    assert of_run.card.labels == ("World", "Sports")
    for one in (of_run, of_adapter):
        assert one.run is not None
        assert one.run.path == planted.resolve()


def test_an_adapter_by_itself_has_no_run(planted: Path, tiny_bert: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(planted / "adapter", tmp_path / "alone")
    assert start(recipe(alone, tiny_bert)).run is None
    shutil.copytree(planted, tmp_path / "other")
    shutil.copytree(planted / "adapter", tmp_path / "other" / "adapter", dirs_exist_ok=True)
    manifest = tmp_path / "other" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(start(recipe(alone, tiny_bert)).version, "0" * 64))
    assert start(recipe(tmp_path / "other", tiny_bert)).run is None  # the folder holds another run's adapter


def test_a_relative_name_is_looked_for_where_the_run_was_trained(
    planted: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "desk").mkdir()
    shutil.copytree(planted / "adapter", tmp_path / "desk" / "news")
    monkeypatch.chdir(tmp_path)
    found = start(recipe(Path("news"), tiny_bert), str(tmp_path / "desk"))
    assert (found.name, found.folder, found.is_relative) == ("news", tmp_path / "desk" / "news", False)
    monkeypatch.chdir(tmp_path / "desk")
    assert start(recipe(Path("news"), tiny_bert), str(tmp_path / "elsewhere")).is_relative
    assert not start(recipe(planted, tiny_bert)).is_relative


def test_every_setting_that_differs_is_named_with_the_way_to_match(
    make_adapter: Make, tiny_bert: Path, tmp_path: Path
) -> None:
    made = make_adapter(tmp_path / "a", lora={"rank": 8, "alpha": 32, "dropout": 0.3, "targets": "all-linear"})
    with pytest.raises(SettingsError) as caught:
        start(recipe(made, tiny_bert, data__multi_label=True))
    told = str(caught.value)
    for one in (
        "lora.rank is 4 and the adapter's 8", "lora.alpha is 16 and the adapter's 32",
        "lora.targets is query-value and the adapter's all-linear", "data.multi_label is true and the adapter's false",
        "--set lora.rank=8 --set lora.alpha=32 --set lora.targets=all-linear --set data.multi_label=false",
    ):  # fmt: skip
        assert one in told
    assert "dropout" not in told  # shapes no weights
    same = recipe(made, tiny_bert, lora__rank=8, lora__alpha=32, lora__targets="all-linear", lora__dropout=0.0)
    assert start(same).card.lora["rank"] == 8


def test_a_backbone_is_known_by_its_weights(make_adapter: Make, tiny_bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    moved, other = (Path(shutil.copytree(tiny_bert, tmp_path / name)) for name in ("moved", "other ones"))
    save_file({k: 2 * v for k, v in load_file(other / "model.safetensors").items()}, other / "model.safetensors")
    made = make_adapter(tmp_path / "a")
    assert start(recipe(made, moved)).card.backbone == str(tiny_bert)
    with pytest.raises(SettingsError, match=rf"model\.backbone is {other} and the adapter's {tiny_bert}") as caught:
        start(recipe(made, other, lora__rank=2))
    assert f"--set model.backbone={tiny_bert} --set lora.rank=4" in str(caught.value)
    of_others = make_adapter(tmp_path / "b", backbone=other)
    shutil.copy(tiny_bert / "model.safetensors", other)
    with pytest.raises(BackboneError, match=r"has other weights .* was trained on .*restore them") as caught:
        start(recipe(of_others, other))
    assert "--set" not in str(caught.value)  # no setting would help


@pytest.mark.parametrize("kind", ["merged", "int8", "onnx", "onnx-int8"])
def test_weights_without_lora_are_no_start(
    kind: str, planted: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newslora.model.adapter.check_export", lambda *_: None)
    folder = shutil.copytree(planted / "adapter", tmp_path / "export")
    card = json.loads((folder / "newslora.json").read_text()) | {"export": kind}
    (folder / "newslora.json").write_text(json.dumps(card))
    with pytest.raises(RunError, match=f"is an export to {kind}, which holds no LoRA .* Name the run"):
        start(recipe(folder, tiny_bert))
    (folder / "newslora.json").write_text(json.dumps(card | {"export": "peft"}))
    assert start(recipe(folder, tiny_bert)).card.export == "peft"


def test_what_is_not_there_not_whole_or_damaged_is_said(planted: Path, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"There is no run folder '{tmp_path / 'nothing'}'"):
        start(recipe(tmp_path / "nothing", tiny_bert))
    folder = shutil.copytree(planted / "adapter", tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="missing or damaged"):
        start(recipe(folder, tiny_bert))
    (folder / "newslora.json").unlink()
    with pytest.raises(RunError, match="is not a run folder"):
        start(recipe(folder, tiny_bert))


def test_a_dry_run_of_rows_that_are_not_here_looks_at_labels(
    make_adapter: Make, tiny_bert: Path, tmp_path: Path
) -> None:
    made = recipe(make_adapter(tmp_path / "a", labels=AG[::-1]), tiny_bert)
    assert start(made).told in make_plan(made, "cpu").notes
    with pytest.raises(DataError, match=r"does not know: Business, Sci/Tech\."):
        make_plan(recipe(make_adapter(tmp_path / "b"), tiny_bert), "cpu")


def test_the_estimator_has_an_order_of_its_own(planted: Path, tiny_bert: Path) -> None:
    with pytest.raises(SettingsError, match=r"model\.adapter.*newslora\.train"):
        NewsClassifier(recipe(planted, tiny_bert)).fit(["a b", "c d"] * 8, [0, 1] * 8)
