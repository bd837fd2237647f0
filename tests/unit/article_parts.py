"""Files of rows, and how tests of articles and labels read them."""

import json
from pathlib import Path
from typing import Any

from newslora.config import DataSettings
from newslora.data.articles import ArticleSet, read_articles
from newslora.data.labels import LabelSet
from newslora.data.sources import parse_source

AG = ("World", "Sports", "Business", "Sci/Tech")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(path: Path, labels: list[Any]) -> Path:
    return write(path, [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)])


def read(path: Path, labels: LabelSet | None = None, **more: Any) -> tuple[ArticleSet, LabelSet]:
    return read_articles(parse_source(str(path)), None, DataSettings(source=str(path), **more), labels)


def ids(found: ArticleSet) -> list[int]:
    return found.labels.tolist()


def reasons(found: ArticleSet) -> list[str]:
    return [bad.reason for bad in found.quarantined]
