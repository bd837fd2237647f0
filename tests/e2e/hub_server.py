"""A hub on this machine: as much of the Hugging Face hub's HTTP API as loading models and data sets needs."""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes]  # path in the repository -> content


def files_of(folder: Path) -> dict[str, bytes]:
    """The files right inside a folder, as a repository's content."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@dataclass
class HubServer:
    """Serves repositories on 127.0.0.1 while inside its `with` block.

    Args:
        models, datasets: repository name -> its files. Any other name is answered as the hub answers it: no such
            repository. Every revision but 'main' and the commit's own hash does not exist either.
        failing: answer everything with 503, as a hub in trouble does.
    """

    models: Mapping[str, Files] = field(default_factory=dict)
    datasets: Mapping[str, Files] = field(default_factory=dict)
    failing: bool = False
    requests: list[str] = field(default_factory=list)  # "METHOD path", in order of arrival

    def __enter__(self) -> "HubServer":
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT; stays the same after the server stopped."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def find(self, kind: str, name: str) -> Files | None:
        return (self.datasets if kind == "datasets" else self.models).get(name)


def commit_of(files: Files) -> str:
    """A commit hash that changes with the content, as git's does."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path, content in sorted(files.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Three families of addresses: a file, a repository's description, and listings of its files."""

    owner: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the screen; `HubServer.requests` is the log."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.owner.requests.append(f"{self.command} {self.path}")
        if self.owner.failing:
            return self._send(503, b"", {})
        path = unquote(urlsplit(self.path).path).strip("/")
        if path.startswith("api/"):
            kind, _, rest = path.removeprefix("api/").partition("/")
            for verb in ("revision", "tree", "paths-info"):
                name, found, rest_of_it = rest.partition(f"/{verb}/")
                if found:
                    revision, _, folder = rest_of_it.partition("/")
                    return self._api(kind, name, verb, revision, folder, body)
            return self._api(kind, rest, "revision", "main", "", body)
        kind = "datasets" if path.startswith("datasets/") else "models"
        name, found, rest = path.removeprefix("datasets/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        return self._file(kind, name, revision, file) if found else self._missing("RepoNotFound", None)

    def _repository(self, kind: str, name: str, revision: str) -> Files | None:
        """The files, or None after the refusal has been sent."""
        files = self.owner.find(kind, name)
        if files is None:
            self._missing("RepoNotFound", None)
        elif revision not in ("main", commit_of(files)):
            self._missing("RevisionNotFound", None)
        else:
            return files
        return None

    def _file(self, kind: str, name: str, revision: str, file: str) -> None:
        files = self._repository(kind, name, revision)
        if files is None:
            return
        if file not in files:
            self._missing("EntryNotFound", commit_of(files))
            return
        etag = hashlib.sha1(files[file], usedforsecurity=False).hexdigest()
        self._send(200, files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": commit_of(files)})

    def _api(self, kind: str, name: str, verb: str, revision: str, folder: str, body: str) -> None:
        files = self._repository(kind, name, revision)
        if files is None:
            return
        if verb == "revision":
            siblings = [{"rfilename": path} for path in sorted(files)]
            described = {"id": name, "sha": commit_of(files), "private": False, "gated": False, "siblings": siblings}
            self._json(described | {"tags": [], "downloads": 0, "likes": 0})
            return
        if verb == "paths-info":
            entries = [entry for path in parse_qs(body).get("paths", []) for entry in _entries(files, path.strip("/"))]
            self._json(entries)
            return
        inside = [path for path in sorted(files) if not folder or path.startswith(folder + "/")]
        if folder and not inside:
            self._missing("EntryNotFound", commit_of(files))
            return
        deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        depth = folder.count("/") + 1 if folder else 0
        parts = [path.split("/") for path in inside]
        shown = {
            "/".join(path[: depth + (n if deep else 1)]) for path in parts for n in range(1, len(path) - depth + 1)
        }
        self._json([entry for path in sorted(shown) for entry in _entries(files, path)])

    def _missing(self, code: str, commit: str | None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        self._send(404, b"", headers | ({"X-Repo-Commit": commit} if commit else {}))

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entries(files: Files, path: str) -> list[dict[str, object]]:
    """A path as the hub lists it: a file, a folder, or nothing."""
    if path in files:
        oid = hashlib.sha1(files[path], usedforsecurity=False).hexdigest()
        return [{"type": "file", "path": path, "size": len(files[path]), "oid": oid}]
    if any(other.startswith(path + "/") for other in files):
        return [{"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest()}]
    return []
