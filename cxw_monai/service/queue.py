"""The films that were taken, on the disk: each is answered once, whatever ends the process.

::

    DIR/queue.sqlite        a row a film, kept for ever: that it was taken, and how it ended
    DIR/films/KEY.dcm       a film until it is done; a dead one stays
    DIR/results/KEY/        its results until they are sent
    DIR/incoming/           what is being received

``KEY`` is the beginning of the SHA-256 of the film's SOP Instance UID: nothing of a header is in a name or a log.

A film is on the disk before its row is, and its row before whoever sent it has an answer: a film without a row was
never acknowledged, and is deleted when the service starts. Its tries are counted before it is worked on, so that one
which ends the process does so a few times and not for ever.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["Film", "FilmQueue", "FullError", "film_key"]

STATES = ("waiting", "done", "refused", "dead")
"""Of a film: to be answered or sent, answered, not to be answered, given up."""

_TABLE = """CREATE TABLE IF NOT EXISTS films (
    key TEXT PRIMARY KEY, uid TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting', tries INTEGER NOT NULL DEFAULT 0,
    working INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, received REAL NOT NULL, finished REAL,
    reasons TEXT NOT NULL DEFAULT '[]', results TEXT NOT NULL DEFAULT '[]')"""
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 600.0  # s before a film is tried again


class FullError(Exception):
    """As many films wait as may."""


@dataclass(frozen=True)
class Film:
    """A row of the queue.

    Attributes:
        key: of its files.
        uid: its SOP Instance UID.
        state: one of `STATES`.
        tries: how often it was begun.
        received, finished: s since 1970.
        reasons: what speaks against the film or its results, or why it wasn't answered.
        results: names of its results' files.
    """

    key: str
    uid: str
    state: str
    tries: int
    received: float
    finished: float | None
    reasons: tuple[str, ...]
    results: tuple[str, ...]


_COLUMNS = "key, uid, state, tries, received, finished, reasons, results"


def film_key(uid: str) -> str:
    """What a film's files and log lines are named by: 32 hexadecimal digits."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def _film(row: Any) -> Film:
    *plain, reasons, results = row
    values = [*plain, tuple(json.loads(reasons)), tuple(json.loads(results))]
    return Film(**dict(zip(_COLUMNS.split(", "), values, strict=True)))


class FilmQueue:
    """The queue of a folder; one process at a time (the caller holds its `output_lock`), any number of threads.

    Args:
        folder: is made, readable by its user only.
        most: films that may wait.
    """

    def __init__(self, folder: str | PathLike[str], most: int = 1000) -> None:
        self.folder, self.most = Path(folder), most
        self.films, self.incoming = self.folder / "films", self.folder / "incoming"
        for made in (self.folder, self.films, self.incoming, self.folder / "results"):
            made.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock, self._adding = threading.Lock(), threading.Lock()
        self._db = sqlite3.connect(self.folder / "queue.sqlite", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_TABLE)
        self._db.execute("CREATE INDEX IF NOT EXISTS due ON films (state, due)")
        self._recover()

    def _recover(self) -> None:
        """After a killed process: what it worked on waits again, what it was receiving or had sent is deleted."""
        rows = self._rows("SELECT key, tries FROM films WHERE working")
        for key, tries in rows:
            self._rows("UPDATE films SET working = 0, due = ? WHERE key = ?", time.time() + _wait(tries), key)
        kept = {key for (key,) in self._rows("SELECT key FROM films WHERE state IN ('waiting', 'dead')")}
        shutil.rmtree(self.incoming)
        self.incoming.mkdir(mode=0o700)
        for file in self.films.iterdir():
            if file.stem not in kept:
                file.unlink()

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def film_file(self, key: str) -> Path:
        """Where a film is."""
        return self.films / f"{key}.dcm"

    def results(self, key: str) -> Path:
        """Folder of a film's results."""
        return self.folder / "results" / key

    def add(self, uid: str, file: Path) -> bool:
        """Take a film.

        Args:
            uid: its SOP Instance UID.
            file: in `incoming`, on the disk; is moved, or deleted where the film is known.

        Returns:
            Whether it is new.

        Raises:
            FullError: too many films wait.
        """
        key, now = film_key(uid), time.time()
        with self._adding:
            if self.find(uid) is not None:
                file.unlink()
                return False
            if self._rows("SELECT COUNT(*) FROM films WHERE state = 'waiting'")[0][0] >= self.most:
                raise FullError
            os.replace(file, self.film_file(key))
            _sync(self.films)
            self._rows("INSERT INTO films (key, uid, due, received) VALUES (?, ?, ?, ?)", key, uid, now, now)
        return True

    def find(self, uid: str) -> Film | None:
        """A film by its UID."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM films WHERE key = ?", film_key(uid))
        return _film(rows[0]) if rows else None

    def listed(self, state: str, most: int = 1000) -> list[Film]:
        """The latest films of a state."""
        statement = f"SELECT {_COLUMNS} FROM films WHERE state = ? ORDER BY received DESC LIMIT ?"
        return [_film(row) for row in self._rows(statement, state, most)]

    def counts(self) -> dict[str, int]:
        """Number of films by state."""
        return dict.fromkeys(STATES, 0) | dict(self._rows("SELECT state, COUNT(*) FROM films GROUP BY state"))

    def take(self) -> Film | None:
        """A film to work on, its tries counted; None where none is due."""
        columns = _COLUMNS.replace("tries", "tries + 1")
        due = "state = 'waiting' AND NOT working AND due <= ? ORDER BY due LIMIT 1"
        with self._lock:
            row = self._db.execute(f"SELECT {columns} FROM films WHERE {due}", (time.time(),)).fetchone()
            if row is None:
                return None
            self._db.execute("UPDATE films SET working = 1, tries = tries + 1 WHERE key = ?", row[:1])
        return _film(row)

    def again(self, film: Film, reason: str) -> None:
        """Let a film wait, twice as long each time, up to ten minutes."""
        statement = "UPDATE films SET working = 0, due = ?, reasons = ? WHERE key = ?"
        self._rows(statement, time.time() + _wait(film.tries), json.dumps([reason]), film.key)

    def finish(self, film: Film, state: str, reasons: Iterable[str] = (), results: Iterable[str] = ()) -> None:
        """End the work on a film; its file is deleted, but for a dead one's."""
        self._rows(
            "UPDATE films SET working = 0, state = ?, finished = ?, reasons = ?, results = ? WHERE key = ?",
            *(state, time.time(), json.dumps(list(reasons)), json.dumps(list(results)), film.key),
        )
        if state != "dead":
            self.film_file(film.key).unlink(missing_ok=True)

    def revive(self, uid: str) -> bool:
        """Let a dead film wait again, with all its tries; whether there is one."""
        statement = "UPDATE films SET state = 'waiting', tries = 0, due = ? WHERE key = ? AND state = 'dead'"
        with self._lock:
            return self._db.execute(statement, (time.time(), film_key(uid))).rowcount > 0


def _wait(tries: int) -> float:
    """Seconds until a film is tried again."""
    return min(_FIRST_WAIT * 2.0 ** min(tries - 1, 20), _LONGEST_WAIT)


def _sync(folder: Path) -> None:
    """Bring a rename to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
