"""Where a run waits for the GPU: what the check `waits` of benchmarks/gpu.py looks for."""

import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WAITS = "called a synchronizing CUDA operation"  # torch's words


def device_waits(run: Callable[[], None]) -> dict[str, int]:
    """Where a run waited for the GPU, by torch's account, and how often: the newest place in newslora on each stack.

    Twice: once warned, to be told all places; and if there are none once refused, for a warning inside an operator that is
    called by its name, as flash attention is, goes past Python.
    """
    places: Counter[str] = Counter()

    def tell(message: Warning | str, *_: Any, **__: Any) -> None:
        if WAITS in str(message):
            places[_place(traceback.extract_stack())] += 1

    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = tell
            torch.cuda.set_sync_debug_mode("warn")
            run()
        if not places:
            torch.cuda.set_sync_debug_mode("error")
            run()
    except RuntimeError as error:
        if WAITS not in str(error):
            raise
        places[_place(traceback.extract_tb(error.__traceback__))] += 1
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return dict(places)


def _place(stack: traceback.StackSummary) -> str:
    ours = [frame for frame in stack if "newslora" in Path(frame.filename).parts]
    frame = (ours or stack)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}: {frame.line}"
