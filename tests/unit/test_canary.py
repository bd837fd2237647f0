"""An adapter that does not answer as when it was trained is refused, whatever was done to it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as numpy_file
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, MPNetConfig

from newslora.errors import BackboneError, CanaryError, NewsloraError, RunError
from newslora.files import sha256_file
from newslora.model.adapter import CARD, WEIGHTS
from newslora.predict.calibration import LOGITS
from newslora.predict.canary import CANARY, FP32_TOLERANCE, canary_texts, check_canary, load_canary
from newslora.predict.classifier import Classifier
from newslora.serving.service import Service
from newslora.serving.settings import ServeSettings

HEAD = "base_model.model.classifier"


@pytest.fixture
def adapter(planted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted / "adapter", tmp_path / "adapter"))


@pytest.fixture(scope="module")
def service(planted: Path) -> Service:
    made = Service(ServeSettings())
    made.load("kept", planted)
    return made


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def retouch(adapter: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change weights, and every hash that would tell, as whoever repacks a folder would."""
    tensors = load_file(adapter / WEIGHTS)
    change(tensors)
    save_file(tensors, adapter / WEIGHTS)
    for name in (CARD, CANARY, "calibration.json"):
        if (adapter / name).exists():
            edit(adapter / name, weights_sha256=sha256_file(adapter / WEIGHTS))


def refused(service: Service, adapter: Path, kind: type[NewsloraError], match: str) -> None:
    """Also under a name that is served: what was there stays."""
    before = service.adapters()
    with pytest.raises(kind, match=match):
        service.load("kept", adapter)
    assert service.adapters() == before
    assert service.get("kept").warning is None


def test_a_finished_run_holds_its_canary_and_is_served(service: Service, adapter: Path, planted: Path) -> None:
    canary = load_canary(adapter, Classifier.load(planted).card.weights_sha256)
    assert canary is not None
    assert canary.texts == canary_texts()
    assert len(set(canary.texts)) == 32
    wanted = Classifier.load(planted, engine="padded")
    assert np.abs(wanted.logits(wanted.rows(canary.texts)) - canary.logits).max() < 1e-5
    assert np.ptp(canary.logits, axis=0).max() > 0.1  # texts differ, so equal answers mean something
    assert service.load("another", adapter).warning is None
    service.remove("another")


def test_another_backbone_is_refused(service: Service, adapter: Path, tiny_bert: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_bert, other)
    torch.manual_seed(9)
    AutoModel.from_config(AutoConfig.from_pretrained(tiny_bert)).save_pretrained(other)
    edit(adapter / CARD, backbone=str(other))
    refused(service, adapter, BackboneError, "were trained on|was trained on")
    edit(adapter / CARD, backbone_sha256=sha256_file(other / "model.safetensors"))
    refused(service, adapter, CanaryError, r"as it did when it was trained or exported: a logit differs by [\d.]+")
    edit(adapter / CARD, backbone_sha256=None)
    refused(service, adapter, CanaryError, r"a logit differs by [\d.]+, and at most 0.0001 is rounding")


