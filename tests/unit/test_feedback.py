"""Corrections in SQLite and in a real PostgreSQL server, and as rows to train on."""

import contextlib
import io
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import newslora
from newslora.cli.app import main
from newslora.config import DataSettings, load_recipe
from newslora.data.articles import read_articles
from newslora.data.databases import _keep_a_journal, database_table
from newslora.data.readers import open_file
from newslora.data.sources import parse_source
from newslora.errors import DataError, SettingsError, StorageError
from newslora.serving.feedback import ConflictError, FeedbackStore, Given

GIVEN = Given("rebels sign treaty", ("World",), False, "news", "abc", ("Sports",), 0.7, "desk")
PASSWORD = "a secret word"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server on a socket of its own, which asks for a password."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL server is installed (Debian: postgresql)")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="newslora-pg-"))
    account: dict[str, object] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        names = {one.pw_name for one in pwd.getpwall()}
        name = next(name for name in ("postgres", "nobody") if name in names)
        shutil.chown(folder, name)
        account = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
    word = folder / "word"
    word.write_text(PASSWORD)
    word.chmod(0o644)
    options = ["-D", str(folder / "data"), "-U", "newslora", f"--pwfile={word}", "--auth=scram-sha-256", "--no-sync"]
    subprocess.run([programs[-1], *options, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, **account)  # type: ignore[call-overload]
    word.unlink()
    server = [programs[-1].with_name("postgres"), "-D", folder / "data", "-k", folder, "-c", "listen_addresses="]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*server, "-c", "fsync=off"], stdout=log, stderr=log, **account)  # type: ignore[call-overload]
    try:
        wait_for(folder)
        yield f"postgresql://newslora@/postgres?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)  # "fast shutdown"
        process.wait(timeout=30)
        shutil.rmtree(folder)


def wait_for(folder: Path) -> None:
    import time

    import psycopg

    for _ in range(200):
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host=str(folder), user="newslora", dbname="postgres", password=PASSWORD).close()
            return
        time.sleep(0.05)
    raise AssertionError((folder / "log").read_text())


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/in/a/corrections.db"
    import psycopg

    found: str = request.getfixturevalue("postgres")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with psycopg.connect(found, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return found


@contextlib.contextmanager
def opened(address: str) -> Iterator[FeedbackStore]:
    store = FeedbackStore(address)
    try:
        yield store
    finally:
        store.close()


def test_kept_once_by_id_and_in_order(address: str) -> None:
    with opened(address) as store:
        first, new = store.add(replace(GIVEN, id="mine"))
        assert (first, new) == ("mine", True)
        assert store.add(replace(GIVEN, id="mine")) == ("mine", False)
        for other in ({"labels": ("Sports",)}, {"key": "another"}, {"text": "another"}, {"adapter": "another"}):
            with pytest.raises(ConflictError, match="belongs to another"):
                store.add(replace(GIVEN, id="mine", **other))  # type: ignore[arg-type]
        store.add(
            replace(
                GIVEN, text="naïve 🚀 'quoted' \"text\"; DROP TABLE x --", labels=("Sci/Tech", "World"), several=True
            )
        )
        assert store.counts() == {"news": 2}
        newest = store.newest(10)
    assert [one["text"][:5] for one in newest] == ["naïve", "rebel"]
    assert newest[0]["labels"] == ["Sci/Tech", "World"]
    assert newest[1] | {"created": 0} == {
        "id": "mine", "created": 0, "text": GIVEN.text, "labels": ["World"], "adapter": "news", "version": "abc",
        "predicted": ["Sports"], "probability": 0.7, "key": "desk",
    }  # fmt: skip
    with opened(address) as again:
        assert again.counts() == {"news": 2}


def test_a_database_restored_while_it_is_served_gets_what_comes_then(tmp_path: Path) -> None:
    path = tmp_path / "corrections.db"
    with opened(f"sqlite:///{path}") as store:
        store.add(replace(GIVEN, id="before"))
        shutil.copy(path, tmp_path / "copy.db")  # whole, for nothing is being written
        store.add(replace(GIVEN, id="lost with the disk"))
        (tmp_path / "copy.db").replace(path)
        store.add(replace(GIVEN, id="after"))
    with opened(f"sqlite:///{path}") as again:
        assert [one["id"] for one in again.newest(10)] == ["after", "before"]


def test_what_others_sent_is_readable_by_the_owner_alone_and_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "new" / "corrections.db"
    with opened(f"sqlite:///{path}") as store, store._engine.connect() as held:
        store.add(GIVEN)
        held.exec_driver_sql("SELECT count(*) FROM newslora_feedback")  # keeps the journal's files
        assert {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == dict.fromkeys(
            (path.name, f"{path.name}-wal", f"{path.name}-shm"), 0o600
        )
    path.chmod(0o640)  # for a group that trains on it
    with opened(f"sqlite:///{path}"):
        assert path.stat().st_mode & 0o777 == 0o640


def test_servers_that_start_together_on_an_empty_database_all_start(address: str) -> None:
    at_once = threading.Barrier(6)

    def start(number: int) -> str:
        at_once.wait()
        with opened(address) as store:
            return store.add(replace(GIVEN, id=f"id-{number}"))[0]

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(start, range(6)))) == 6
    with opened(address) as again:
        assert again.counts() == {"news": 6}


