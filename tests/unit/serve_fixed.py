"""A server process whose every answer is World: `python serve_fixed.py SECONDS [FOLDER] [key=value ...]`, an answer taking
SECONDS. A folder with a file `slow` takes no end of time to load, and has a file `begun` from then on.

What is tested with it is how the process talks and ends; without a model it starts at once.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from newslora.cli import app
from newslora.config import parse_assignment
from newslora.errors import InterruptedRun
from newslora.predict.classifier import Prediction
from newslora.runtime import end_process
from newslora.serving.server import serve
from newslora.serving.service import Answered, QueueState, Served
from newslora.serving.settings import ServeSettings, serve_settings

SERVED = Served("news", "abc123def456", ("World", "Sports"), False, "none", False, time.time())
WORLD = Prediction("World", 0.9, {"World": 0.9, "Sports": 0.1}, labels=("World",))


class Fixed:
    """As much of the service as the HTTP layer calls."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def load(self, name: str, folder: Path, before_it_counts: Callable[[], None]) -> Served:
        while (folder / "slow").exists():
            (folder / "begun").touch()
            time.sleep(0.05)
        before_it_counts()
        return SERVED

    def adapters(self) -> list[Served]:
        return [SERVED]

    def get(self, name: str | None) -> Served:
        return SERVED

    def classifier(self, name: str) -> None:
        time.sleep(30)

    async def answer(
        self, name: str | None, texts: Sequence[str], *, abstain: float | None = None, deadline: float | None = None
    ) -> list[Answered]:
        await asyncio.sleep(self.seconds)
        return [Answered(SERVED, WORLD) for _ in texts]

    def start(self) -> None:
        pass

    def drain(self, within: float | None = None) -> None:
        pass

    def queue(self) -> QueueState:
        return QueueState(0, 0, 100, 1000)

    def queues(self) -> dict[str, QueueState]:
        return {"none": self.queue()}

    def passes(self) -> dict[str, float]:
        return {}

    def problems(self) -> list[str]:
        return []


def main() -> int:
    seconds, *values = sys.argv[1:]
    folder = Path() if not values or "=" in values[0] else Path(values.pop(0))
    settings = serve_settings({"port": 0, **dict(parse_assignment(value, ServeSettings) for value in values)})
    try:
        serve({"news": folder}, settings, Fixed(float(seconds)), lambda line: print(line, flush=True))  # type: ignore[arg-type]
    except InterruptedRun as ended:
        end_process(ended.exit_code)
    return 0


if __name__ == "__main__":
    app.main = main  # type: ignore[assignment]
    app.run()  # and end as the command does
