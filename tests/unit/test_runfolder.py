"""A run folder is made once, written by one process, and read back however its writer died."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from report_parts import epoch_line, manifest_facts

from newslora import files
from newslora.config import load_recipe
from newslora.errors import RunError, StorageError
from newslora.runfolder import RunFolder
from newslora.training.log import MetricsLog

HOLD = (
    "import sys, time; from pathlib import Path; from newslora.runfolder import RunFolder\n"
    "with RunFolder(Path(sys.argv[1])).lock():\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs" / "one", load_recipe("quickstart"))


def test_a_new_run_holds_its_recipe(run: RunFolder) -> None:
    assert run.recipe() == load_recipe("quickstart")
    assert RunFolder.open(run.path).recipe() == run.recipe()
    assert not run.complete
    held = manifest_facts(["a", "b"]) | {"more": 1}
    files.write_json(run.manifest_file, held)
    assert run.complete
    assert run.manifest() == held


def test_an_existing_run_is_refused_with_the_way_to_continue_it(run: RunFolder) -> None:
    before = run.recipe_file.read_bytes()
    with pytest.raises(RunError, match=f"train --resume {run.path}"):
        RunFolder.create(run.path, load_recipe("seed"))
    assert run.recipe_file.read_bytes() == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="not empty") as caught:
        RunFolder.create(tmp_path / "notes", load_recipe("seed"))
    assert "--resume" not in str(caught.value)
    with pytest.raises(RunError, match="not empty"):
        RunFolder.create(tmp_path / "notes" / "mine.txt", load_recipe("seed"))


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(tmp_path / "empty", load_recipe("seed")).recipe_file.is_file()


def test_runs_started_in_one_second_get_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "20260131-120000")
    made = [RunFolder.create(None, load_recipe("seed")).path for _ in range(12)]
    stem = "20260131-120000-seed"
    assert [path.name for path in made] == [stem, *(f"{stem}-{number}" for number in range(2, 13))]


def test_a_missing_run_offers_the_near_one(run: RunFolder) -> None:
    with pytest.raises(RunError, match="Did you mean 'one'"):
        RunFolder.open(run.path.parent / "onee")
    with pytest.raises(RunError, match="There is no run folder"):
        RunFolder.open(run.path / "no" / "such")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(RunError, match="has no recipe"):
            RunFolder.open(path)


@pytest.mark.parametrize(("content", "reason"), [(b"{", "damaged"), (b"[]", "not a JSON object"), (b"\xff", "damaged")])
def test_a_damaged_record_is_named(run: RunFolder, content: bytes, reason: str) -> None:
    with pytest.raises(RunError, match="did not finish"):
        run.data()
    run.data_file.write_bytes(content)
    with pytest.raises(RunError, match=reason) as caught:
        run.data()
    assert str(run.data_file) in str(caught.value)


def test_a_run_without_an_adapter_says_how_to_finish(run: RunFolder) -> None:
    with pytest.raises(RunError, match="--resume"):
        run.adapter_folder()
    files.write_json(run.adapter / "newslora.json", {})
    assert run.adapter_folder() == run.adapter


def test_a_torn_last_line_is_left_out(run: RunFolder) -> None:
    assert run.metrics() == []
    lines = [epoch_line(1), epoch_line(2)]
    whole = "".join(json.dumps(line) + "\n" for line in lines).encode()
    for torn in (b"", b"{", b'{"step": 3}', b'{"step": 3, "loss": 0.\xff'):
        run.metrics_file.write_bytes(whole + torn)
        assert run.metrics() == lines


def test_a_damaged_line_in_the_middle_is_told(run: RunFolder) -> None:
    line = json.dumps(epoch_line(1))
    run.metrics_file.write_text(f'{line}\n{{"st\n{line}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged in line 2: "):
        run.metrics()
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
        MetricsLog(run, resume_step=2)


def test_a_run_is_taken_where_its_path_is_and_tells_itself(run: RunFolder) -> None:
    assert Path(run) == run.path
    assert repr(run) == f"<RunFolder {run.path}, unfinished>"
    files.write_json(run.manifest_file, {})
    assert repr(run) == f"<RunFolder {run.path}, finished>"


def test_the_lock_is_free_again_after_use(run: RunFolder) -> None:
    for _ in range(2):
        with run.lock():
            pass
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    with run.lock(), pytest.raises(RunError, match="Another process"), RunFolder(run.path).lock():
        pytest.fail("two holders")


def test_a_second_process_is_refused_and_a_killed_one_frees_the_lock(run: RunFolder) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="Another process is training"), run.lock():
            pytest.fail("two holders")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert holder.returncode == -signal.SIGKILL
    with run.lock():
        pass


def test_a_lock_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="Cannot write"), RunFolder(tmp_path / "file").lock():
        pytest.fail("locked nothing")