def zero_b(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensor.zero_()


def fresh_head(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{HEAD}.weight"].normal_(0, 0.02)
    tensors[f"{HEAD}.bias"].zero_()


def test_untrained_adapters_of_families_that_share_nothing_are_refused_too(
    service: Service, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    config = MPNetConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, pad_token_id=0,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(tmp_path / "base")
    folder = make_adapter(tmp_path / "mpnet", tmp_path / "base")
    assert "could not be checked" in (service.load("mpnet", folder).warning or "")
    service.remove("mpnet")
    retouch(folder, zero_b)
    refused(service, folder, CanaryError, "adds nothing")


@pytest.mark.parametrize("with_canary", [True, False])
@pytest.mark.parametrize(
    ("change", "match"),
    [(zero_b, "every A or B of its LoRA is zero"), (fresh_head, "fresh head: every bias of it is zero")],
)
def test_an_untrained_adapter_is_refused_even_without_a_canary(
    change: Any, match: str, with_canary: bool, service: Service, adapter: Path
) -> None:
    retouch(adapter, change)
    if not with_canary:
        (adapter / CANARY).unlink()
    refused(service, adapter, CanaryError, match)


def test_an_adapter_whose_lora_changes_nothing_is_refused(service: Service, adapter: Path) -> None:
    """Nothing is zero, and yet no answer is the adapter's."""
    (adapter / CANARY).unlink()
    retouch(adapter, lambda tensors: [t.mul_(1e-12) for name, t in tensors.items() if "lora_A" in name] and None)
    refused(service, adapter, CanaryError, "answers as its backbone does without its LoRA")


def test_labels_in_another_order_are_refused(service: Service, adapter: Path) -> None:
    assert service.get("kept").labels == ("World", "Sports")
    edit(adapter / CARD, labels=["Sports", "World"])
    refused(service, adapter, CanaryError, "names its labels Sports, World, and its config.json World, Sports")
    edit(adapter / "config.json", id2label={"0": "Sports", "1": "World"})
    refused(service, adapter, CanaryError, "labels Sports, World, and gave its stored answers with World, Sports")
    edit(adapter / CANARY, labels=["Sports", "World"])
    retouch(adapter, lambda tensors: tensors.update({f"{HEAD}.weight": tensors[f"{HEAD}.weight"].flip(0).contiguous()}))
    refused(service, adapter, CanaryError, "a logit differs by")


def test_flipped_bits_are_refused(service: Service, adapter: Path) -> None:
    data = bytearray((adapter / WEIGHTS).read_bytes())
    data[-3] ^= 1
    (adapter / WEIGHTS).write_bytes(data)
    refused(service, adapter, RunError, "missing or damaged: their hash is not the card's")

    def flip(tensors: dict[str, torch.Tensor]) -> None:
        bits = tensors[f"{HEAD}.weight"].view(torch.int32)
        bits[0, 0] ^= 1 << 26  # of the exponent

    retouch(adapter, flip)
    refused(service, adapter, CanaryError, "a logit differs by")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (1 << 62).to_bytes(8, "little") + b"{}",
        (2_000_000).to_bytes(8, "little") + b"[" * 2_000_000,
        (71).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [999999999999], "data_offsets": [0, 8]}}',
    ],
    ids=["empty", "a header without end", "nested deeply", "a shape beyond the file"],
)
def test_a_file_that_is_no_safetensors_is_refused_though_its_hash_is_right(
    service: Service, adapter: Path, content: bytes
) -> None:
    (adapter / WEIGHTS).write_bytes(content)
    edit(adapter / CARD, weights_sha256=sha256_file(adapter / WEIGHTS))
    refused(service, adapter, RunError, "is no safetensors file that can be read")
    (adapter / "calibration.json").unlink()  # of other weights
    with pytest.raises(RunError, match="is no safetensors file that can be read"):
        Classifier.load(adapter, engine="padded")


def test_validation_rows_of_another_adapter_are_refused_before_it_is_served(service: Service, adapter: Path) -> None:
    """It answered, and what compares its answers with those rows did not."""
    held = numpy_file(adapter / LOGITS)
    save_numpy({"logits": held["logits"].repeat(2, axis=1), "labels": held["labels"]}, adapter / LOGITS)
    edit(adapter / "calibration.json", logits_sha256=sha256_file(adapter / LOGITS))
    refused(service, adapter, RunError, "does not hold a finite logit of each of 2 labels")


def test_a_canary_of_another_adapter_or_a_damaged_one_is_refused(service: Service, adapter: Path) -> None:
    edit(adapter / CANARY, weights_sha256="0" * 64)
    refused(service, adapter, CanaryError, "is of another adapter")
    edit(adapter / CANARY, logits=[[1.0, 2.0]])
    refused(service, adapter, RunError, "is damaged")
    (adapter / CANARY).write_text("{")
    refused(service, adapter, RunError, "is damaged")


def test_without_a_canary_it_is_served_with_a_warning(service: Service, adapter: Path) -> None:
    (adapter / CANARY).unlink()
    warning = service.load("older", adapter).warning
    assert warning is not None
    assert "could not be checked" in warning
    service.remove("older")


def test_a_coarse_engine_may_round_each_logit_and_all_of_them_less(adapter: Path) -> None:
    version = json.loads((adapter / CARD).read_text())["weights_sha256"]
    canary = load_canary(adapter, version)
    assert canary is not None
    labels = canary.labels
    check_canary(canary, labels, canary.logits + FP32_TOLERANCE / 2, True, "x")
    with pytest.raises(CanaryError, match=r"differs by 0\.0002"):
        check_canary(canary, labels, canary.logits + 2 * FP32_TOLERANCE, True, "x")
    with pytest.raises(CanaryError, match="differs by inf"):
        check_canary(canary, labels, canary.logits * np.nan, True, "x")
    scale = max(1.0, float(np.abs(canary.logits).max()))
    one = np.zeros_like(canary.logits)
    one[3, 1] = scale
    check_canary(canary, labels, canary.logits + np.float32(0.09) * one, False, "x")
    with pytest.raises(CanaryError, match="a logit differs"):
        check_canary(canary, labels, canary.logits + np.float32(0.11) * one, False, "x")
    canary = replace(canary, logits=canary.logits / np.sqrt(np.square(canary.logits).mean()))  # of usual size
    check_canary(canary, labels, canary.logits * np.float32(1.02), False, "x")
    with pytest.raises(CanaryError, match=r"differ by 4\.0% of their size, and at most 3%"):
        check_canary(canary, labels, canary.logits * np.float32(1.04), False, "x")
