"""Anonymous memory counts what a process holds, and not the files it maps."""

from pathlib import Path

import numpy as np
import pytest

from newslora.bench.memory import AnonymousPeak, anonymous_memory

SIZE = 64 * 2**20


@pytest.mark.skipif(anonymous_memory() is None, reason="this system does not tell a process its anonymous memory")
def test_held_memory_is_seen_and_mapped_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(SIZE))
    before = anonymous_memory()
    assert before is not None
    with AnonymousPeak() as mapped:
        assert np.memmap(tmp_path / "file", np.uint8, "r")[::4096].sum() == 0
    with AnonymousPeak() as held:
        array = np.ones(SIZE, np.uint8)
        while held.peak is not None and held.peak < before + SIZE / 2:
            assert array[0] == 1  # until the other thread has looked
        del array
    assert mapped.peak is not None
    assert held.peak is not None
    assert mapped.peak < before + SIZE / 4
    assert held.peak > before + SIZE / 2


def test_a_system_that_does_not_tell_is_not_guessed_at(tmp_path: Path) -> None:
    assert anonymous_memory(tmp_path / "absent") is None
    (tmp_path / "status").write_text("VmRSS:\t 5 kB\n")
    assert anonymous_memory(tmp_path / "status") is None
