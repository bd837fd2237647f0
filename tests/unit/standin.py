"""The service, doing what a test tells it to: be late, be full, be broken."""

import asyncio
import time
from collections.abc import Sequence

from newslora.errors import DeadlineError
from newslora.serving.service import Answered, Service
from newslora.serving.settings import ServeSettings


class Told(Service):
    """A real service that can be told to misbehave."""

    def __init__(self, limits: ServeSettings) -> None:
        super().__init__(limits)
        self.seconds = 0.0  # an answer takes longer by
        self.error: Exception | None = None  # instead of an answer
        self.asked: list[list[str]] = []
        self.broken: list[str] = []

    async def answer(
        self, name: str | None, texts: Sequence[str], *, abstain: float | None = None, deadline: float | None = None
    ) -> list[Answered]:
        self.asked.append(list(texts))
        if self.error is not None:
            raise self.error
        if deadline is not None and time.monotonic() + self.seconds > deadline:
            await asyncio.sleep(max(0.0, deadline - time.monotonic()))
            raise DeadlineError("The answer was not ready in time.")
        await asyncio.sleep(self.seconds)
        return await super().answer(name, texts, abstain=abstain, deadline=deadline)

    def problems(self) -> list[str]:
        return self.broken or super().problems()
