"""The process: its socket, loading, signals and end."""

import asyncio
import errno
import gc
import ipaddress
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from uvicorn import Config, Server

from newslora.errors import DrainingError, InterruptedRun, SettingsError
from newslora.serving.app import create_app
from newslora.serving.context import Context
from newslora.serving.descriptors import Watched, make_room
from newslora.serving.logs import Gathered, forward_server_logs, make_log
from newslora.serving.protocol import protocol_class
from newslora.serving.settings import ServeSettings
from newslora.serving.watch import Level, Watch

if TYPE_CHECKING:
    from newslora.serving.service import Service

BACKLOG = 2048  # connections that wait to be accepted
LOOK_AGAIN = 0.5  # seconds
LAST_LINES = 2.0  # seconds that the log has for its last lines


def serve(
    adapters: Mapping[str, Path],
    settings: ServeSettings,
    service: "Service",
    told: Callable[[str], None],
    log: Any = None,
) -> None:
    """Serve until a signal comes; returns once all accepted requests were answered.

    Connections are taken at once, and /ready says when all adapters are loaded.

    Args:
        adapters: folders by the names they are served under; the first is the default.
        settings: the server's.
        service: what answers, with nothing loaded yet.
        told: gets a sentence when the server listens, and one when it is ready.
        log: from `make_log`; None writes to standard error.

    Raises:
        SettingsError: a port that is taken, or a server open to others without keys.
        NewsloraError: keys, corrections or adapters that cannot be had.
        InterruptedRun: a second signal, or the grace period, ended it before all were answered.
    """
    check_exposure(settings)
    listening = listen(settings.host, settings.port)
    lines = Gathered(sys.stderr)
    try:
        context = Context(service, settings, make_log(lines) if log is None else log)
        if context.keys is not None and context.keys.readable_by_others():
            context.log.warning(
                "keys", message=f"{settings.keys} can be read by other accounts: chmod 600 {settings.keys}"
            )
        if (told_short := make_room(settings.connections)) is not None:
            context.log.warning("files", message=told_short)
        forward_server_logs(context.log)
        server = DrainingServer(context, adapters, told, address_of(listening), lines)
        try:
            server.run(sockets=[listening])
        finally:
            server.stop_watching.set()
    finally:
        listening.close()
        lines.end(LAST_LINES)
    if server.failure is not None:
        raise server.failure
    if not server.drained:
        server.leave()


class DrainingServer(Server):
    """uvicorn's server with two stages of leaving: not ready, still answering; then no new connections."""

    def __init__(
        self,
        context: Context,
        adapters: Mapping[str, Path],
        told: Callable[[str], None],
        address: str,
        lines: Gathered,
    ) -> None:
        self.context, self.adapters, self.address, self.lines = context, adapters, address, lines
        self._told = told
        self.descriptors = Watched(context.log)
        self.signals: list[int] = []
        self.leave_at: float | None = None
        self.drained = False
        self.failure: Exception | None = None
        self.loading: asyncio.Task[None] | None = None
        self.stop_watching = threading.Event()
        settings = context.settings
        super().__init__(
            Config(
                create_app(context, self._begin),
                http=protocol_class(settings.header_seconds),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=settings.idle_seconds,
                timeout_graceful_shutdown=settings.grace_seconds,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal: say that we leave, and leave a little later, for who sends requests has to hear of it first. The
        second: leave now."""
        self.signals.append(sig)
        self.context.draining = True
        if len(self.signals) > 1:
            self.should_exit = self.force_exit = True
            return
        notice = self.context.settings.notice_seconds if sig == signal.SIGTERM and self.context.ready else 0.0
        self.leave_at = time.monotonic() + notice

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self.lines.ask()
        self.descriptors.look()
        if self.leave_at is not None and time.monotonic() >= self.leave_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.context.end_by = time.monotonic() + self.context.settings.grace_seconds
        await super().shutdown(sockets)
        if not self.drained:
            # the loop waits at its end for the threads of its pool, in one of which a database may never answer
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))

    async def _wait_tasks_to_complete(self) -> None:
        await super()._wait_tasks_to_complete()
        self.drained = not self.force_exit

    def leave(self) -> None:
        """End the process although requests, and the threads that answer them, are on their way.

        Raises:
            InterruptedRun: always.
        """
        number = self.signals[-1] if self.signals else signal.SIGTERM
        reason = "a second signal came" if len(self.signals) > 1 else "the grace period was over"
        raise InterruptedRun(f"The server ended before all requests were answered: {reason}.", number)

    def _begin(self) -> None:
        self.told(f"Listening on {self.address}")
        self.loading = asyncio.get_running_loop().create_task(self._load())

    def told(self, sentence: str) -> None:
        """Say it where who started the server looks; that nobody can read it there is no reason not to serve."""
        try:
            self._told(sentence)
        except OSError as error:
            self.context.log.warning("server", message=f"{sentence}: not told ({error})")

    def _watched(self, level: Level, name: str, sentence: str) -> None:
        getattr(self.context.log, level)("watch", adapter=name, message=sentence)

    def _follow(self, watch: Watch) -> None:
        """In a thread of its own; the server goes on without it, should it fail."""
        try:
            watch.follow(self.stop_watching)
        except Exception as error:  # noqa: BLE001 - told in the log, for nobody waits for this thread
            self.context.log.error("watch", error=type(error).__name__, message=str(error))

    async def _until_one_is_served(self, watch: Watch) -> None:
        """A server that refuses all it finds, as after a faulty upgrade, must not take the place of one that answers."""
        while watch.all_refused and not self.context.service.adapters():
            await asyncio.sleep(LOOK_AGAIN)

    async def _load(self) -> None:
        """Load what was named, then say that requests may come; follow the watched folder from then on."""
        try:
            for name, folder in self.adapters.items():
                await self.context.change(self.context.load, name, folder)
            watched = self.context.settings.watch
            if watched is not None:
                watch = Watch(self.context, watched, self._watched, tuple(self.adapters))
                await self.context.change(watch.look)
                threading.Thread(target=self._follow, args=(watch,), name="newslora-watch", daemon=True).start()
                await self._until_one_is_served(watch)
        except DrainingError:  # told to end meanwhile
            return
        except Exception as error:  # noqa: BLE001 - raised again where the command can tell it
            self.failure = error
            self.context.draining = self.should_exit = True
            return
        if self.context.draining:
            return
        gc.freeze()  # what was loaded stays: later collections, which stop every thread, need not look through it
        self.context.ready = True
        names = ", ".join(one.name for one in self.context.service.adapters()) or "none yet"
        self.told(f"Ready: adapters {names}; API at {self.address}/docs, page at {self.address}/")


def check_exposure(settings: ServeSettings) -> None:
    """Refuse to listen to other machines without keys, unless that was asked for.

    Raises:
        SettingsError: with the ways out.
    """
    if settings.keys is not None or settings.open or is_loopback(settings.host):
        return
    raise SettingsError(
        f"--host {settings.host} listens to other machines, and there are no keys: anybody could use and change the server. "
        "Give --keys FILE (`newslora keys add` makes one), or --open if that is meant."
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: the port is taken or not allowed, or there is no such host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "is taken: another program listens there. Name another with --port, or 0 for any free one"
        elif error.errno == errno.EACCES:
            reason = "may not be taken by this account. Name one from 1024 on with --port"
        else:
            reason = f"cannot be listened on: {error.strerror or error}. Give --host an address of this machine"
        raise SettingsError(f"Port {port} of {host} {reason}.") from None


def address_of(listening: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
