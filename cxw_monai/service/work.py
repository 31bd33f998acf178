"""The service's threads: some answer films of the queue and send the results, some look for new films."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cxw_monai.io import RadiographError
from cxw_monai.io.files.identity import file_state

from .answers import ANSWER, Answerer, Refused
from .archive import Archive, ArchiveError, Stored
from .intake import take_in
from .queue import Film, FilmQueue, FullError, film_key

__all__ = ["FolderWatch", "Metrics", "Threads", "WebWatch", "Worker"]

_IDLE_SECONDS = 0.2
_logger = logging.getLogger(__name__)


class Metrics:
    """What happened since the service started, for `/metrics`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(("received", "refused_objects", "retries", "results_sent", "answers"), 0)
        self.seconds = 0.0

    def add(self, name: str, number: int = 1) -> None:
        """Count something."""
        with self._lock:
            self.counts[name] += number

    def answered(self, seconds: float) -> None:
        """Count an answer and its time."""
        with self._lock:
            self.counts["answers"] += 1
            self.seconds += seconds


class Threads:
    """Threads that do something again and again until they are stopped.

    A thread that raises ends, which `alive` shows: the service is then no longer healthy.
    """

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, name: str, step: Callable[[], bool], pause: float) -> None:
        """Call `step` until stopped, with `pause` seconds after each call that did nothing."""

        def work() -> None:
            try:
                while not self.stopping.is_set():
                    if not step():
                        self.stopping.wait(pause)
            except Exception as error:  # a full disk, most likely
                _logger.critical("a thread ended", extra={"reason": f"{name}: {type(error).__name__}"})

        self._threads.append(threading.Thread(target=work, name=name, daemon=True))
        self._threads[-1].start()

    @property
    def alive(self) -> bool:
        """Whether all of them work."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self, patience: float) -> None:
        """Let each finish what it does, for up to `patience` seconds altogether."""
        self.stopping.set()
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


class Worker:
    """Answers films of a queue one by one.

    Args:
        queue: where films come from.
        answerer: makes the results.
        archive: where they go; None leaves them in the queue's folder.
        metrics: what is counted.
        most_tries: of a film, before it is given up.
    """

    IDLE_SECONDS = _IDLE_SECONDS

    def __init__(
        self, queue: FilmQueue, answerer: Answerer, archive: Archive | None, metrics: Metrics, most_tries: int
    ) -> None:
        self.queue, self.answerer, self.archive = queue, answerer, archive
        self.metrics, self.most_tries = metrics, most_tries

    def step(self) -> bool:
        """Work on the next film; whether there was one."""
        film = self.queue.take()
        if film is None:
            return False
        if film.tries > self.most_tries:
            self._give_up(film, f"the service ended {self.most_tries} times while it worked on this film")
            return True
        try:
            self._answer(film)
        except RadiographError as error:  # it won't become readable
            self._give_up(film, f"{error.reason}; {error.remedy}")
        except Exception as error:
            known = isinstance(error, ArchiveError)
            reason = str(error) if known else f"answering it failed unexpectedly ({type(error).__name__})"
            if film.tries == self.most_tries:
                self._give_up(film, reason)
            else:
                self.metrics.add("retries")
                self.queue.again(film, reason)
                _logger.warning("waits to be tried again", extra={"film": film.key, "reason": reason})
        return True

    def _answer(self, film: Film) -> None:
        folder, started = self.queue.results(film.key), time.perf_counter()
        try:
            answer = self.answerer.answer(self.queue.film_file(film.key), folder)
        except Refused as error:
            self._remove(folder)
            self.queue.finish(film, "refused", error.reasons)
            _logger.info("refused", extra={"film": film.key, "reason": str(error)})
            return
        if self.archive is not None:
            self.archive.store(folder / name for name in answer.results)
            self.metrics.add("results_sent", len(answer.results))
            self._remove(folder)  # before the film is done: killed between, it is answered and sent again, the same
        self.queue.finish(film, "done", answer.reasons, answer.results)
        seconds = time.perf_counter() - started
        self.metrics.answered(seconds)
        _logger.info("answered", extra={"film": film.key, "seconds": round(seconds, 2), "results": len(answer.results)})

    def _give_up(self, film: Film, reason: str) -> None:
        self.queue.finish(film, "dead", [reason])
        _logger.error("given up", extra={"film": film.key, "reason": reason})

    def _remove(self, folder: Path) -> None:
        (folder / ANSWER).unlink(missing_ok=True)  # first, or half the results would pass for whole ones
        shutil.rmtree(folder, ignore_errors=True)


class FolderWatch:
    """Takes the films that are put into a folder, and leaves them there.

    A file is taken when two looks find it the same. Links aren't followed, and hidden files and folders are passed
    over.

    Args:
        folder: with everything below it.
        queue, metrics: of the service.

    Raises:
        ValueError: no such folder.
    """

    def __init__(self, folder: Path, queue: FilmQueue, metrics: Metrics) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; check --watch")
        self.folder, self.queue, self.metrics = folder, queue, metrics
        self._seen: dict[str, tuple[int, int]] = {}
        self._taken: dict[str, tuple[int, int]] = {}

    def step(self) -> bool:
        """Look once; always False, so that a pause follows."""
        seen = dict(self._files())
        for path, state in seen.items():
            if self._seen.get(path) == state != self._taken.get(path) and not self._take(path):
                break
            if self._seen.get(path) == state:
                self._taken[path] = state
        self._seen = seen
        self._taken = {path: state for path, state in self._taken.items() if path in seen}
        return False

    def _files(self) -> list[tuple[str, tuple[int, int]]]:
        """Regular files with size and time of change."""
        found, own = [], os.path.realpath(self.queue.folder)
        for folder, folders, names in os.walk(self.folder):
            folders[:] = [one for one in folders if not one.startswith(".")]
            folders[:] = [one for one in folders if os.path.realpath(os.path.join(folder, one)) != own]
            for path in (os.path.join(folder, name) for name in names if not name.startswith(".")):
                if not os.path.islink(path) and os.path.isfile(path) and (state := file_state(path)) is not None:
                    found.append((path, state))
        return found

    def _take(self, path: str) -> bool:
        """Take a file's film, if it is one; False where the queue is full."""
        try:
            source = open(path, "rb")  # noqa: SIM115
        except OSError as error:  # gone by now, or not to be read
            _logger.warning("not read", extra={"reason": type(error).__name__})
            return True
        handle, name = tempfile.mkstemp(dir=self.queue.incoming, suffix=".dcm")
        with source, os.fdopen(handle, "wb") as stream:
            shutil.copyfileobj(source, stream)
            stream.flush()
            os.fsync(stream.fileno())
        return taken(self.queue, self.metrics, Path(name))


