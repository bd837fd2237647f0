"""Children of a fork server that has imported what newslora needs: a process of its own, a second and not ten from its work.

Each starts clean and single-threaded, as a new interpreter would after these imports. What reads its environment while it is
imported (the hub libraries), or is about starting, takes a real new interpreter. What the imports made is not looked through
for cycles by every child again, which takes as long as much of its work.
"""

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch", "transformers.trainer", "peft", "tensorboardX", "scipy.stats", "sklearn.calibration", "pyarrow.parquet",
    "newslora.pipeline", "newslora.predict.bulk", "newslora.cli.app",
]  # fmt: skip
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)
PATIENCE = 120  # seconds


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, or raises, in a child of its own."""
    with ProcessPoolExecutor(1, mp_context=CONTEXT, initializer=gc.freeze) as pool:
        return pool.submit(function, *arguments).result(PATIENCE)


def start(function: Callable[..., Any], *arguments: Any) -> ForkServerProcess:
    child = CONTEXT.Process(target=_frozen, args=(function, *arguments))
    child.start()
    return child


def _frozen(function: Callable[..., Any], *arguments: Any) -> None:
    gc.freeze()
    function(*arguments)


def start_command(words: Sequence[str], errors: Path) -> ForkServerProcess:
    """`newslora WORDS` as from a terminal; its standard error goes to a file, its exit code is the child's."""
    return start(_command, list(words), str(errors), dict(os.environ))


def _command(words: list[str], errors: str, environment: dict[str, str]) -> None:
    import torch

    from newslora.cli.app import main

    os.environ.update(environment)  # the fork server has that of the test that started it
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever started the tests had it ignored
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    sys.exit(main(words))
