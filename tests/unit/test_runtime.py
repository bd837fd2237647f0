"""Devices by name, the precision each computes in, seeds, and what the process is told about its memory."""

import ctypes
import gc
import os
import platform
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from children import in_child
from newslora.cli.app import heed_sigterm, main
from newslora.data.store import kept, read_columns
from newslora.errors import InterruptedRun, SettingsError
from newslora.runtime import (
    COLLECT_AFTER,
    MALLOPT,
    Precision,
    cache_folder,
    keep_freed_memory,
    machine_record,
    pick_device,
    resolve_precision,
    seed_everything,
)


def new_pages(kept: bool) -> tuple[bool | None, int]:
    """In a child: what keep_freed_memory says, and the pages that ten rounds take; where it is not asked, all is given back."""
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        os.environ.pop(name, None)
    torch.set_num_threads(1)
    done = keep_freed_memory() if kept else None

    def take_and_free() -> None:
        first, second = torch.ones(1 << 21), torch.ones(1 << 22)  # 8 and 16 MiB
        del second, first
        if not kept:
            ctypes.CDLL(None).malloc_trim(0)

    for _ in range(3):
        take_and_free()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        take_and_free()
    return done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.parametrize("name", ["warp", "mps", "meta", "xpu:0", "cpu:x"])
def test_a_device_newslora_does_not_compute_on_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"no device '{name}' for newslora\. Allowed: 'cpu', 'cuda'"):
        pick_device(name)


def test_a_cuda_device_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"'cuda:1' was asked for, but this torch sees no CUDA device"):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(pick_device(name)) for name in ("cuda", "cuda:1", "cpu", None)] == ["cuda", "cuda:1", "cpu", "cuda"]
    with pytest.raises(
        SettingsError, match=r"'cuda:2' was asked for, but there are 2 CUDA devices, counted from cuda:0"
    ):
        pick_device("cuda:2")


CPU = torch.device("cpu")
SLOW = {"avx2": True, "avx512_f": True, "avx512_vnni": True, "amx_int8": True, "avx512_bf16": False, "amx_bf16": False}
BF16_CPU = "the CPU multiplies bf16 (AVX512-BF16 or AMX)"


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        (SLOW | {"avx512_bf16": True}, Precision("bf16", BF16_CPU)),
        (SLOW | {"amx_bf16": True}, Precision("bf16", BF16_CPU)),
        (SLOW, Precision("fp32", "the CPU has no fast bf16")),
        (
            {"architecture": "aarch64", "bf16": True},
            Precision("fp32", "the CPU has no fast bf16"),
        ),  # names of another kind
    ],
)
def test_a_cpu_computes_in_bf16_where_it_multiplies_it(
    capabilities: dict[str, object], wanted: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    found = resolve_precision("auto", CPU)
    assert found == wanted
    record = machine_record(CPU, found)
    assert (record["precision"], record["precision_reason"]) == (wanted.name, wanted.reason)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other chips have other capabilities")
def test_torch_tells_what_the_cpu_is_asked_for() -> None:
    assert {"avx512_bf16", "amx_bf16"} <= set(torch.cpu.get_capabilities())


def test_a_gpu_computes_in_bf16_where_it_multiplies_it_and_else_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: pytest.fail("a GPU's answer is not the CPU's"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert resolve_precision("auto", gpu) == Precision("bf16", "the GPU multiplies bf16")
    # torch says yes of older ones too, which emulate it slowly
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert resolve_precision("auto", gpu) == Precision("fp16", "the GPU has no bf16")


@pytest.mark.parametrize("able", [True, False])
def test_a_precision_that_is_named_is_taken_whatever_the_device_does_fast(
    able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: SLOW | {"amx_bf16": able})
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == [
        Precision("fp32", "asked for"),
        Precision("bf16", "asked for"),
    ]
    assert resolve_precision("fp16", torch.device("cuda")) == Precision("fp16", "asked for")
    with pytest.raises(SettingsError, match=r"'fp16' but the device is a CPU\. Use 'auto', 'bf16' or 'fp32'"):
        resolve_precision("fp16", CPU)
    with pytest.raises(SettingsError, match=r"no precision 'fp8'\. Allowed: auto, fp32, bf16, fp16"):
        resolve_precision("fp8", CPU)


@pytest.mark.parametrize(("able", "told"), [(True, f"bf16 ({BF16_CPU})"), (False, "fp32 (the CPU has no fast bf16)")])
def test_a_dry_run_tells_the_precision_and_why(
    able: bool, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: SLOW | {"avx512_bf16": able})
    monkeypatch.setattr("newslora.plan._time_step", lambda *arguments: 0.25)
    assert main(["train", "seed", "--dry-run", "--device", "cpu"]) == 0
    assert f"precision {told}" in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_taken_again_without_new_pages() -> None:
    done, pages = in_child(new_pages, True)
    if not done:
        pytest.skip("no glibc here")
    _, given_back = in_child(new_pages, False)  # as glibc may do by itself
    assert 3 * pages < given_back


@pytest.mark.parametrize("taken", [1, 0])
def test_both_thresholds_of_the_allocator_are_set(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """glibc may keep freed memory by itself, so pages alone do not tell that it was asked to."""
    asked: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, which: int, value: int) -> int:
            asked.append((which, value))
            return taken

    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    assert keep_freed_memory() is bool(taken)
    assert asked == list(MALLOPT)[: 2 if taken else 1]


def test_who_sets_malloc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert keep_freed_memory() is False


def test_a_command_looks_for_cycles_seldom() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        assert main(["settings"]) == 0
        assert gc.get_threshold() == (COLLECT_AFTER, 10, 10)
    finally:
        gc.set_threshold(*before)


def test_a_process_with_a_gpu_is_seeded_as_torch_seeds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two generators stand in for those of two GPUs."""
    seeds: list[int] = []
    seed_of_torch = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed) or seed_of_torch(seed))
    seed_everything(7, 3, 1)
    wanted = torch.rand(8)
    assert len(seeds) == 1
    there = torch.Generator(), torch.Generator()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "default_generators", there)
    seed_everything(7, 3, 1)
    assert len(seeds) == 1  # torch itself would have asked for every kind of device
    assert torch.equal(torch.rand(8), wanted)
    assert [generator.initial_seed() for generator in there] == seeds * 2


def test_sigterm_ends_a_containers_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """For process 1 the system ignores what has no handler; elsewhere its own end is the quickest."""
    before = signal.getsignal(signal.SIGTERM)
    heed_sigterm()
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr(os, "getpid", lambda: 1)
    try:
        heed_sigterm()
        with pytest.raises(InterruptedRun) as ended:
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.exit_code == 143
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_account_without_a_home_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("NEWSLORA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", none)
    columns = {"ids": np.arange(3)}
    path = cache_folder() / "tokens" / "x.safetensors"
    assert kept(path, columns, {}) is columns
    assert read_columns(path) is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "newslora"
