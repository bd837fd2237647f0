"""Files of an older or a newer newslora: they mean what they meant, or are refused in a sentence with the way out."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from newslora.config import DataSettings
from newslora.data import articles
from newslora.data.articles import FORMAT, ArticleSet, read_articles
from newslora.data.sources import parse_source
from newslora.data.texts import RowSpool
from newslora.errors import RunError, SettingsError
from newslora.model.adapter import read_card
from newslora.model.exported import check_export
from newslora.predict.calibration import load_calibration
from newslora.predict.canary import load_canary
from newslora.predict.thresholds import load_thresholds
from newslora.runfolder import RunFolder
from newslora.serving.keys import read_keys

RECORDS: dict[str, Callable[[Path], Any]] = {
    "newslora.json": read_card,
    "calibration.json": lambda folder: load_calibration(folder, "x", 2),
    "canary.json": lambda folder: load_canary(folder, "x"),
    "thresholds.json": lambda folder: load_thresholds(folder, "x", 2),
    "export.json": lambda folder: check_export(folder, "merged", "x"),
    "manifest.json": lambda folder: RunFolder(folder).manifest(),
    "keys.json": lambda folder: read_keys(folder / "keys.json"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_newer_format_is_refused_as_such_whatever_its_fields(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps({"format": 2, "a field of tomorrow": {}}))
    told = f"{name} has format 2; this newslora reads 1\\. Use the newslora that made it\\.$"
    with pytest.raises((RunError, SettingsError), match=told):
        RECORDS[name](tmp_path)


ZOO = {
    "plain.csv": b'text,label\r\nA peace accord,World\r\n"A ""cup"" final",Sports\r\nragged,Sports,more\r\nalone\r\n',
    "quoted.csv": b'text,label\n"Striker" scores,Sports\n"open,World\nnext,Sports\nA "b" c,World\n',
    "one.csv": b"sep=;\ntext;label;;\na;1.0;;\nb;0;;\n",
    "odd.csv": "text,label\n\u200b,a\nx\0y,b\n\xa0z ,a\n".encode() + b"\xff,b\nend,b\n",
    "kinds.jsonl": b'{"text": {"a": 1}, "label": "a"}\n{"text": "t", "label": true}\n{"text": 12, "label": 1.0}\n'
    b'{"text": null, "label": "a"}\n{"text": ["x"], "label": "b"}\n{"text": "x", "text": "y", "label": "a"}\nno json\n'
    b'{"text": "late", "label": "b", "body": "column"}\n{"text": "broken \\ud800", "label": "a"}\n',
    "several.jsonl": b'{"text": "t", "labels": ["b", "a", "b"]}\n{"text": "u", "labels": "[\'a\']"}\n'
    b'{"text": "v", "labels": "a;c"}\n{"text": "w", "labels": []}\n{"text": "x", "labels": "[a b]"}\n',
}
READ = {"newslora articles 4": "ca31c76081cd0420"}


def test_what_is_read_of_the_same_bytes_is_what_the_cache_of_this_format_holds(tmp_path: Path) -> None:
    """Where this fails, reading has changed: raise FORMAT, so that no older cache answers for it, and pin the new digest."""
    found = []
    for name, content in ZOO.items():
        (tmp_path / name).write_bytes(content)
        settings = DataSettings(multi_label=name.startswith("several"))
        rows, labels = read_articles(parse_source(str(tmp_path / name)), None, settings, None)
        given = rows.labels.tolist() if rows.combinations is None else rows.indicators.tolist()
        aside = [one.row for one in rows.quarantined]
        found.append([name, labels.names, list(rows.texts), given, rows.rows.tolist(), aside])
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    assert {FORMAT: digest} == READ, found


def test_rows_that_an_older_newslora_cached_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "news.csv").write_bytes("text,label\n\u200b,World\ncup final,Sports\n".encode())
    with monkeypatch.context() as older:
        older.setattr(articles, "FORMAT", "newslora articles 3")
        older.setattr(RowSpool, "spilled", property(lambda self: True))
        older.setattr(articles, "usable_text", lambda row, columns: (row.fields["text"], None))
        assert len(read(tmp_path / "news.csv")) == 2
        assert len(read(tmp_path / "news.csv")) == 2
    assert len(list((tmp_path / "cache" / "articles").iterdir())) == 1
    now = read(tmp_path / "news.csv")
    assert (list(now.texts), [one.row for one in now.quarantined]) == (["cup final"], [1])


def read(path: Path) -> ArticleSet:
    return read_articles(parse_source(str(path)), None, DataSettings(), None)[0]
