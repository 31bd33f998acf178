"""Workers and watchers: what becomes of a film whose answer, or whose archive, fails."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("dicomweb_client", reason="comes with the extra `service`, on Python 3.11 or later")

from cxw_monai.io import RadiographError  # noqa: E402
from cxw_monai.service.answers import Answer, Refused  # noqa: E402
from cxw_monai.service.archive import ArchiveError  # noqa: E402
from cxw_monai.service.intake import receive  # noqa: E402
from cxw_monai.service.queue import FilmQueue, film_key  # noqa: E402
from cxw_monai.service.work import FolderWatch, Metrics, Threads, Worker  # noqa: E402
from tests.service.conftest import files_below, uid_of  # noqa: E402


class Answerer:
    """Writes one file, or raises what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, 0

    def answer(self, film, folder):
        self.asked += 1
        if self.error is not None:
            raise self.error
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(film, folder / "sr.dcm")
        return Answer(("a doubt",), ("sr.dcm",))


class Archive:
    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.stored = error, []

    def store(self, files):
        if self.error is not None:
            raise self.error
        self.stored += [file.read_bytes() for file in files]


@pytest.fixture
def queue(tmp_path, film):
    queue = FilmQueue(tmp_path / "q")
    receive(queue, film(1))
    return queue


def at_once(queue):
    queue._rows("UPDATE films SET due = 0")


def test_an_answer_is_sent_and_nothing_of_it_stays(queue, film):
    archive, metrics = Archive(), Metrics()
    worker = Worker(queue, Answerer(), archive, metrics, 3)
    assert worker.step() and not worker.step()
    assert archive.stored == [film(1)] and files_below(queue.folder) == set()
    found = queue.find(uid_of(1))
    assert (found.state, found.reasons) == ("done", ("a doubt",))
    assert metrics.counts["answers"] == metrics.counts["results_sent"] == 1


