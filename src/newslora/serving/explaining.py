"""Explanations behind HTTP: one text at a time in a thread of its own, for a text takes as long as dozens of answers."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from newslora.errors import DeadlineError, OverloadedError
from newslora.serving.context import Context
from newslora.serving.problems import Problem
from newslora.serving.schemas import ScoredWord

if TYPE_CHECKING:
    from newslora.predict.classifier import Prediction
    from newslora.serving.service import Served

MOST_WAITING = 16  # texts; where none waits, a request may hold any number
RETRY_SECONDS = 2.0  # that a refused client is told to wait


async def explain_texts(
    context: Context, served: "Served", texts: Sequence[str], predictions: "Sequence[Prediction]", deadline: float
) -> list[list[ScoredWord]]:
    """The words of each text with what they do for the label it was given, or for its likeliest.

    Raises:
        OverloadedError, DeadlineError: too many wait, or it takes too long.
        MissingExtraError: captum is not installed.
        SettingsError: an ONNX export, which cannot be explained.
        Problem: 503, another version has taken the adapter's place.
    """
    if context.explaining and context.explaining + len(texts) > MOST_WAITING:
        raise OverloadedError(
            f"{context.explaining} of at most {MOST_WAITING} texts wait to be explained already. Try again in "
            f"{RETRY_SECONDS:g} s, or ask without `explain`.",
            RETRY_SECONDS,
        )
    context.explaining += len(texts)
    loop = asyncio.get_running_loop()
    job = context.explainer.submit(_explain, context, served, texts, predictions, deadline)
    job.add_done_callback(lambda _: None if loop.is_closed() else loop.call_soon_threadsafe(_done, context, len(texts)))
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            return await asyncio.wrap_future(job)
    except DeadlineError:
        raise
    except TimeoutError:
        raise DeadlineError(
            "The explanation was not ready in time. Allow more with `timeout`, or ask without it."
        ) from None


def _done(context: Context, texts: int) -> None:
    context.explaining -= texts


def _explain(
    context: Context, served: "Served", texts: Sequence[str], predictions: "Sequence[Prediction]", deadline: float
) -> list[list[ScoredWord]]:
    from newslora.explanation.attributions import explain

    classifier = context.service.classifier(served.name)
    if classifier.version != served.version:
        raise Problem(503, "replaced", f"The adapter '{served.name}' was replaced meanwhile. Send it again.", 1.0)
    found = []
    for text, prediction in zip(texts, predictions, strict=True):
        if time.monotonic() > deadline:
            raise DeadlineError("The explanation was not ready in time. Allow more with `timeout`.")
        one = explain(classifier, text, prediction.label or prediction.top(1)[0][0])
        found.append([ScoredWord(**asdict(word)) for word in one.words])
    return found
