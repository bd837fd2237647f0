"""A whole run on a GPU, where there is one; benchmarks/gpu.py on a CPU: it reaches its end, and stops where it should."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import RobertaConfig

import newslora
from children import PATIENCE, start
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.model.packed.varlen import Call, RowByRow
from newslora.training.watch import Silent

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run_script(*words: str) -> None:
    sys.path.insert(0, str(BENCHMARKS))  # as `python benchmarks/gpu.py` has it
    sys.argv = ["gpu.py", *words]
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")


def test_the_script_runs_to_its_end_on_a_small_encoder(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    child = start(run_script, "--device", "cpu", "--tiny", "-o", str(out))
    child.join(PATIENCE)
    assert child.exitcode == 0
    result = json.loads(out.read_text())
    assert "stopped" not in result
    assert set(result["checks"]) == {"fp32", "bf16", "dropout", "graphs"}
    assert result["checks"]["bf16"]["attention"] == "one kernel for all rows"
    assert result["checks"]["graphs"]["captured"] > 0
    rates = {name: one["rows_per_second"] for name, one in result["training_by_turns"]["variants"].items()}
    assert set(rates) == {"trainer", "newslora"}
    assert result["training_by_turns"]["ratios"]["newslora"] == pytest.approx(rates["newslora"] / rates["trainer"])
    for name, steps in (("seed", 125), ("fast", 35)):  # 400 rows, 5 epochs of 16 or 64
        recipe = result[name]
        assert recipe["steps_of_the_recipe"] == steps
        measured = recipe["steps_measured"] == steps
        assert recipe["all_steps_seconds_are"] == ("measured" if measured else "extrapolated from the steps measured")
        assert recipe["all_steps_seconds"] >= 0.9 * recipe["seconds_measured"]
    assert result["prediction"]["rows"] == 40
    assert result["environment"]["packages"]["torch"]


def make_checks(kernel: Any) -> Any:
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    from gpu_checks import Checks  # type: ignore[import-not-found]

    config = RobertaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, pad_token_id=1,
    )  # fmt: skip
    lengths = np.random.default_rng(0).integers(3, 50, 64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.random.default_rng(1).integers(5, 60, int(offsets[-1])).astype(np.int32)
    rows = Rows(TokenTable(ids, offsets), np.arange(64) % 4, pad_id=1)
    checks = Checks(config, rows, torch.device("cpu"), draws=8)
    checks.kernel = kernel
    return checks


class Fainter(RowByRow):
    """Wrong: it answers a fifth too little."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: Call) -> tuple[torch.Tensor, Any]:
        return super().forward(q, k, v * 0.8, call)


def test_a_wrong_kernel_is_found_before_anything_is_timed() -> None:
    make_checks(RowByRow()).bf16()
    with pytest.raises(Exception, match=r"bf16 (logits|gradient).*No timing would mean anything") as caught:
        make_checks(Fainter()).bf16()
    assert type(caught.value).__name__ == "CheckError"


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))],
)
def test_a_packed_run_with_graphs_ends_with_the_same_bytes_twice(
    device: str, tiny_bert: Path, news_file: Path, tmp_path: Path
) -> None:
    """Heads of 16 numbers, so that flash attention takes them; on a CPU a note says that there are no graphs."""
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    def adapter(name: str) -> bytes:
        run = newslora.train(
            "seed", output=tmp_path / name, device=device, report=False, watcher=Notes(), model__backbone=str(tiny_bert),
            data__source=str(news_file), data__validation_rows=8, data__label_names=None, data__workers=0,
            train__epochs=3, train__batch_size=4, train__warmup_steps=2, train__learning_rate=1e-2,
            train__precision="bf16", train__engine="packed", train__cuda_graphs=True,
        )  # fmt: skip
        return (run.adapter / "adapter_model.safetensors").read_bytes()

    assert adapter("one") == adapter("two")
    assert any("graphs need a GPU" in note for note in notes) == (device == "cpu")
    assert not any("steps run one by one" in note for note in notes) or device == "cpu"
