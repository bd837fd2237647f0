"""Work in threads that the process's end does not wait for."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Aside:
    """Does one thing after the other, in a thread of its own that is there while there is something to do.

    Python waits at its end for the threads of its pools, as asyncio does for those of `to_thread`. What is done here may take
    longer than anybody waits for it: a load, an explanation.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._working = False
        self._lock = threading.Lock()  # guards the above

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call `work` when it is its turn; the outcome comes with the future, which can be cancelled until then."""
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.append((future, work, arguments))
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name=self.name, daemon=True).start()
        return future

    def close(self) -> None:
        """Begin nothing more of what waits."""
        with self._lock:
            dropped = [future for future, _, _ in self._waiting]
            self._waiting.clear()
        for future in dropped:
            future.cancel()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._working = bool(self._waiting)
                if not self._working:
                    return
                future, work, arguments = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                outcome = work(*arguments)
            except BaseException as error:  # noqa: BLE001 - told to whoever waits for the future
                future.set_exception(error)
            else:
                future.set_result(outcome)
