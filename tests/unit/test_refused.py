"""What the machine refuses where nobody expects it is a sentence and code 8; what is a bug stays a traceback."""

import errno
import os

import pytest

from newslora.cli import app
from newslora.cli.refused import refused

NO_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:132] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
)
NO_SHARED = "unable to open shared memory object </torch_1_2> in read-write mode: No space left on device (28)"
TOLD = [
    (PermissionError(errno.EACCES, "Permission denied", "data/train.csv"), "data/train.csv cannot be used: Permission denied"),
    (OSError(errno.ENOSPC, "No space left on device"), "A file cannot be used: No space left on device"),
    (OSError(errno.EMFILE, "Too many open files", "x"), "No more files can be opened (Too many open files)"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "Memory ran out (Cannot allocate memory)"),
    (MemoryError(), "Memory ran out. Take smaller batches"),
    (RuntimeError(NO_MEMORY), "Memory ran out. Take smaller batches"),
    (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), "Memory ran out. Take smaller batches"),
    (RuntimeError(NO_SHARED), "Shared memory (/dev/shm) cannot be had or is full"),
]  # fmt: skip
BUGS = [
    RuntimeError("shapes differ"),
    FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x"),
    KeyError("memory"),
]


@pytest.mark.parametrize(("error", "sentence"), TOLD, ids=str)
def test_refusals_are_told_with_code_8(
    error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (refused(error) or "").startswith(sentence)

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    assert app.main([]) == 8
    assert capsys.readouterr().err.startswith(f"newslora: {sentence}")


@pytest.mark.parametrize("error", BUGS, ids=str)
def test_bugs_stay_as_they_are(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(type(error)):
        app.main([])
