"""Films of a run, read ahead of the network in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from cxw_monai.io import Radiograph, RadiographError, read_radiograph
from cxw_monai.io.files.identity import FileIdentity, file_identity, file_state

__all__ = ["ReadFilm", "read_ahead", "read_whole"]

ReadFilm = tuple[Radiograph, FileIdentity]

Made = TypeVar("Made")


def read_ahead(films: Sequence[str], read: Callable[[str], Made], workers: int, ahead: int) -> Iterator[Made]:
    """What `read` gives of films, in their order.

    Args:
        films: their paths.
        read: called in threads; must not raise.
        workers: number of threads.
        ahead: most films in memory beside the one that was given last.
    """
    rest = iter(films)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    try:
        waiting = deque(pool.submit(read, film) for film in islice(rest, ahead))
        while waiting:
            film = waiting.popleft().result()
            waiting.extend(pool.submit(read, path) for path in islice(rest, 1))
            yield film
            del film
    finally:
        pool.shutdown(cancel_futures=True)


def read_whole(
    path: str, options: Mapping[str, Any], is_done: Callable[[str], bool] | None = None
) -> ReadFilm | RadiographError | None:
    """A film and its file's identity, or why it can't be used, or None where it is done; nothing is raised.

    Args:
        path: the film's file.
        options: of `read_radiograph`.
        is_done: whether a film has its results already.
    """
    try:
        if is_done is not None and is_done(path):
            return None
        before = file_state(path)
        radiograph = read_radiograph(path, **options)
        identity = file_identity(path)
        if before != (identity.size, identity.modified_ns):
            return RadiographError(
                path,
                "it changed while it was read",
                "run the same again when it is whole (segment, classify: with --set resume=true)",
            )
        return radiograph, identity
    except RadiographError as error:
        return error
    except Exception as error:  # whatever a decoder raises must not stop the other films
        reason = f"reading it failed unexpectedly ({type(error).__name__})"
        return RadiographError(path, reason, "look at this file by itself")
