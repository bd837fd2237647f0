"""API keys: kept as hashes, found in constant time, changed while a server runs."""

import hmac
import json
import os
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from refusing_parts import no_more_files

from newslora.cli.app import main
from newslora.errors import SettingsError, StorageError
from newslora.serving import keys
from newslora.serving.keys import DAY, KeyRing, add_key, read_keys, revoke_key


def test_a_key_is_shown_once_and_kept_as_a_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    assert main(["keys", "add", "--name", "desk", "--scope", "classify, feedback", "--file", str(path)]) == 0
    key = capsys.readouterr().out.strip()
    assert len(key) == len("nl_") + 43  # 256 bits in base64
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    ring = KeyRing(path)
    found = ring.find(key)
    assert found is not None
    assert (found.name, found.scopes) == ("desk", ("classify", "feedback"))
    for wrong in ("", key[:-1], key + "x", key.swapcase(), "nl_", "\ud800"):
        assert ring.find(wrong) is None
    assert main(["keys", "list", "--file", str(path)]) == 0
    assert "desk" in capsys.readouterr().out


def test_every_hash_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    first, _ = add_key(path, "first", ["classify"]), add_key(path, "second", ["classify"])
    ring, compared = KeyRing(path), []
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(a) or hmac_compare(a, b))
    assert ring.find(first) is not None
    assert len(compared) == 2  # no early way out


hmac_compare = hmac.compare_digest


def test_a_running_server_sees_new_revoked_and_ended_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    old = add_key(path, "old", ["classify"])
    ring = KeyRing(path)
    new = add_key(path, "new", ["admin"], days=1)
    assert ring.find(new) is not None
    created = read_keys(path)[1].created
    assert ring.find(new, now=created + DAY - 1) is not None
    assert ring.find(new, now=created + DAY + 1) is None
    with monkeypatch.context() as patch:
        patch.setattr(keys.time, "time", lambda: created + DAY + 1)
        assert ring.find(new) is None
    revoke_key(path, "old")
    assert ring.find(old) is None
    assert ring.find(new) is not None


def test_a_damaged_or_missing_file_opens_nothing_until_it_is_whole_again(tmp_path: Path) -> None:
    path, complaints = tmp_path / "keys.json", []
    key = add_key(path, "desk", ["classify"])
    ring = KeyRing(path, complaints.append)
    whole = path.read_text()
    for damaged in ("", "{", '{"format": "1", "keys": []}', '{"format": 1, "keys": [{"name": "x"}]}'):
        path.write_text(damaged)
        assert ring.find(key) is None
        with pytest.raises(SettingsError, match="damaged"):
            read_keys(path)
    path.unlink()
    assert ring.find(key) is None
    assert len(complaints) == 5
    assert ring.find(key) is None
    assert len(complaints) == 5  # told once
    path.write_text(whole)
    assert ring.find(key) is not None


def test_a_file_that_could_not_be_opened_for_a_moment_is_read_again(tmp_path: Path) -> None:
    """It has not changed since: it was the process that had no file descriptor left."""
    path, complaints = tmp_path / "keys.json", []
    key = add_key(path, "desk", ["classify"])
    ring = KeyRing(path, complaints.append)
    other = add_key(path, "other", ["classify"])
    with no_more_files():
        assert ring.find(key) is None
        assert ring.find(key) is None
    assert ring.find(other) is not None
    assert len(complaints) == 1


def test_keys_added_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = [threading.Thread(target=add_key, args=(path, f"key-{n}", ["classify"])) for n in range(8)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()
    assert sorted(key.name for key in read_keys(path)) == sorted(f"key-{n}" for n in range(8))


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        ([], ("classify", "feedback")),
        (["--scope", "classify", "--scope", "feedback"], ("classify", "feedback")),
        (["--scope", "admin,metrics", "--scope", "feedback"], ("admin", "metrics", "feedback")),
    ],
)
def test_scopes_come_with_commas_or_one_by_one(given: list[str], scopes: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert main(["keys", "add", "--name", "desk", *given, "--file", str(path)]) == 0
    assert [set(key.scopes) for key in read_keys(path)] == [set(scopes)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "--name", "a b"], "not a valid key name"),
        (["add", "--name", "x", "--scope", "clasify"], "Did you mean 'classify'"),
        (["add", "--name", "x", "--scope", ","], "without a scope"),
        (["add", "--name", "x", "--days", "0"], "more than 0"),
        (["add", "--name", "desk"], "exists"),
        (["revoke", "--name", "dask"], "Did you mean 'desk'"),
        (["revoke", "dask"], "Did you mean 'desk'"),
    ],
)
def test_what_cannot_be_is_said(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "desk", ["classify"])
    before = path.read_text()
    assert main(["keys", *arguments, "--file", str(path)]) == 2
    assert says in capsys.readouterr().err
    assert path.read_text() == before


@pytest.mark.parametrize("flag", [[], ["--name"]])
def test_a_name_is_taken_with_its_flag_and_without(flag: list[str], tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert main(["keys", "add", *flag, "desk", "--file", str(path)]) == 0
    assert [key.name for key in read_keys(path)] == ["desk"]
    assert main(["keys", "revoke", *flag, "desk", "--file", str(path)]) == 0
    assert read_keys(path) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "desk", ["classify"])
    before = json.loads(path.read_text())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="free space"):
        add_key(path, "other", ["classify"])
    assert json.loads(path.read_text()) == before


def test_a_file_that_cannot_be_locked_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "desk", ["classify"])
    monkeypatch.setattr(keys, "LOCK_SECONDS", 0.05)
    held = FileLock(tmp_path / ".keys.json.lock")
    with held:
        for change in (lambda: add_key(path, "other", ["classify"]), lambda: revoke_key(path, "desk")):
            with pytest.raises(StorageError, match=r"Another command is changing .*keys\.json"):
                change()
    assert [key.name for key in read_keys(path)] == ["desk"]

    def closed(*_: object, **__: object) -> None:  # as in a folder that may be read only, unless root writes
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", closed)
    assert main(["keys", "revoke", "desk", "--file", str(path)]) == 8
    assert f"Cannot write {path}: Permission denied." in " ".join(capsys.readouterr().err.split())
