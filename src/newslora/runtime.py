"""The machine: device, precision, seed and the record of where a run happened. Nothing here runs at import."""

import contextlib
import ctypes
import functools
import gc
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from newslora.errors import SettingsError

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "newslora", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "scikit-learn", "scipy", "numba",
)  # fmt: skip
KEPT = 1 << 30  # bytes
COLLECT_AFTER = 20_000  # new objects
MALLOPT = ((-3, 32 << 20), (-1, KEPT))  # M_MMAP_THRESHOLD at the most it takes, M_TRIM_THRESHOLD; <malloc.h>
MOST_PASSES = 4  # at the same time: each holds numbers of its own
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Precision:
    """What the forward pass computes in; parameters and optimiser state stay fp32."""

    name: str  # "fp32", "bf16" or "fp16"
    reason: str  # why this one, for the screen and the manifest

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    def autocast(self, device: "torch.device") -> "torch.autocast":
        """torch's mixed precision on `device`; does nothing for fp32."""
        import torch

        return torch.autocast(device.type, dtype=self.dtype, enabled=self.name != "fp32")


def keep_freed_memory() -> bool:
    """Let glibc's allocator keep what is freed, up to `KEPT`, for a process that is newslora's own, as its commands are.

    A forward pass takes and frees tens of MiB hundreds of times. glibc may give each back to the system, and the next one's
    pages are then new ones, to be cleared and mapped one by one: which of the two happens differs from process to process, and
    can double the time of a pass (docs/log.md). mallopt(3) has the two thresholds.

    Returns:
        Whether it was done: not without glibc, and not where the environment decides about malloc itself.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and all(mallopt(which, value) == 1 for which, value in MALLOPT)


def collect_seldom() -> None:
    """Let Python look for unreachable cycles after `COLLECT_AFTER` new objects, in a process that is newslora's own.

    Importing torch and transformers makes hundreds of thousands of objects that stay. By Python's default, 700, all there are
    by then are looked through seven times on the way: about a seventh of the time from start to ready (docs/results.md).
    """
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


def end_process(code: int) -> NoReturn:
    """End at once, without waiting for threads that compute or for the interpreter's own end; what was printed is written."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def pick_device(name: str | None = None) -> "torch.device":
    """The named device, else the first CUDA one, else the CPU.

    Raises:
        SettingsError: the named device does not exist here.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise SettingsError(f"There is no device '{name!s:.60}' for newslora. Allowed: 'cpu', 'cuda', 'cuda:0', ...")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"Device '{name}' was asked for, but this torch sees no CUDA device. Use 'cpu'.")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise SettingsError(f"Device '{name}' was asked for, but there are {count} CUDA devices, counted from cuda:0.")
    return device


def check_device(name: str | None) -> None:
    """Refuse a device that is not here before any work is done; where none is named, torch is not even imported.

    Raises:
        SettingsError: as `pick_device`.
    """
    if name is not None:
        pick_device(name)


def passes_at_once(device: "torch.device") -> int:
    """Forward passes without gradients to compute beside each other: one for each of a CPU's threads, at most `MOST_PASSES`.

    Threads that compute one pass together wait for each other some hundred times in it, and for whatever else the machine runs
    on their cores; what Python does between the operations keeps all of them waiting (docs/decisions.md).
    """
    import torch

    return min(torch.get_num_threads(), MOST_PASSES) if device.type == "cpu" else 1


def resolve_precision(setting: str, device: "torch.device") -> Precision:
    """`train.precision` -> what this device will compute in.

    Raises:
        SettingsError: a name that is no precision, or fp16 on a CPU, which has no loss scaling here and no speed to gain.
    """
    import torch

    if setting not in PRECISIONS:
        raise SettingsError(f"There is no precision '{setting}'. Allowed: {', '.join(PRECISIONS)}.")

    if setting == "fp16" and device.type == "cpu":
        raise SettingsError("train.precision is 'fp16' but the device is a CPU. Use 'auto', 'bf16' or 'fp32'.")
    if setting != "auto":
        return Precision(setting, "asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", "the GPU multiplies bf16")
        return Precision("fp16", "the GPU has no bf16")
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        return Precision("bf16", "the CPU multiplies bf16 (AVX512-BF16 or AMX)")
    return Precision("fp32", "the CPU has no fast bf16")


def seed_everything(*parts: int) -> None:
    """Seed torch's generators from a tuple such as (seed, step), so a draw depends on those numbers alone.

    Reseeding at each step is what makes resuming exact: no generator state has to be stored or can be forgotten.
    """
    import numpy as np
    import torch

    seed = int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.manual_seed(seed)
        return
    # the same seeds, without those for kinds of devices that are not there: for each of them torch puts down Python's stack, at
    # every step, while the GPU waits
    for generator in (torch.default_generator, *torch.cuda.default_generators):
        generator.manual_seed(seed)


def cache_folder() -> Path:
    """Where tokenised rows are kept: $NEWSLORA_CACHE, else the user's cache folder.

    An account without a home, as containers may run, has a folder that nothing can be kept in.
    """
    if chosen := os.environ.get("NEWSLORA_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "newslora"
    except RuntimeError:
        return Path(os.devnull) / "newslora"


def environment_record(device: "torch.device", precision: Precision) -> dict[str, Any]:
    """Hardware, versions and code state, as stored with every result."""
    return machine_record(device, precision) | {"commit": _commit()}


def machine_record(device: "torch.device", precision: Precision) -> dict[str, Any]:
    """Hardware and versions."""
    import torch

    return {
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpu": _cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # one CPU's name may stand for chips with and without
        "threads": torch.get_num_threads(),
        "precision": precision.name,
        "precision_reason": precision.reason,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        # torch by its own word, which names the build (cpu, cu130) that the package's metadata may leave out
        "packages": {name: package_version(name) for name in PACKAGES} | {"torch": str(torch.__version__)},
    }


@functools.cache
def package_version(package: str) -> str | None:
    """Its version; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of a source checkout, with '+changes' when the tree differs from it; None once installed."""
    here = Path(__file__).resolve().parent
    if not (here.parent.parent / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