def test_nothing_of_a_sent_answer_stays_whenever_the_process_ends(queue, monkeypatch):
    """Between sending and the end of the work: the film is answered again, and its results don't lie there for ever."""
    archive, answerer = Archive(), Answerer()

    def killed(*what: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        Worker(queue, answerer, archive, Metrics(), 3).step()
    queue.close()
    again = FilmQueue(queue.folder)
    at_once(again)
    Worker(again, answerer, archive, Metrics(), 3).step()
    assert archive.stored[0] == archive.stored[1] and again.find(uid_of(1)).state == "done"
    assert files_below(again.folder) == set()


def test_without_an_archive_the_results_stay(queue):
    Worker(queue, Answerer(), None, Metrics(), 3).step()
    assert files_below(queue.folder) == {f"results/{film_key(uid_of(1))}/sr.dcm"}
    assert queue.find(uid_of(1)).results == ("sr.dcm",)


def test_an_archive_that_fails_is_asked_again_until_the_film_is_given_up(queue, caplog):
    archive, metrics = Archive(ArchiveError("the DICOMweb server answered 503")), Metrics()
    worker = Worker(queue, Answerer(), archive, metrics, 3)
    for _ in range(2):
        worker.step()
        assert queue.find(uid_of(1)).state == "waiting" and not worker.step()  # it waits
        at_once(queue)
    worker.step()
    found = queue.find(uid_of(1))
    assert (found.state, found.tries, found.reasons) == ("dead", 3, ("the DICOMweb server answered 503",))
    assert metrics.counts["retries"] == 2 and queue.film_file(found.key).is_file()
    archive.error = None
    queue.revive(uid_of(1))
    worker.step()
    assert queue.find(uid_of(1)).state == "done" and len(archive.stored) == 1
    assert "SECRET" not in caplog.text and uid_of(1) not in caplog.text


def test_a_film_that_is_no_chest_is_refused_and_says_so(queue):
    archive = Archive()
    Worker(queue, Answerer(Refused(["not a frontal chest film"])), archive, Metrics(), 3).step()
    found = queue.find(uid_of(1))
    assert (found.state, found.reasons) == ("refused", ("not a frontal chest film",))
    assert archive.stored == [] and files_below(queue.folder) == set()


def test_a_film_that_cannot_be_read_is_not_tried_again(queue):
    answerer = Answerer(RadiographError("film", "truncated", "send it again"))
    Worker(queue, answerer, Archive(), Metrics(), 3).step()
    found = queue.find(uid_of(1))
    assert (found.state, found.reasons, answerer.asked) == ("dead", ("truncated; send it again",), 1)


def test_an_unexpected_error_says_no_more_than_its_kind(queue, caplog):
    Worker(queue, Answerer(KeyError("SECRET^NAME")), Archive(), Metrics(), 1).step()
    assert queue.find(uid_of(1)).reasons == ("answering it failed unexpectedly (KeyError)",)
    assert "SECRET" not in caplog.text


def test_a_film_that_ends_the_process_is_given_up(queue):
    for _ in range(3):
        queue.take()  # and the process ends
        queue.close()
        queue = FilmQueue(queue.folder)
        at_once(queue)
    answerer = Answerer()
    Worker(queue, answerer, Archive(), Metrics(), 3).step()
    assert queue.find(uid_of(1)).state == "dead" and answerer.asked == 0


def test_a_watched_folder_gives_whole_files_once(tmp_path, film):
    queue, folder, metrics = FilmQueue(tmp_path / "q"), tmp_path / "films", Metrics()
    (folder / "below").mkdir(parents=True)
    watch = FolderWatch(folder, queue, metrics)
    (folder / "below" / "a.dcm").write_bytes(film(1)[:100])
    watch.step()
    (folder / "below" / "a.dcm").write_bytes(film(1))  # it grew between two looks
    (folder / "note.txt").write_text("no film")
    (folder / ".hidden.dcm").write_bytes(film(2))
    (folder / "link.dcm").symlink_to(folder / ".hidden.dcm")
    watch.step()
    assert sum(queue.counts().values()) == 0
    for _ in range(3):
        watch.step()
    assert [queue.take().uid, queue.take()] == [uid_of(1), None]
    assert (metrics.counts["received"], metrics.counts["refused_objects"]) == (1, 1)
    assert (folder / "below" / "a.dcm").read_bytes() == film(1)
    with pytest.raises(ValueError, match="no such folder; check --watch"):
        FolderWatch(tmp_path / "none", queue, metrics)


def test_a_file_that_goes_while_it_is_looked_at_is_passed_over(tmp_path, film, monkeypatch):
    queue, folder = FilmQueue(tmp_path / "q"), tmp_path / "films"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"{number}.dcm").write_bytes(film(number))
    watch = FolderWatch(folder, queue, Metrics())
    found = watch._files()
    watch._seen = dict(found)
    (folder / "1.dcm").unlink()
    monkeypatch.setattr(watch, "_files", lambda: found)
    watch.step()
    assert [queue.take().uid, queue.take()] == [uid_of(2), None]


def test_a_full_queue_makes_a_watched_folder_wait(tmp_path, film):
    queue, folder = FilmQueue(tmp_path / "q", most=1), tmp_path / "films"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"{number}.dcm").write_bytes(film(number))
    watch, worker = FolderWatch(folder, queue, Metrics()), Worker(queue, Answerer(), Archive(), Metrics(), 3)
    for _ in range(3):
        watch.step()
    assert queue.counts()["waiting"] == 1
    worker.step()
    watch.step()
    worker.step()
    assert queue.counts()["done"] == 2


def test_a_thread_that_ends_is_seen(caplog):
    threads = Threads()
    threads.start("works", lambda: False, 0.01)
    assert threads.alive

    def fails() -> bool:
        raise OSError(28, "SECRET")

    threads.start("fails", fails, 0.01)
    threads._threads[1].join(5)
    assert "a thread ended" in caplog.text and "SECRET" not in caplog.text
    assert not threads.alive
    threads.stop(5)
    assert not any(thread.is_alive() for thread in threads._threads)
