"""A real server process on its socket: heads and bodies that do not come or do not end, slow clients, streaming."""

import contextlib
import http.client
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from process_parts import FIXED, TEXT, Process, comes_true, started

STREAM = b"POST /v1/classify/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"


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


@pytest.mark.parametrize(
    ("begun", "more"),
    [(b"0\r\n", b"a:b\r\n" * 10_000), (b"0\r\na: ", b"a" * 50_000), (b"9;", b"a" * 50_000)],
    ids=["trailers", "a long trailer", "a chunk's extension"],
)
@pytest.mark.parametrize("path", [b"/v1/nothing", b"/v1/classify"])
def test_what_stands_beside_a_body_has_an_end(server: Process, path: bytes, begun: bytes, more: bytes) -> None:
    sent = 0
    with server.connect() as one:
        one.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % path + begun)
        with contextlib.suppress(ConnectionError):
            while sent < 30_000_000:  # until it is cut
                one.sendall(more)
                sent += len(more)
    assert sent < 30_000_000


def test_a_trailer_is_no_header(server: Process) -> None:
    body = json.dumps({"text": TEXT}).encode()
    head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with server.connect() as one:
        one.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body))
        one.sendall(
            b"0\r\nX-Request-ID: trailer\r\n\r\n" + head.replace(b"\r\nHost", b"\r\nX-Request-ID: header\r\nHost")
        )
        one.sendall(b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        said = closed_within(one, 5)
    assert said.count(b"200 OK") == 2
    assert b"trailer" not in said
    assert b"x-request-id: header" in said  # of the next request, which is read as ever


def test_a_body_that_follows_an_upgrade_is_no_request(server: Process) -> None:
    head = b"%s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    hidden = b"DELETE /v1/adapters/news HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: hidden\r\n\r\n"
    with server.connect() as one:
        one.sendall(head % b"POST /v1/classify" + b"Content-Length: %d\r\n\r\n" % len(hidden))
        said = one.recv(65536)
        one.sendall(hidden)
        said += closed_within(one, 5)
    assert said.startswith(b"HTTP/1.1 400")
    assert said.count(b"HTTP/1.1 4") == 1
    assert b"hidden" not in said
    assert b"Java's client" in said
    with server.connect() as one:  # without a body it is answered as if it had not asked
        for _ in range(2):
            one.sendall(head % b"GET /health" + b"\r\n")
            said = one.recv(65536)
            while not said.endswith(b"}"):  # its body may come by itself
                more = one.recv(65536)
                assert more, said
                said += more
            assert said.startswith(b"HTTP/1.1 200")
    assert "WebSocket" not in server.errors.read_text()


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
        head = b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: dropped\r\n"
        one.sendall(head + b"Content-Length: 900\r\n\r\n")
        assert closed_within(one, 5).startswith(b"HTTP/1.1 404")  # although the body never comes
    assert comes_true(lambda: any(line.get("request") == "dropped" for line in server.log()), 5)
    (told,) = (line for line in server.log() if line.get("request") == "dropped")
    assert float(str(told["ms"])) < 500  # to the answer's end, without the half second in which nothing came
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


def test_a_body_that_drips_has_no_more_time(server: Process) -> None:
    head = (
        b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n"
    )
    with server.connect() as one:
        one.sendall(head)
        with contextlib.suppress(ConnectionError):
            for letter in b" " * 25:  # 2.5 seconds, five times those allowed
                one.sendall(bytes([letter]))
                time.sleep(0.1)
        one.settimeout(0.1)  # whether it was answered before
        assert closed_within(one, 5).startswith(b"HTTP/1.1 408")


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
