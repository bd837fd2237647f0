"""API keys: 256 random bits each, of which only the SHA-256 is kept, with a name, scopes and perhaps an end.

A slow hash (argon2, bcrypt) protects passwords, which people choose and attackers guess. Nobody guesses 256 random bits, and
a slow hash would cost each request what a classification costs.
"""

import contextlib
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from newslora import files
from newslora.errors import SettingsError, StorageError, near
from newslora.records.reading import other_format

SCOPES = ("classify", "feedback", "admin", "metrics")
FORMAT = 1
PREFIX = "nl_"  # lets secret scanners recognise a key that was published by mistake
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "Allowed: up to 64 of A-Z, a-z, 0-9, dots, dashes and underscores, a letter or digit first."
DAY = 86_400.0  # seconds
LOCK_SECONDS = 30.0  # that a command waits for another to end with the file


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key."""

    name: str
    scopes: tuple[str, ...]
    sha256: str
    created: float  # Unix time in seconds, as `expires`
    expires: float | None = None

    def expired(self, now: float) -> bool:
        return self.expires is not None and now >= self.expires


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        SettingsError: it is missing, damaged, or of another format.
    """
    try:
        record = files.read_json(path)
        if (found := record["format"]) != FORMAT:
            if type(found) is not int:
                raise ValueError(f"format {found}, where this newslora reads {FORMAT}")
            raise SettingsError(other_format(path, found, FORMAT))
        keys = [Key(**{**one, "scopes": tuple(one["scopes"])}) for one in record["keys"]]
        for key in keys:
            if not re.fullmatch(r"[0-9a-f]{64}", key.sha256) or not isinstance(key.expires, int | float | None):
                raise ValueError(f"the entry '{key.name}'")
        return keys
    except OSError as error:
        raise SettingsError(
            f"The key file {path} cannot be read: {error.strerror}. `newslora keys add --file {path} --name NAME` makes one."
        ) from None
    except SettingsError:
        raise  # a ValueError too
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"The key file {path} is damaged ({error}). Restore it, or remove it and add keys anew."
        ) from None


def add_key(path: Path, name: str, scopes: Iterable[str], days: float | None = None) -> str:
    """Make a key and keep its hash; returns the key, which cannot be had again.

    Args:
        path: the key file, made if missing, readable by its owner alone.
        name: who holds it; as it stands in logs and beside corrections.
        scopes: what it may do, out of SCOPES.
        days: until it ends; None: never.

    Raises:
        SettingsError: a name that is taken or no name, an unknown scope, a file that is damaged.
        StorageError: the disk refuses.
    """
    asked = tuple(dict.fromkeys(scopes))
    if not NAME.fullmatch(name):
        raise SettingsError(f"'{name}' is not a valid key name. {NAME_RULE}")
    if odd := [scope for scope in asked if scope not in SCOPES]:
        raise SettingsError(f"There is no scope '{odd[0]}'. Scopes: {', '.join(SCOPES)}.{near(odd[0], SCOPES)}")
    if not asked:
        raise SettingsError(f"A key without a scope allows nothing. Scopes: {', '.join(SCOPES)}.")
    if days is not None and not 0 < days <= 36_500:
        raise SettingsError(f"--days is {days:g}. Allowed: more than 0 and at most 36,500.")
    key = PREFIX + secrets.token_urlsafe(32)
    now = time.time()
    with _locked(path):
        held = read_keys(path) if path.exists() else []
        if any(one.name == name for one in held):
            raise SettingsError(f"A key '{name}' exists in {path}. Revoke it first, or take another name.")
        held.append(Key(name, asked, _digest(key), now, None if days is None else now + days * DAY))
        _write(path, held)
    return key


def revoke_key(path: Path, name: str) -> None:
    """Forget a key; a running server refuses it from the next request on.

    Raises:
        SettingsError: no such key, or no such file.
        StorageError: the disk refuses.
    """
    with _locked(path):
        held = read_keys(path)
        left = [one for one in held if one.name != name]
        if len(left) == len(held):
            names = [one.name for one in held]
            raise SettingsError(
                f"There is no key '{name}' in {path}; it holds {', '.join(names) or 'none'}.{near(name, names)}"
            )
        _write(path, left)


class KeyRing:
    """The keys of a file as they are now: a changed file is read again at the next request.

    A file that has gone or is damaged opens nothing until it can be read again.

    Args:
        path: the key file.
        complain: told what is wrong with it, once while that lasts.

    Raises:
        SettingsError: it cannot be read to begin with.
    """

    def __init__(self, path: Path, complain: Callable[[str], None] = lambda sentence: None) -> None:
        self.path, self._complain = path, complain
        self._seen = self._stamp()
        self._keys = read_keys(path)
        self._fault: str | None = None  # that was told, while it lasts

    def find(self, presented: str, now: float | None = None) -> Key | None:
        """The key whose hash this is; every hash is compared, each in constant time, so that time tells nothing."""
        self._refresh()
        digest = _digest(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return None if found is None or found.expired(time.time() if now is None else now) else found

    def readable_by_others(self) -> bool:
        """Whether other accounts of this machine may read the file."""
        return bool(self.path.stat().st_mode & 0o077)

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen and self._fault is None:
            return
        self._seen = stamp
        try:
            self._keys, self._fault = read_keys(self.path), None
        except (
            SettingsError
        ) as error:  # tried at each request: it may be for want of a file descriptor, not for the file
            self._keys = []
            if str(error) != self._fault:
                self._complain(str(error))
            self._fault = str(error)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _write(path: Path, keys: list[Key]) -> None:
    files.write_json(path, {"format": FORMAT, "keys": [asdict(key) for key in keys]}, mode=0o600)


def _locked(path: Path) -> contextlib.AbstractContextManager[None]:
    """Two commands at once would each keep only its own key."""
    taken = StorageError(
        f"Another command is changing {path} and has not ended in {LOCK_SECONDS:g} seconds. Wait for it, or stop it."
    )
    return files.locked(path.with_name(f".{path.name}.lock"), path, taken, LOCK_SECONDS)
