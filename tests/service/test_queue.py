"""The queue: each film once, also after a process that was killed at any moment."""

from __future__ import annotations

import pytest

from cxw_monai.service import queue as queues
from cxw_monai.service.intake import receive
from cxw_monai.service.queue import FilmQueue, FullError, film_key
from tests.service.conftest import files_below, uid_of


@pytest.fixture
def now(monkeypatch):
    """The time, which tests set."""
    clock = [1000.0]
    monkeypatch.setattr(queues.time, "time", lambda: clock[0])
    return clock


def test_a_film_is_taken_once_and_answered_once(tmp_path, film):
    queue = FilmQueue(tmp_path / "q")
    assert receive(queue, film(1)).new and not receive(queue, film(1)).new
    taken = queue.take()
    assert taken.uid == uid_of(1) and taken.tries == 1 and queue.take() is None
    assert files_below(queue.folder) == {f"films/{film_key(uid_of(1))}.dcm"}
    queue.finish(taken, "done", ["doubt"], ["a.dcm"])
    found = queue.find(uid_of(1))
    assert (found.state, found.reasons, found.results) == ("done", ("doubt",), ("a.dcm",))
    assert not receive(queue, film(1)).new and queue.take() is None and files_below(queue.folder) == set()
    assert queue.counts() == {"waiting": 0, "done": 1, "refused": 0, "dead": 0}


def test_films_are_answered_in_the_order_of_their_coming(tmp_path, film, now):
    queue = FilmQueue(tmp_path / "q")
    for number in (3, 1, 2):
        receive(queue, film(number))
        now[0] += 1
    assert [queue.take().uid for _ in range(3)] == [uid_of(3), uid_of(1), uid_of(2)]


def test_a_film_waits_twice_as_long_each_time(tmp_path, film, now):
    queue = FilmQueue(tmp_path / "q")
    receive(queue, film(1))
    waits = []
    for _ in range(12):
        queue.again(queue.take(), "no answer")
        before = now[0]
        while not queue._rows("SELECT 1 FROM films WHERE due <= ?", now[0]):
            now[0] += 1
        waits.append(now[0] - before)
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]
    assert queue.find(uid_of(1)).reasons == ("no answer",)


def test_after_a_kill_what_was_worked_on_waits_again_behind_the_others(tmp_path, film, now):
    queue = FilmQueue(tmp_path / "q")
    receive(queue, film(1))
    queue.take()
    receive(queue, film(2))
    (queue.incoming / "half.body").write_bytes(b"x")
    (queue.films / "nobody.dcm").write_bytes(b"moved, but its row isn't written")
    queue.close()
    again = FilmQueue(tmp_path / "q")
    assert files_below(again.folder) == {f"films/{film_key(uid_of(number))}.dcm" for number in (1, 2)}
    assert again.take().uid == uid_of(2) and again.take() is None
    now[0] += 2
    found = again.take()
    assert (found.uid, found.tries) == (uid_of(1), 2)


def test_a_dead_film_keeps_its_file_and_can_be_tried_again(tmp_path, film):
    queue = FilmQueue(tmp_path / "q")
    receive(queue, film(1))
    queue.finish(queue.take(), "dead", ["no answer"])
    assert [one.uid for one in queue.listed("dead")] == [uid_of(1)] and queue.take() is None
    queue.close()
    again = FilmQueue(tmp_path / "q")
    assert again.film_file(film_key(uid_of(1))).is_file()
    assert again.revive(uid_of(1)) and not again.revive(uid_of(1)) and not again.revive("1.2")
    assert again.take().tries == 1


def test_a_full_queue_takes_no_film_but_knows_its_own(tmp_path, film):
    queue = FilmQueue(tmp_path / "q", most=1)
    receive(queue, film(1))
    with pytest.raises(FullError):
        receive(queue, film(2))
    assert not receive(queue, film(1)).new and len(files_below(queue.folder)) == 1


def test_only_its_user_reads_the_queue(tmp_path):
    queue = FilmQueue(tmp_path / "q")
    for folder in (queue.folder, queue.films, queue.incoming):
        assert folder.stat().st_mode & 0o077 == 0
