"""Corrections: the right label of a text, kept in a database that `newslora train --data` reads."""

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora import files
from newslora.config import DataSettings
from newslora.data.databases import (
    VERSION,
    check_version,
    database_errors,
    database_table,
    open_engine,
    split_address,
    tables,
)
from newslora.errors import DataError, SettingsError

if TYPE_CHECKING:
    import sqlalchemy as sa

LOCK = 0x6E6577736C6F7261  # any number that nobody else's advisory lock has: 'newslora' in ASCII


@dataclass(frozen=True, slots=True)
class Given:
    """A correction as it came in."""

    text: str
    labels: tuple[str, ...]
    several: bool  # whether the adapter gives a text any number of labels
    adapter: str
    version: str
    predicted: tuple[str, ...] | None = None
    probability: float | None = None
    key: str | None = None
    id: str | None = None  # the client's own


class ConflictError(DataError):
    """An id that another correction has."""


class FeedbackStore:
    """Keeps corrections; every call blocks until the database has answered, and threads may share it.

    Args:
        address: SQLite's or PostgreSQL's; the tables are made where they are missing.

    Raises:
        DataError: no address, or tables of another version.
        StorageError: the database refuses.
        MissingExtraError: no library for it is installed.
    """

    def __init__(self, address: str) -> None:
        self.address, adapter = split_address(address)
        if adapter is not None:
            raise DataError(
                f"'{address}' names the adapter '{adapter}'; corrections of all adapters are kept together."
            )
        self._engine = open_engine(self.address)
        path = self._engine.url.database
        if self._engine.url.get_backend_name() == "sqlite" and path is not None:
            with files.disk_errors(Path(path)):
                Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
                if not path.startswith("file:"):  # SQLite's own kind of address
                    _make_private(path)
        try:
            self._make_tables()
        except BaseException:
            self.close()
            raise

    def _make_tables(self) -> None:
        corrections, schema = tables()
        with database_errors(self.address), self._engine.connect() as connection:
            if check_version(connection, self.address):
                return
        # replicas that start together on an empty database take turns
        turn = "BEGIN IMMEDIATE" if self._engine.dialect.name == "sqlite" else f"SELECT pg_advisory_xact_lock({LOCK})"
        with database_errors(self.address), self._engine.begin() as connection:
            connection.exec_driver_sql(turn)
            corrections.metadata.create_all(connection, checkfirst=True)
            if not check_version(connection, self.address):
                connection.execute(schema.insert().values(version=VERSION))

    def add(self, given: Given) -> tuple[str, bool]:
        """Keep a correction; its id and whether it is new: the same one with the same id, sent again, is kept once.

        Raises:
            ConflictError: the id belongs to another correction.
            StorageError: the database refuses.
        """
        import sqlalchemy as sa

        kept = tables()[0]
        values = _values(given)
        with database_errors(self.address):
            try:
                with self._engine.begin() as connection:
                    connection.execute(kept.insert().values(values))
                return str(values["id"]), True
            except sa.exc.IntegrityError:
                with self._engine.connect() as connection:
                    found = connection.execute(sa.select(kept).where(kept.c.id == values["id"])).mappings().first()
        same = ("text_sha256", "labels", "adapter", "key_name")
        if found is None or any(found[name] != values[name] for name in same):
            raise ConflictError(f"The id '{values['id']}' belongs to another correction. Send a new id, or none.")
        return str(values["id"]), False

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """Corrections, newest first."""
        import sqlalchemy as sa

        kept = tables()[0]
        with database_errors(self.address), self._engine.connect() as connection:
            rows = connection.execute(sa.select(kept).order_by(kept.c.number.desc()).limit(limit)).mappings().all()
        return [_record(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Corrections by adapter."""
        import sqlalchemy as sa

        kept = tables()[0]
        with database_errors(self.address), self._engine.connect() as connection:
            rows = connection.execute(sa.select(kept.c.adapter, sa.func.count()).group_by(kept.c.adapter)).all()
        return {name: int(count) for name, count in rows}

    def close(self) -> None:
        self._engine.dispose()


def _make_private(path: str) -> None:
    """Make an empty database, if there is none, that its owner alone may read: it will hold texts that others sent.

    SQLite gives the files beside it the same permissions.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _values(given: Given) -> dict[str, Any]:
    return {
        "id": given.id or uuid.uuid4().hex,
        "created": time.time(),
        "text": given.text,
        "text_sha256": hashlib.sha256(given.text.strip().encode()).hexdigest(),
        "labels": json.dumps(list(given.labels), ensure_ascii=False),
        "several": given.several,
        "adapter": given.adapter,
        "version": given.version,
        "predicted": None if given.predicted is None else json.dumps(list(given.predicted), ensure_ascii=False),
        "probability": given.probability,
        "key_name": given.key,
    }


def _record(row: "sa.RowMapping") -> dict[str, Any]:
    told = {name: row[name] for name in ("id", "created", "text", "adapter", "version", "probability")}
    predicted = None if row["predicted"] is None else json.loads(row["predicted"])
    return told | {"labels": json.loads(row["labels"]), "predicted": predicted, "key": row["key_name"]}


def export_corrections(address: str, output: Path, separator: str | None = None) -> int:
    """Write an adapter's corrections, the newest of each text, as .jsonl or .csv with the columns text and label.

    Returns how many; lists of labels are joined with `separator` in CSV (None: as training reads them by default).

    Raises:
        DataError, StorageError, MissingExtraError: they cannot be read, or the file cannot be written.
        SettingsError: another suffix.
    """
    if output.suffix.lower() not in (".jsonl", ".csv"):
        raise SettingsError(f"Cannot write {output}: its name ends in neither .jsonl nor .csv.")
    between = DataSettings().label_separator if separator is None else separator
    table, count = database_table(address), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in table.rows:
            count += 1
            yield row.fields

    if output.suffix.lower() == ".csv":
        files.write_csv(output, table.columns, ([one["text"], _joined(one["label"], between)] for one in rows()))
    else:
        with files.atomic_path(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(map(files.json_line, rows()))
    return count


def _joined(label: str | Sequence[str], separator: str) -> str:
    return label if isinstance(label, str) else separator.join(label)
