"""A real server process: its socket, slow clients, streaming, and how it ends."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import newslora
from newslora.cli.app import main

TEXT = "meets over border treaty signs"
FIXED = str(Path(__file__).with_name("serve_fixed.py"))
STREAM = b"POST /v1/classify/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
SOURCES = Path(newslora.__file__).parents[1]


class Process:
    """A running server with its address."""

    def __init__(self, command: list[str], errors: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
        with errors.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdout=subprocess.PIPE, stderr=log, env=environment, text=True
            )
        self.errors = errors

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line + self.errors.read_text()
        self.url, self.port = found[0], int(found[1])
        assert self.process.stdout.readline().startswith("Ready: adapters news;")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.errors.read_text().splitlines()]


@contextlib.contextmanager
def started(tmp_path: Path, *command: str) -> Iterator[Process]:
    server = Process(list(command), tmp_path / "errors.jsonl")
    try:
        server.wait_until_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(timeout=20)
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    limits = ("header_seconds=0.5", "read_seconds=0.5", "write_seconds=0.5", "idle_seconds=1", "body_bytes=100000")
    with started(tmp_path_factory.mktemp("server"), FIXED, "0", *limits) as found:
        yield found


def closed_within(one: socket.socket, seconds: float) -> bytes:
    """What the server still says before it closes, which it does in time."""
    began, said = time.monotonic(), b""
    with contextlib.suppress(ConnectionResetError):
        while piece := one.recv(65536):
            said += piece
    assert time.monotonic() - began < seconds
    return said


def test_answers_and_refuses_over_a_socket(server: Process) -> None:
    with httpx.Client(base_url=server.url) as client:
        answer = client.post("/v1/classify", json={"text": TEXT}).json()
        assert answer["results"][0]["label"] == "World"
        large = client.post("/v1/classify", content=b"a" * 200_000)
        assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
        chunked = client.post("/v1/classify", content=(b" " * 10_000 for _ in range(50)))
        assert (chunked.status_code, chunked.json()["error"]["code"]) == (413, "body_too_large")
        assert client.get("/ready").status_code == 200
        assert "server" not in client.get("/health").headers


@pytest.mark.parametrize("begun", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_a_head_that_does_not_come_is_cut(server: Process, begun: bytes) -> None:
    with server.connect() as one:
        one.sendall(begun)
        assert closed_within(one, 5) == b""


def test_a_head_that_drips_is_cut_also_on_a_used_connection(server: Process) -> None:
    with server.connect() as one:
        one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in one.recv(65536)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            for letter in b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 100:
                one.sendall(bytes([letter]))
                time.sleep(0.05)
        assert time.monotonic() - began < 4


def test_a_head_without_end_is_refused(server: Process) -> None:
    with server.connect() as one:
        one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 70_000)
        assert closed_within(one, 5).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [("/v1/nothing", 90_000, 404), ("/v1/classify", 900_000, 413), ("/v1/classify/stream", 90_000, 422)],
)
def test_a_refusal_of_a_body_not_read_is_received_and_leaves_no_stray_answer(
    server: Process, path: str, size: int, status: int
) -> None:
    for chunked in (False, True):
        talk = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        for _ in range(5):
            body = iter([b"x" * 1000] * (size // 1000)) if chunked else b"x" * size
            talk.request("POST", path, body, {"Content-Type": "text/plain"}, encode_chunked=chunked)
            answer = talk.getresponse()
            assert (answer.status, set(json.loads(answer.read()))) == (status, {"error"})
            talk.request("GET", "/health")  # on the same connection, unless the server said that it closes it
            assert talk.getresponse().read() == b'{"status":"ok"}'
        talk.close()


def test_body_bytes_are_not_counted_as_a_head_and_what_follows_a_closing_answer_is_no_request(server: Process) -> None:
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 95000\r\n\r\n"
    with server.connect() as one:
        one.sendall(head)
        said = one.recv(65536)
        assert said.startswith(b"HTTP/1.1 404")
        assert b"connection: close" in said.lower()
        one.sendall(b"x" * 95_000 + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1" not in said.partition(b"\r\n\r\n")[2] + closed_within(one, 5)


def test_a_connection_whose_bodies_were_read_is_kept(server: Process) -> None:
    refused = json.dumps({"texts": ["a"] * 300}).encode()
    with server.connect() as one:
        for path, body, status in (("/v1/classify", refused, b"413"), ("/v1/nothing", b"x" * 100, b"404")):
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            said = b""
            while not said.endswith(b"}}"):
                said += one.recv(65536)
            assert said.startswith(b"HTTP/1.1 " + status)
            assert b"connection: close" not in said.lower()


def test_a_body_that_is_not_wanted_is_dropped_within_bounds(server: Process) -> None:
    with server.connect() as one:
        one.sendall(b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n")
        assert closed_within(one, 5).startswith(b"HTTP/1.1 404")  # although the body never comes
    with server.connect() as one:
        one.sendall(b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n\r\n")
        with pytest.raises(ConnectionError):
            one.sendall(bytes(90_000_000))


@pytest.mark.parametrize(
    "said", [b"\x16\x03\x01 no HTTP\r\n\r\n", b"GET /health HTTP/1.1\r\nX-A: " + b"a" * 70_000], ids=["garbage", "long"]
)
def test_what_is_no_request_is_refused_in_the_form_of_every_error(server: Process, said: bytes) -> None:
    with server.connect() as one:
        one.sendall(said)
        head, _, body = closed_within(one, 5).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"]["code"] == "bad_request"
    name = re.search(rb"x-request-id: (\w{32})", head)
    assert name is not None
    assert comes_true(lambda: name[1].decode() in server.errors.read_text(), 5)


def test_no_answer_is_written_into_one_that_has_begun(server: Process) -> None:
    line = json.dumps({"text": TEXT}).encode() + b"\n"
    with server.connect() as one:
        one.sendall(STREAM + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(line), line))
        said = one.recv(65536)
        one.sendall(b"no chunk\r\n")
        said += closed_within(one, 5)
    assert said.startswith(b"HTTP/1.1 200")
    assert said.count(b"HTTP/1.1") == 1


def test_a_body_that_does_not_come_is_told_and_cut(server: Process) -> None:
    with server.connect() as one:
        head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n"
        one.sendall(head + b'{"text')
        said = closed_within(one, 5)
    assert b"408" in said.splitlines()[0]
    assert b"slow_request" in said


def test_a_client_that_does_not_read_is_cut_and_slows_its_own_writing(server: Process) -> None:
    line = json.dumps({"text": TEXT, "id": "x" * 2000}).encode() + b"\n"
    piece = b"%x\r\n%s\r\n" % (len(line) * 20, line * 20)
    sent = 0
    with server.connect() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(3)
        one.sendall(
            b"POST /v1/classify/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        began = time.monotonic()
        with contextlib.suppress(ConnectionError, TimeoutError):
            while time.monotonic() - began < 20:
                one.sendall(piece)
                sent += len(piece)
    assert sent < 40_000_000  # what kernel buffers hold, not what a writer would like
    time.sleep(0.2)
    assert any(one.get("ended") == "slow_client" for one in server.log())


def test_a_stream_is_answered_while_it_is_written(server: Process) -> None:
    with server.connect() as one, one.makefile("rb") as answer:
        one.sendall(
            b"POST /v1/classify/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            line = json.dumps({"text": TEXT, "id": number}).encode() + b"\n"
            one.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            while not (said := answer.readline()).startswith(b"{"):
                assert said  # heads and chunk sizes
            assert json.loads(said)["id"] == number  # before the next is sent
        one.sendall(b"0\r\n\r\n")
        assert b"0\r\n" in (answer.readline(), answer.readline())


def test_a_stream_that_asks_whether_to_go_on_is_told_at_once(server: Process) -> None:
    with server.connect() as one, one.makefile("rb") as answer:
        one.sendall(STREAM + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        assert answer.readline() + answer.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
        line = json.dumps({"text": TEXT}).encode()
        one.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(line), line))
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
    with server.connect() as one:  # one that is refused is not
        one.sendall(STREAM.replace(b"stream", b"stream?a=b") + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert closed_within(one, 5).startswith(b"HTTP/1.1 422")


def test_a_stream_without_a_line_ends_and_one_that_does_not_begin_is_told(server: Process) -> None:
    with server.connect() as one:
        one.sendall((STREAM + b"Content-Length: 0\r\n\r\n") * 2)  # on the same connection
        said = b""
        while said.count(b"0\r\n\r\n") < 2:
            said += one.recv(65536)
        assert said.count(b"HTTP/1.1 200 OK") == 2
    with server.connect() as one:
        one.sendall(STREAM + b"Content-Length: 9\r\n\r\n")
        assert closed_within(one, 5).startswith(b"HTTP/1.1 408")


def test_a_long_stream_takes_bounded_memory(server: Process) -> None:
    def resident() -> int:
        return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    rows, padding = 3000, "x" * 5000

    def lines() -> Iterator[bytes]:
        for number in range(rows):
            yield json.dumps({"text": TEXT, "id": f"{number} {padding}"}).encode() + b"\n"

    with httpx.Client(base_url=server.url, timeout=60) as client:
        client.post("/v1/classify", json={"text": TEXT})
        before, got, most = resident(), 0, 0
        for _ in range(3):  # 15 MB each, written before it is read: what the kernel and one window hold
            kind = {"Content-Type": "application/x-ndjson"}
            with client.stream("POST", "/v1/classify/stream", content=list_of(lines(), 200), headers=kind) as response:
                for line in response.iter_lines():
                    assert json.loads(line)["error"] is None
                    got += 1
            most = max(most, resident() - before)
    assert got == 3 * 200
    assert most < 60_000_000


def list_of(lines: Iterator[bytes], count: int) -> bytes:
    return b"".join(line for _, line in zip(range(count), lines, strict=False))


def in_thread(action: object, *arguments: object) -> tuple[threading.Thread, list[httpx.Response]]:
    done: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: done.append(action(*arguments)))  # type: ignore[operator]
    thread.start()
    return thread, done


def ask(server: Process) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/classify", json={"text": TEXT, "timeout": 20}, timeout=30)


def test_sigterm_says_not_ready_answers_what_it_took_and_exits_with_0(tmp_path: Path) -> None:
    with started(tmp_path, FIXED, "1.5", "notice_seconds=0.7") as server:
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


def comes_true(what: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not (true := what()) and time.monotonic() < until:
        time.sleep(0.1)
    return true


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
    assert main(["serve", str(planted), "--keys", str(tmp_path / "none.json"), "--port", "0"]) == 2
    assert "keys add" in capsys.readouterr().err
