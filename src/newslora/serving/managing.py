"""Adapters put and taken away, corrections kept, and what the server tells of itself."""

import asyncio
from pathlib import Path
from typing import Any

from newslora import __version__
from newslora.data.articles import is_empty
from newslora.errors import StorageError, UnknownAdapterError, listed, near
from newslora.serving.context import Context
from newslora.serving.feedback import ConflictError, FeedbackStore, Given
from newslora.serving.keys import Key
from newslora.serving.problems import Problem
from newslora.serving.schemas import FeedbackRequest

LABELS_SHOWN = 20


def adapters(context: Context) -> list[dict[str, Any]]:
    """All that are served."""
    served, default = context.service.adapters(), _default(context)
    return [record(one, one.name == default) for one in served]


def _default(context: Context) -> str | None:
    """The name of the adapter that answers requests that name none."""
    try:
        return context.service.get(None).name
    except UnknownAdapterError:  # all were removed
        return None


def record(one: Any, default: bool) -> dict[str, Any]:
    """A `Served` as JSON."""
    names = ("name", "version", "multi_label", "backbone", "calibrated", "loaded", "warning")
    return {name: getattr(one, name) for name in names} | {"labels": list(one.labels), "default": default}


async def put(context: Context, name: str, folder: str) -> tuple[dict[str, Any], bool]:
    """Load or replace an adapter; its record, and whether its name is new.

    Raises:
        Problem: 403 outside --adapters-root, 404 no such folder.
        NewsloraError: an adapter that cannot be served, or the server is ending.
    """
    path = inside(context.settings.adapters_root, folder)
    served = await context.change(context.load, name, path)
    return record(served, _default(context) == name), not served.replaced


async def delete(context: Context, name: str) -> None:
    """Stop serving an adapter.

    Raises:
        UnknownAdapterError: there is none of that name.
        Problem: 403 where adapters cannot be changed.
        DrainingError: the server is ending.
    """
    if context.settings.adapters_root is None:
        raise _fixed()
    await context.change(context.remove, name)


def inside(root: Path | None, folder: str) -> Path:
    """The folder a client names, links followed, if it lies under the root.

    Raises:
        Problem: 403 where it does not, 404 where there is none.
    """
    if root is None:
        raise _fixed()
    try:
        found = (root / folder).resolve()
        allowed = found.is_relative_to(root.resolve())
        there = allowed and found.is_dir()
    except (OSError, ValueError, RuntimeError):  # a name too long, a loop of links
        allowed = there = False
    if not allowed:
        raise Problem(403, "outside_root", "The folder lies outside --adapters-root. Name one under it.")
    if not there:
        raise Problem(404, "no_folder", "There is no such folder under --adapters-root.")
    return found


def _fixed() -> Problem:
    return Problem(403, "adapters_fixed", "This server's adapters are fixed: it was started without --adapters-root.")


async def keep(context: Context, key: Key, asked: FeedbackRequest) -> str:
    """Keep a correction; its id.

    Raises:
        Problem: 409, 413, 422 or 501.
        NewsloraError: no such adapter, or the database refuses.
    """
    store = store_of(context)
    served = context.service.get(asked.adapter)
    labels = tuple(asked.right)
    if is_empty(asked.text):
        raise Problem(422, "empty_text", "The text is empty or blank: there is nothing to learn from it.")
    if len(asked.text) > context.settings.max_characters:
        allowed = context.settings.max_characters
        raise Problem(
            413, "text_too_long", f"The text has {len(asked.text):,} characters, and {allowed:,} are allowed."
        )
    if not served.multi_label and len(labels) != 1:
        raise Problem(422, "one_label", f"The adapter '{served.name}' gives one label; {len(labels)} were sent.")
    unknown = [label for label in labels if label not in served.labels]
    if unknown and not context.settings.new_labels:
        known = listed(served.labels, LABELS_SHOWN)
        raise Problem(
            422,
            "unknown_label",
            f"The adapter '{served.name}' has no label '{unknown[0][:100]}'. Labels: {known}.{near(unknown[0], served.labels)}",
        )
    told = asked.predicted
    predicted = None if told is None else (told,) if isinstance(told, str) else tuple(told)
    given = Given(
        asked.text, labels, served.multi_label, served.name, served.version, predicted, asked.probability,
        None if context.keys is None else key.name, asked.id,
    )  # fmt: skip
    try:
        kept, new = await asyncio.to_thread(store.add, given)
    except ConflictError as error:
        raise Problem(409, "id_taken", str(error)) from None
    except StorageError as error:
        raise _unreachable(context, error) from None
    if new:
        context.corrections[served.name] = context.corrections.get(served.name, 0) + 1
        context.metrics.corrected(served.name)
    context.uncertain.corrected(served.name, asked.text)
    return str(kept)


async def corrections(context: Context, limit: int) -> list[dict[str, Any]]:
    """The newest corrections."""
    try:
        return await asyncio.to_thread(store_of(context).newest, limit)
    except StorageError as error:
        raise _unreachable(context, error) from None


def _unreachable(context: Context, error: StorageError) -> Problem:
    """The log says which database and why; a client is told neither."""
    context.log.error("corrections", message=str(error))
    return Problem(503, "storage", "Corrections cannot be kept or read just now; the server's log says why.", 5.0)


def store_of(context: Context) -> FeedbackStore:
    """Where corrections are kept.

    Raises:
        Problem: 501 where none are.
    """
    if context.feedback is None:
        raise Problem(
            501, "no_feedback", "This server keeps no corrections: it was started without --feedback ADDRESS."
        )
    return context.feedback


def uncertain(context: Context, adapter: str | None, limit: int) -> list[dict[str, Any]]:
    """The least sure answers that are kept.

    Raises:
        UnknownAdapterError: there is none of that name.
    """
    if adapter is not None:
        context.service.get(adapter)
    return [item.record() for item in context.uncertain.least_sure(adapter, limit)]


def status(context: Context) -> dict[str, Any]:
    """Live numbers for the page."""
    observed = context.observed.adapters()
    by_adapter = {
        one.name: observed.get(one.name, {})
        | {"version": one.version, "corrections": context.corrections.get(one.name, 0)}
        for one in context.service.adapters()
    }
    return {
        "server": {
            "newslora": __version__,
            "started": context.observed.started,
            "uptime_seconds": context.observed.uptime(),
            "ready": context.ready and not context.draining,
            "keys": context.keys is not None,
            "feedback": context.feedback is not None,
            "keep_uncertain": context.settings.keep_uncertain,
            "explain_texts": context.settings.explain_texts,
            "longest_timeout": context.settings.longest_timeout,
            "max_texts": context.settings.max_texts,
        },
        "load": context.observed.load() | {"requests_active": context.active},
        "queue": context.queue(),
        "adapters": by_adapter,
    }
