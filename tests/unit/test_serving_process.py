"""A real server process: what the command serves, what it cannot, and how the process ends."""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from process_parts import FIXED, SOURCES, TEXT, Process, comes_true, started

import newslora
from newslora.cli.app import main


def in_thread(action: object, *arguments: object) -> tuple[threading.Thread, list[httpx.Response]]:
    done: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: done.append(action(*arguments)))  # type: ignore[operator]
    thread.start()
    return thread, done


def ask(server: Process) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/classify", json={"text": TEXT, "timeout": 20}, timeout=30)


def test_sigterm_says_not_ready_answers_what_it_took_and_exits_with_0(tmp_path: Path) -> None:
    with started(tmp_path, FIXED, "2.5", "notice_seconds=2") as server:
        thread, done = in_thread(ask, server)
        time.sleep(0.4)
        server.signal(signal.SIGTERM)
        time.sleep(0.1)
        ready = httpx.get(f"{server.url}/ready")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "draining")
        late, late_done = in_thread(ask, server)  # sent before anybody could know
        assert server.process.wait(timeout=20) == 0
        for waiting, answers in ((thread, done), (late, late_done)):
            waiting.join(timeout=10)
            assert answers[0].status_code == 200
        with pytest.raises(OSError, match="refused"):
            server.connect()


def test_the_second_signal_and_the_grace_period_end_it(tmp_path: Path) -> None:
    with started(tmp_path, FIXED, "15", "notice_seconds=0") as server:
        in_thread(quietly, server)
        time.sleep(0.4)
        server.signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.signal(signal.SIGTERM)
        assert server.process.wait(timeout=5) == 143
    with started(tmp_path, FIXED, "15", "notice_seconds=0", "grace_seconds=1") as server:
        in_thread(quietly, server)
        time.sleep(0.4)
        server.signal(signal.SIGTERM)
        assert server.process.wait(timeout=6) == 143


def quietly(server: Process) -> httpx.Response | None:
    with contextlib.suppress(httpx.HTTPError):
        return ask(server)
    return None


def test_the_command_serves_a_run_and_ctrl_c_ends_it(planted: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/corrections.db"
    (tmp_path / "watched" / "bad").mkdir(parents=True)
    (tmp_path / "watched" / "bad" / "newslora.json").write_text('{"lora": [1]}')  # keeps nothing else from being served
    options = ["--port", "0", "--feedback", database, "--set", "max_texts=3", "--watch", str(tmp_path / "watched")]
    with started(tmp_path, "-m", "newslora", "serve", f"news={planted}", *options) as server:
        own = newslora.Classifier.load(planted)(TEXT)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            answer = client.post("/v1/classify", json={"text": TEXT}).json()
            assert (answer["adapter"], answer["results"][0]["label"]) == ("news", own.label)
            assert answer["results"][0]["probability"] == pytest.approx(own.probability, abs=1e-6)
            kept = client.post("/v1/feedback", json={"text": TEXT, "label": "Sports", "predicted": "World"})
            assert kept.status_code == 200
            assert client.get("/v1/feedback").json()["corrections"][0]["labels"] == ["Sports"]
            assert client.get("/v1/status").json()["adapters"]["news"]["corrections"] == 1
        run_the_documented_commands(server)
        shutil.copytree(planted, tmp_path / "moving")
        (tmp_path / "moving").rename(tmp_path / "watched" / "other")
        assert comes_true(lambda: [one["name"] for one in adapters(server)] == ["news", "other"])
        server.signal(signal.SIGINT)
        assert server.process.wait(timeout=20) == 0
        logged = [one for one in server.log() if one["event"] == "request"]
        (bad,) = (one for one in server.log() if one["event"] == "watch" and one["adapter"] == "bad")
    assert bad["level"] == "warning"
    assert "newslora.json is damaged" in str(bad["message"])
    assert [(one["route"], one["status"]) for one in logged][:2] == [("/v1/classify", 200), ("/v1/feedback", 200)]
    assert logged[0]["rows"] == 1
    assert TEXT not in server.errors.read_text()


def adapters(server: Process) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = httpx.get(f"{server.url}/v1/adapters").json()["adapters"]
    return listed


def run_the_documented_commands(server: Process) -> None:
    """The curl commands of docs/serving.md, with this server's address and a label of its own."""
    if shutil.which("curl") is None:
        return
    page = (SOURCES.parent / "docs" / "serving.md").read_text(encoding="utf-8")
    commands = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    assert len(commands) == 4
    for command in commands:
        command = command.replace("http://127.0.0.1:8080", server.url).replace("Sci/Tech", "Sports")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert answers
        assert not any(answer.get("error") for answer in answers), done.stdout


def test_what_cannot_be_served_is_one_sentence(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(planted), "--port", port]) == 2
        assert "is taken" in capsys.readouterr().err
    assert main(["serve", str(planted), "--host", "0.0.0.0"]) == 2
    assert "--open" in capsys.readouterr().err
    assert main(["serve", str(planted), str(planted)]) == 2
    assert "NAME=PATH" in capsys.readouterr().err
    for given, name, folder in (
        ("my name=quick", "my name", "quick"),
        ("my run", "my run", "my run"),
        ("=quick", "", "quick"),
    ):
        assert main(["serve", given]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert f"'{name}' is not a valid adapter name. Allowed: " in told
        assert told.endswith(f"Give it one: 'NAME={folder}'.")
    odd = tmp_path / "lr=0.1"
    odd.mkdir()
    assert main(["serve", str(odd)]) == 2
    assert "'lr=0.1' is not a valid adapter name" in " ".join(capsys.readouterr().err.split())
    assert main(["serve", f"news={odd}", "--port", "0"]) == 5
    assert "not a run folder" in " ".join(capsys.readouterr().err.split())
    assert main(["serve", str(planted), "--set", "max_text=3"]) == 2
    assert "Did you mean 'max_texts'" in capsys.readouterr().err
    assert main(["serve", str(planted), "--set", "max_texts=0"]) == 2
    assert "max_texts is 0" in capsys.readouterr().err
    assert main(["serve", str(planted), "--set", "queue_rows=10"]) == 2
    assert "max_texts 256" in capsys.readouterr().err
    assert main(["serve", str(planted), "--set", "rate_rows=100"]) == 2
    assert "max_texts 256" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "newslora.serving.server")
    monkeypatch.delattr("newslora.serving.server")  # or the package hands it out all the same
    assert main(["serve", str(planted)]) == 6
    assert "newslora[serve]" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["serve", str(tmp_path / "none"), "--port", "0"]) == 5
    assert "none" in capsys.readouterr().err
    for lists in ([], ["--set", "allowed_hosts=[a.org, b.org]", "--set", "cors_origins=[https://a.org]"]):
        assert main(["serve", *lists]) == 2
        assert "nothing to serve" in capsys.readouterr().err
    assert main(["serve", "--set", f"watch={tmp_path / 'none'}"]) == 2
    assert f"{tmp_path / 'none'}" in capsys.readouterr().err
    assert main(["serve", str(planted), "--device", "gpu"]) == 2
    assert "no device 'gpu'" in capsys.readouterr().err
    assert main(["serve", str(planted), "--keys", str(tmp_path / "none.json"), "--port", "0"]) == 2
    assert "keys add" in capsys.readouterr().err
