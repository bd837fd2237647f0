"""What an evaluation of given rows is called in evaluation/, so that none takes the place of another's."""

from pathlib import Path

from newslora import files
from newslora.data.articles import ArticleSet
from newslora.runfolder import NOT_EVALUATIONS, OWN_EVALUATIONS


def result_name(folder: Path, source: str, articles: ArticleSet) -> str:
    """What the result of a source's rows is called: after the source, and with part of a hash where that of others is.

    a/news.csv and b/news.jsonl are others, and so is one file read by two settings; the same rows take their result's place.
    """
    name = _file_name(source)
    for one in (name, f"{name}-{articles.sha256[:8]}"):
        holder = _holder(folder / f"{one}.json")
        if holder is None or holder in ((articles.sha256, articles.reading), (articles.sha256, None)):
            return one
        if holder[0] == articles.sha256:
            break
    return f"{name}-{str(articles.reading)[:8]}"


def _holder(path: Path) -> tuple[str, str | None] | None:
    """Which rows a result is of and how they were read, which older ones do not say; None: there is none, or a damaged one."""
    try:
        held = files.read_json(path)
        return str(held["sha256"]), held.get("reading")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _file_name(source: str) -> str:
    stem = source.rstrip("/").rpartition("/")[2].split(".")[0] or "data"
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)
    # these names are the run's own, and NAME-errors.csv is another file's
    return f"{safe}-data" if safe in (*OWN_EVALUATIONS, *NOT_EVALUATIONS) or safe.endswith("-errors") else safe
