"""Corrections that a server collected (`newslora serve --feedback`), in SQLite or PostgreSQL: their table, and as raw rows.

An address is `sqlite:///corrections.db` (`sqlite:////...` from the root) or `postgresql://user@host/name`; an adapter's own
corrections are named after #. A table only grows: the newest correction of a text counts, the older ones are history.
"""

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora.config import NO_PASSWORD, holds_password, is_database
from newslora.data.lines import Meter
from newslora.data.readers import RawRow, Table
from newslora.errors import DataError, MissingExtraError, StorageError, near, needing, one_line

if TYPE_CHECKING:
    import sqlalchemy as sa

VERSION = 1  # of the tables below
ROWS_AT_ONCE = 1000  # read from the database
COLUMNS = ("text", "label")
SECONDS_TO_CONNECT = 10


@cache
def tables() -> "tuple[sa.Table, sa.Table]":
    """The corrections, and the one row that says which version of them this is.

    Raises:
        MissingExtraError: SQLAlchemy is not installed.
    """
    with needing("A database of corrections", "serve"):
        import sqlalchemy as sa
    metadata = sa.MetaData()
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # what SQLite counts up by itself
    corrections = sa.Table(
        "newslora_feedback",
        metadata,
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("created", sa.Float(53), nullable=False),  # Unix time in seconds
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("text_sha256", sa.String(64), nullable=False, index=True),  # texts are too long for an index
        sa.Column("labels", sa.Text, nullable=False),  # a JSON list
        # whether a text of this adapter may carry any number of labels
        sa.Column("several", sa.Boolean, nullable=False),
        sa.Column("adapter", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("predicted", sa.Text),  # a JSON list, where the client told
        sa.Column("probability", sa.Float(53)),
        sa.Column("key_name", sa.String(64)),
    )
    return corrections, sa.Table("newslora_schema", metadata, sa.Column("version", sa.Integer, nullable=False))


def split_address(text: str) -> tuple[str, str | None]:
    """`'sqlite:///corrections.db#news'` -> `('sqlite:///corrections.db', 'news')`.

    Raises:
        DataError: no such address, or one with a password in it.
    """
    if holds_password(text):
        raise DataError(NO_PASSWORD)
    address, _, adapter = text.partition("#")
    if not is_database(address):
        raise DataError(
            f"'{text}' is not a valid database address. Allowed: sqlite:///corrections.db, sqlite:////path/from/the/root.db or "
            "postgresql://user@host/name."
        )
    return address, adapter or None


def open_engine(address: str, keep_connections: bool = True) -> "sa.Engine":
    """A database of corrections; not connected yet.

    Raises:
        DataError: an address that names none, or one with a password in it.
        MissingExtraError: no library for it is installed.
    """
    split_address(address)
    tables()
    import sqlalchemy as sa

    try:
        url = sa.make_url(address)
        if url.get_backend_name() == "sqlite":
            if url.database in (None, "", ":memory:"):
                raise DataError(f"'{address}' names no file. Give one: sqlite:///corrections.db.")
            # an open file outlives its name: after a restore, kept connections would write to the one that is gone
            engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"timeout": SECONDS_TO_CONNECT})
            sa.event.listen(engine, "connect", _keep_a_journal)
            return engine
        url = url.set(drivername="postgresql+psycopg")
        asked = {"connect_timeout": SECONDS_TO_CONNECT}
        pool = sa.QueuePool if keep_connections else sa.NullPool
        return sa.create_engine(url, poolclass=pool, pool_pre_ping=keep_connections, connect_args=asked)
    except ImportError:
        raise MissingExtraError("PostgreSQL", "postgres") from None
    except (sa.exc.ArgumentError, ValueError) as error:
        raise DataError(f"'{address}' is not a valid database address: {error}.") from None


def _keep_a_journal(connection: Any, record: Any) -> None:
    """Write-ahead logging: readers and the one writer do not wait for each other, and a commit is on the disk."""
    until = time.monotonic() + SECONDS_TO_CONNECT
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        while True:
            try:
                connection.execute(f"PRAGMA {pragma}").close()
                break
            except sqlite3.OperationalError as error:
                # two that both begin the journal: SQLite itself does not wait there
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)


