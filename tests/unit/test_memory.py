"""Anonymous memory counts what a process holds, and not the files it maps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from newslora.bench.memory import anonymous_memory

SIZE = 64 * 2**20
# in a process of its own: the system may take back what earlier tests left here, while this one looks
SCRIPT = """
import json, sys, time
import numpy as np
from newslora.bench.memory import AnonymousPeak, anonymous_memory

path, size = sys.argv[1], int(sys.argv[2])
before = anonymous_memory()
with AnonymousPeak() as mapped:
    assert np.memmap(path, np.uint8, "r")[::4096].sum() == 0
    time.sleep(0.1)
with AnonymousPeak() as held:
    array = np.ones(size, np.uint8)
    time.sleep(0.1)  # until the other thread has looked
    assert array[0] == 1
print(json.dumps({"before": before, "mapped": mapped.peak, "held": held.peak}))
"""


@pytest.mark.skipif(anonymous_memory() is None, reason="this system does not tell a process its anonymous memory")
def test_held_memory_is_seen_and_mapped_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(SIZE))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "file"), str(SIZE)]
    seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert seen["mapped"] < seen["before"] + SIZE / 4
    assert seen["held"] > seen["before"] + SIZE / 2


def test_a_system_that_does_not_tell_is_not_guessed_at(tmp_path: Path) -> None:
    assert anonymous_memory(tmp_path / "absent") is None
    (tmp_path / "status").write_text("VmRSS:\t 5 kB\n")
    assert anonymous_memory(tmp_path / "status") is None