class WebWatch:
    """Takes the films that a DICOMweb server has.

    Args:
        archive: the server.
        queue, metrics: of the service.
        days: films of studies of these last days; 0 for all.
    """

    def __init__(self, archive: Archive, queue: FilmQueue, metrics: Metrics, days: int) -> None:
        self.archive, self.queue, self.metrics, self.days = archive, queue, metrics, days
        self._passed_over: set[str] = set()

    def step(self) -> bool:
        """Look once; always False, so that a pause follows."""
        try:
            for film in self.archive.films(self.days):
                if film_key(film.instance) in self._passed_over or self.queue.find(film.instance) is not None:
                    continue
                if not self._take(film):
                    break
        except ArchiveError as error:
            _logger.warning("no films can be had", extra={"reason": str(error)})
        return False

    def _take(self, film: Stored) -> bool:
        """Fetch and take a film, if it is one; False where the queue is full."""
        key = film_key(film.instance)
        handle, name = tempfile.mkstemp(dir=self.queue.incoming, suffix=".dcm")
        os.close(handle)
        try:
            self.archive.fetch(film, Path(name))
        except ArchiveError as error:
            Path(name).unlink()
            _logger.warning("not fetched", extra={"film": key, "reason": str(error)})
            return True
        if not taken(self.queue, self.metrics, Path(name)):
            return False
        if self.queue.find(film.instance) is None:
            self._passed_over.add(key)
        return True


def taken(queue: FilmQueue, metrics: Metrics, file: Path) -> bool:
    """Take a film that was fetched, or pass over what is none; False where the queue is full."""
    try:
        metrics.add("received", take_in(queue, file).new)
    except RadiographError as error:
        metrics.add("refused_objects")
        _logger.info("passed over", extra={"reason": error.reason})
    except FullError:
        _logger.warning("the queue is full")
        return False
    return True