def test_a_journal_that_another_server_begins_is_waited_for() -> None:
    import sqlite3

    asked: list[str] = []

    class Taken:
        def execute(self, statement: str) -> io.BytesIO:
            asked.append(statement)
            if len(asked) < 3:
                raise sqlite3.OperationalError("database is locked")
            return io.BytesIO()

    _keep_a_journal(Taken(), None)
    assert asked == [*["PRAGMA journal_mode=WAL"] * 3, "PRAGMA synchronous=FULL"]


def test_threads_lose_nothing(address: str) -> None:
    with opened(address) as store:

        def add(start: int) -> None:
            for number in range(start, start + 10):
                store.add(replace(GIVEN, text=f"text {number}", id=f"id-{number // 2}-{number % 2}"))

        threads = [threading.Thread(target=add, args=(10 * n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.counts() == {"news": 60}


def test_rows_to_train_on_are_the_newest_of_each_text_and_adapter(address: str) -> None:
    with opened(address) as store:
        for text, label in [("a", "World"), ("b", "World"), ("a", "Sports"), (" a ", "Business"), ("c", "World")]:
            store.add(replace(GIVEN, text=text, labels=(label,)))
        assert [tuple(row.fields.values()) for row in database_table(address).rows] == [
            ("b", "World"), (" a ", "Business"), ("c", "World"),
        ]  # fmt: skip
        before = database_table(address)
        store.add(replace(GIVEN, text="b", labels=("Sports",)))
        assert [row.fields["label"] for row in before.rows] == ["World", "Business", "World"]  # as it was opened
        assert database_table(address).sha256 == database_table(address).sha256 != before.sha256
        table = database_table(address)
        assert [row.fields["text"] for row in table.rows_behind(1, 0)] == ["c", "b"]
        store.add(replace(GIVEN, adapter="topics", text="a", labels=("x", "y"), several=True))
        store.add(replace(GIVEN, adapter="topics", text="d", labels=(), several=True))
    with pytest.raises(DataError, match="adapters: news, topics"):
        database_table(address)
    rows = [row.fields for row in database_table(address + "#topics").rows]
    assert rows == [{"text": "a", "label": ["x", "y"]}, {"text": "d", "label": []}]
    with pytest.raises(DataError, match="Did you mean 'topics'"):
        database_table(address + "#topic")


def test_export_writes_rows_to_join(address: str, tmp_path: Path) -> None:
    with opened(address) as store:
        store.add(GIVEN)
        store.add(replace(GIVEN, text='two\nlines,\u2028"quoted"', labels=("a", "b"), several=True))
    for name in ("out.jsonl", "out.csv"):
        assert main(["feedback", "export", address, "-o", str(tmp_path / name), "--label-separator", ";"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == [{"text": GIVEN.text, "label": "World"}, {"text": 'two\nlines,\u2028"quoted"', "label": ["a", "b"]}]
    assert (tmp_path / "out.csv").read_text() == f'text,label\n{GIVEN.text},World\n"two\nlines,\u2028""quoted""",a;b\n'
    assert main(["feedback", "export", address, "-o", str(tmp_path / "out.txt")]) == 2


def test_export_joins_labels_as_training_parts_them(address: str, tmp_path: Path) -> None:
    with opened(address) as store:
        for text, labels in (("one", ("a", "b")), ("two", ("b",)), ("three", ("a",))):
            store.add(replace(GIVEN, text=text, labels=labels, several=True))
    path = tmp_path / "out.csv"
    assert main(["feedback", "export", address, "-o", str(path)]) == 0
    settings = DataSettings(source=str(path), multi_label=True)
    assert read_articles(parse_source(str(path)), None, settings, None)[1].names == ("a", "b")


def test_an_exported_text_is_one_row_whatever_line_ends_it_holds(address: str, tmp_path: Path) -> None:
    texts = ["before\rafter", "one\ntwo", "three\r\nfour", "plain"]
    with opened(address) as store:
        for text in texts:
            store.add(replace(GIVEN, text=text))
    for name in ("out.csv", "out.jsonl"):
        assert main(["feedback", "export", address, "-o", str(tmp_path / name)]) == 0
        assert [(row.fields["text"], row.problem) for row in open_file(tmp_path / name).rows] == [
            (one, None) for one in texts
        ]


def test_training_on_corrections_is_training_on_the_same_rows_in_a_file(
    address: str, tiny_bert: Path, tmp_path: Path
) -> None:
    words = ("meets", "over", "border", "signs", "twice")
    with opened(address) as store:
        for number in range(40):
            text, right = (
                f"{('treaty', 'games')[number % 2]} {words[number % 5]} {number}",
                ("World", "Sports")[number % 2],
            )
            store.add(
                replace(GIVEN, text=text, labels=("Sports" if right == "World" else "World",))
            )  # taken back below
            store.add(replace(GIVEN, text=text, labels=(right,)))
    assert main(["feedback", "export", address, "-o", str(tmp_path / "rows.jsonl")]) == 0
    assert (tmp_path / "rows.jsonl").read_text().splitlines()[0] == '{"text": "treaty meets 0", "label": "World"}'
    digests = []
    for source in (address, str(tmp_path / "rows.jsonl")):
        run = newslora.train(
            "seed", output=tmp_path / f"run-{len(digests)}", report=False, model__backbone=str(tiny_bert),
            data__source=source, data__validation_rows=8, data__workers=0, train__epochs=1, train__batch_size=8,
            train__learning_rate=1e-2, train__warmup_steps=2, train__precision="fp32",
        )  # fmt: skip
        assert run.data()["splits"]["train"]["rows"] == 32
        digests.append(newslora.Classifier.load(run.path).card.weights_sha256)
        for path in run.path.rglob("*"):
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()
    assert digests[0] == digests[1]


SECRET = "hunter2"


@pytest.mark.parametrize("where", [f"u:{SECRET}@h/db", f"h/db?password={SECRET}", f"h/db?user=x&sslpassword={SECRET}"])
def test_a_password_in_an_address_is_refused_and_not_repeated(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"postgresql://{where}"
    with pytest.raises(SettingsError, match="PGPASSWORD") as error:
        load_recipe("seed", {"data.source": address})
    assert SECRET not in str(error.value)
    assert main(["train", "seed", "--data", address, "-o", str(tmp_path / "run")]) == 2
    assert main(["serve", str(tmp_path), "--feedback", address]) == 2
    assert main(["feedback", "export", address, "-o", str(tmp_path / "x.csv")]) == 3
    for kind in ("postgres", "POSTGRESQL", "mysql+pymysql"):  # none of ours, and no reason to repeat it
        assert main(["serve", str(tmp_path), "--feedback", f"{kind}://{where}"]) == 2
        assert main(["train", "seed", "--data", f"{kind}://{where}", "-o", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert SECRET not in captured.err + captured.out
    assert not (tmp_path / "run").exists()


def test_what_is_no_database_of_corrections_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no database file"):
        database_table(f"sqlite:///{tmp_path}/none.db")
    (tmp_path / "junk.db").write_bytes(b"not a database at all, but long enough" * 100)
    with pytest.raises(StorageError, match="not a database"):
        database_table(f"sqlite:///{tmp_path}/junk.db")
    with opened(f"sqlite:///{tmp_path}/empty.db"):
        pass
    with pytest.raises(DataError, match="There are no corrections"):
        database_table(f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(DataError, match="names no file"):
        FeedbackStore("sqlite://")
    with pytest.raises(DataError, match="kept together"):
        FeedbackStore("sqlite:///x.db#news")
    with pytest.raises(StorageError, match="cannot be used"):
        FeedbackStore("postgresql://nobody@127.0.0.1:1/none")
    assert parse_source("sqlite:///x.db#news").kind == "database"


def test_tables_of_another_version_are_left_alone(tmp_path: Path) -> None:
    import sqlite3

    with opened(f"sqlite:///{tmp_path}/a.db"):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("UPDATE newslora_schema SET version = 2")
        connection.commit()
    with pytest.raises(DataError, match="of version 2"):
        FeedbackStore(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(DataError, match="of version 2"):
        database_table(f"sqlite:///{tmp_path}/a.db")
