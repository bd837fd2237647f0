"""A checked request -> the service's answers, in time and by one version, as the API tells them."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from newslora.data.articles import is_empty
from newslora.serving.context import Context
from newslora.serving.explaining import explain_texts
from newslora.serving.keys import Key
from newslora.serving.problems import Problem
from newslora.serving.schemas import ClassifyAnswer, ClassifyRequest, ErrorRecord, LabelProbability, Result, ScoredWord

if TYPE_CHECKING:
    from newslora.serving.service import Answered

EMPTY = ErrorRecord(code="empty_text", message="The text is empty or blank: there is nothing to classify.")


async def classify(context: Context, key: Key, asked: ClassifyRequest, note: dict[str, Any]) -> ClassifyAnswer:
    """Answer one request; what its log line is to tell is added to `note`.

    Raises:
        Problem, NewsloraError: what problems.py knows.
    """
    texts = asked.many
    check_sizes(context, texts)
    check_explainable(context, asked)
    seconds = wanted_seconds(context, asked.timeout, asked.explain)
    served = context.service.get(asked.adapter)
    empty = [is_empty(text) for text in texts]
    usable = [text for text, nothing in zip(texts, empty, strict=True) if not nothing]
    words: Sequence[list[ScoredWord] | None] = [None] * len(usable)
    with context.rates.rows(context.rated(key), len(usable)):
        deadline = time.monotonic() + seconds
        note |= {"adapter": served.name, "version": served.version, "rows": len(texts)}
        answered = await context.service.answer(served.name, usable, abstain=asked.abstain, deadline=deadline)
        served = answered[0].served if answered else served
        note["version"] = served.version
        if asked.explain and usable:
            words = await explain_texts(context, served, usable, [one.prediction for one in answered], deadline)
    if usable:
        context.metrics.answered(served.name, len(usable), sum(map(len, usable)))
    told = iter(zip(usable, answered, words, strict=True))
    results = []
    for text, nothing in zip(texts, empty, strict=True):
        if nothing:
            context.metrics.failed(EMPTY.code)
            results.append(failed(EMPTY))
            continue
        _, one, scored = next(told)
        context.seen(text, one)
        results.append(result(one, asked.top_k, asked.probabilities, asked.abstain is not None, scored))
    return ClassifyAnswer(adapter=served.name, version=served.version, results=results)


def result(
    one: "Answered", top_k: int | None, probabilities: bool, abstaining: bool, words: list[ScoredWord] | None = None
) -> Result:
    """One answer with what was asked for; other fields stay unset and are left out."""
    given = one.prediction
    more: dict[str, Any] = {}
    if probabilities:
        more["probabilities"] = given.probabilities
    if top_k is not None:
        more["top"] = [LabelProbability(label=label, probability=share) for label, share in given.top(top_k)]
    if abstaining:
        more |= {"abstained": given.abstained, "answer_set": list(given.answer_set or ())}
    if words is not None:
        more["words"] = words
    return Result(label=given.label, labels=list(given.labels), probability=given.probability, error=None, **more)


def failed(error: ErrorRecord) -> Result:
    """A text without an answer."""
    return Result(label=None, labels=[], probability=None, error=error)


def check_sizes(context: Context, texts: Sequence[str]) -> None:
    """Refuse too many texts, or too long ones.

    Raises:
        Problem: 413.
    """
    settings = context.settings
    if len(texts) > settings.max_texts:
        raise Problem(
            413,
            "too_many_texts",
            f"The request holds {len(texts):,} texts, and {settings.max_texts:,} are allowed. Send several requests, or "
            "stream them to /v1/classify/stream.",
        )
    for place, text in enumerate(texts):
        if len(text) > settings.max_characters:
            raise Problem(413, "text_too_long", f"Text {place} has {too_long(text, settings.max_characters)}")


def too_long(text: str, allowed: int) -> str:
    return f"{len(text):,} characters, and {allowed:,} are allowed. Send a part of it."


def check_explainable(context: Context, asked: ClassifyRequest) -> None:
    """Refuse more explanations than are allowed.

    Raises:
        Problem: 422.
    """
    allowed = context.settings.explain_texts
    if asked.explain and len(asked.many) > allowed:
        way = f"Ask for {allowed} texts at most" if allowed else "This server gives none"
        raise Problem(422, "too_many_to_explain", f"{len(asked.many):,} texts are to be explained. {way}.")


def wanted_seconds(context: Context, asked: float | None, explaining: bool) -> float:
    """How long the answer may take.

    Raises:
        Problem: 422, more than is allowed.
    """
    longest = context.settings.longest_timeout
    if asked is not None and asked > longest:
        raise Problem(422, "bad_value", f"timeout is {asked:g} seconds, and {longest:g} are allowed.")
    if asked is not None:
        return asked
    # the first explanation of an adapter loads a model of its own, which alone may take the usual deadline
    usual = context.settings.deadline_seconds
    return max(usual, longest) if explaining else usual