@contextlib.contextmanager
def database_errors(address: str) -> Iterator[None]:
    """Turn what a database refuses into a StorageError with its reason, without the statement and its texts."""
    import sqlalchemy as sa

    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        reason = one_line(getattr(error, "orig", None) or type(error).__name__)
        raise StorageError(f"The database {address} cannot be used: {reason}") from None


def check_version(connection: "sa.Connection", address: str) -> bool:
    """Whether the tables are there.

    Raises:
        DataError: in another version than this newslora's.
    """
    import sqlalchemy as sa

    if not sa.inspect(connection).has_table("newslora_schema"):
        return False
    found = connection.execute(sa.select(tables()[1].c.version)).scalar()
    if found not in (None, VERSION):
        raise DataError(
            f"The corrections in {address} are of version {found}; this newslora reads and writes version {VERSION}. Use the "
            "newslora that made them, and export them with `newslora feedback export`."
        )
    return found is not None


def database_table(text: str) -> Table:
    """The corrections of one adapter as raw rows, the newest of each text, in order of time.

    Rows that come in later are not seen: what is hashed is what is read.

    Raises:
        DataError: no corrections there, or of several adapters and none is named.
        StorageError: the database refuses.
        MissingExtraError: no library for it is installed.
    """
    address, adapter = split_address(text)
    engine = open_engine(address, keep_connections=False)
    if engine.url.get_backend_name() == "sqlite" and not Path(str(engine.url.database)).is_file():
        raise DataError(f"There is no database file '{engine.url.database}' (looked in {Path.cwd()}).")
    last, name = _which(engine, address, adapter)
    digest = hashlib.sha256(f"newslora corrections {VERSION}\n".encode())
    for row in _rows(engine, address, name, last, Meter(), 0, 0):
        digest.update(json.dumps(row.fields, ensure_ascii=True).encode() + b"\n")
    meter = Meter()
    behind = partial(_rows, engine, address, name, last, meter)
    return Table(COLUMNS, behind(0, 0), True, digest.hexdigest(), None, behind, meter)


def _which(engine: "sa.Engine", address: str, adapter: str | None) -> tuple[int, str]:
    """The newest correction's number and the adapter whose corrections are meant."""
    import sqlalchemy as sa

    kept = tables()[0]
    with database_errors(address), engine.connect() as connection:
        there = check_version(connection, address)
        found = sa.select(kept.c.adapter, sa.func.max(kept.c.number)).group_by(kept.c.adapter).order_by(kept.c.adapter)
        last = {name: int(number) for name, number in connection.execute(found)} if there else {}
    if not last:
        raise DataError(f"There are no corrections in {address}. `newslora serve --feedback {address}` collects them.")
    if adapter is None and len(last) > 1:
        raise DataError(
            f"{address} holds corrections of {len(last)} adapters: {', '.join(last)}. Name one after #, as in "
            f"'{address}#{next(iter(last))}'."
        )
    name = adapter or next(iter(last))
    if name not in last:
        raise DataError(f"{address} holds no corrections of '{name}', but of {', '.join(last)}.{near(name, last)}")
    return last[name], name


def _rows(
    engine: "sa.Engine", address: str, adapter: str, last: int, meter: Meter, number: int, end: int
) -> Iterator[RawRow]:
    """Rows behind the first `number`; a correction counts where none of the same text has come later."""
    import sqlalchemy as sa

    kept = tables()[0]
    later = kept.alias()
    newer = sa.exists().where(
        later.c.text_sha256 == kept.c.text_sha256,
        later.c.adapter == adapter,
        later.c.number > kept.c.number,
        later.c.number <= last,
    )
    chosen = (
        sa.select(kept.c.number, kept.c.text, kept.c.labels, kept.c.several)
        .where(kept.c.adapter == adapter, kept.c.number <= last, ~newer)
        .order_by(kept.c.number)
        .offset(number)
    )
    with database_errors(address), engine.connect() as connection:
        streaming = connection.execution_options(yield_per=ROWS_AT_ONCE)
        for place, (serial, text, labels, several) in enumerate(streaming.execute(chosen), number + 1):
            meter.share = serial / last
            names = json.loads(labels)
            yield RawRow(place, {"text": text, "label": names if several or len(names) != 1 else names[0]})
