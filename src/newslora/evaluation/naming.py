"""What an evaluation of given rows is called in evaluation/, so that none takes the place of another's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from newslora import files
from newslora.data.articles import ArticleSet
from newslora.runfolder import NOT_EVALUATIONS, OWN_EVALUATIONS


def result_name(folder: Path, source: str, articles: ArticleSet, other: Mapping[str, Any]) -> str:
    """What the result of a source's rows is called: after the source, and with part of a hash where that of others is.

    a/news.csv and b/news.jsonl are others, and so is one file read by two settings; the same rows take their result's place.

    Args:
        folder: of the results.
        source: as it was given.
        articles: its rows.
        other: settings that read them, where these are not the run's own.
    """
    name = _file_name(source)
    for one in (name, f"{name}-{articles.sha256[:8]}"):
        held = _held(folder / f"{one}.json")
        if held is None or (held["sha256"] == articles.sha256 and _read_alike(held, articles, other)):
            return one
        if held["sha256"] == articles.sha256:
            break
    return f"{name}-{str(articles.reading)[:8]}"


def _held(path: Path) -> dict[str, Any] | None:
    """What a result says; None: there is none, or a damaged one."""
    try:
        held = files.read_json(path)
        return held if "sha256" in held else None
    except (OSError, ValueError, TypeError):
        return None


def _read_alike(held: Mapping[str, Any], articles: ArticleSet, other: Mapping[str, Any]) -> bool:
    """Whether the rows of a result were read as these. Older ones do not say how, or read the same by other rules."""
    if held.get("reading") in (None, articles.reading):
        return True
    columns = (held.get("text_columns"), held.get("label_column"))
    return columns == (list(articles.text_columns), articles.label_column) and held.get("settings", {}) == dict(other)


def _file_name(source: str) -> str:
    stem = source.rstrip("/").rpartition("/")[2].split(".")[0] or "data"
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)
    # these names are the run's own, and NAME-errors.csv is another file's
    return f"{safe}-data" if safe in (*OWN_EVALUATIONS, *NOT_EVALUATIONS) or safe.endswith("-errors") else safe
