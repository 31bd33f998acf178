"""Builds an index: films in the order of the folder or manifest are cut into shards, which any process may make.

Each film goes through the encoder alone and on one thread, so no vector depends on the films beside it or on who
embedded it: an index that several machines made is bit-identical to one that a single process made on such a machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxw_monai.data.manifest import ALL_SECTIONS, load_items
from cxw_monai.data.schema import MASK
from cxw_monai.inference.reading import read_ahead, read_whole
from cxw_monai.io import RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.files.disk_errors import disk_message
from cxw_monai.io.files.identity import file_state
from cxw_monai.io.files.printable import printable
from cxw_monai.io.results.film_names import film_name, film_path
from cxw_monai.io.results.folders import mark_own

from .copies import SIDE, fine_structure
from .encoder import FilmEncoder
from .shards import FILM_COLUMNS, IndexSettings, Shard, array_of, read_shard, shard_files, write_shard

__all__ = ["INDEX", "FilmList", "build_index", "finish_index", "merge_index"]

INDEX, FAILURES, FORMAT = "index.json", "failures.csv", 1
_AHEAD = 4  # films that are read ahead
_SHOWN = 8  # shards named in an error

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilmList:
    """The films of an index, in its order.

    Attributes:
        root: folder that their names are relative to.
        columns: of the manifest, beside the image.
        names: as `film_name` gives them.
        cells: a row of `columns` a film.
    """

    root: str
    columns: list[str]
    names: list[str]
    cells: list[list[str]]

    @classmethod
    def of(cls, source: str | PathLike[str]) -> FilmList:
        """The films of a folder, or of all splits of a manifest; a film that is listed more than once is taken once.

        Raises:
            ValueError, FileNotFoundError: as `load_items`.
        """
        path = os.path.abspath(source)
        if not os.path.exists(path):
            raise FileNotFoundError(f"{source}: no such file or folder; give a folder of films, or a manifest")
        folder = os.path.isdir(path)
        items = load_items(path if folder else None, None if folder else path, ALL_SECTIONS)
        items = list({item["image"]: item for item in reversed(items)}.values())[::-1]
        names = dict.fromkeys(name for item in items for name in item)
        columns = [name for name in names if name not in FILM_COLUMNS and not name.startswith(MASK)]
        root = path if folder else os.path.dirname(path)
        cells = [[_cell(item.get(name)) for name in columns] for item in items]
        return cls(root, columns, [film_name(item["image"], root) for item in items], cells)

    @cached_property
    def digest(self) -> str:
        """Of names and columns, not of the root: machines may have the films in different places."""
        found = hashlib.sha256(json.dumps(self.columns).encode())
        for name, row in zip(self.names, self.cells, strict=True):
            found.update(json.dumps([name, row]).encode())
        return found.hexdigest()

    def path(self, place: int) -> str:
        """The file of a film."""
        return film_path(self.names[place], self.root)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.15g}"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def build_index(
    source: str | PathLike[str],
    output: str | PathLike[str],
    ckpt: str | PathLike[str] = "chexworld_pretraining",
    *,
    dtype: str = "float32",
    tokens: bool = False,
    shard_films: int = 1000,
    share: tuple[int, int] = (1, 1),
    workers: int = 1,
    device: str = "cpu",
) -> dict[str, int]:
    """Make an index, or this machine's share of it. Whole shards that are there are kept: a killed run continues.

    Args:
        source: a folder of films, or a manifest.
        output: folder to make or continue.
        ckpt: a bundle's name or folder, or a file of an encoder's weights.
        dtype, tokens, shard_films: see `IndexSettings`.
        share: (I, N): make the shards I, I + N, ... of N machines, counted from 1. With N above 1 the index is complete
            after `merge_index`.
        workers: processes.
        device: where the encoder computes.

    Returns:
        Numbers of `films`, `failed`, `shards`, and `made`, the shards that were made now.

    Raises:
        ValueError: no film, a wrong argument, a folder that holds another index, or a process that failed.
        CheckpointError: the weights can't be used, or give values that are no numbers.
    """
    number, machines = share
    if not 1 <= number <= machines:
        raise ValueError(f"the share must be I/N with I from 1 to N, got {number}/{machines}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    films, encoder, folder = FilmList.of(source), FilmEncoder(ckpt, device), Path(output)
    settings = IndexSettings(encoder.sha256, encoder.image_size, encoder.grid, dtype, tokens, shard_films)
    total = -(-len(films.names) // shard_films)
    _refuse_other(folder, settings, total)
    mark_own(folder)
    mine = range(number - 1, total, machines)
    todo = [one for one in mine if not _is_whole(folder, one, films, settings)]
    if todo:
        (folder / INDEX).unlink(missing_ok=True)
    parts = [todo[worker::workers] for worker in range(min(workers, len(todo)))]
    if len(parts) == 1:
        _make_shards(parts[0], folder, films, settings, encoder)
    elif parts:
        _in_processes(parts, source, folder, settings, ckpt, device)
    failed = sum(len(shard.failures) for one in mine if (shard := read_shard(folder, one)))
    if machines == 1:
        finish_index(folder, total)
    done = sum(len(films.names[one * shard_films : (one + 1) * shard_films]) for one in mine)
    return {"films": done - failed, "failed": failed, "shards": len(mine), "made": len(todo)}


def _refuse_other(folder: Path, settings: IndexSettings, total: int) -> None:
    """Refuse a folder with shards that were made in another way."""
    for number in range(total):
        shard = read_shard(folder, number)
        if shard is not None:
            for name, value in settings.plain().items():
                if shard.made_with.get(name) != value:
                    before = shard.made_with.get(name)
                    raise ValueError(
                        f"{folder}: holds an index whose {name} is {before!r}, not {value!r}; "
                        "give the same again, or another --output"
                    )
            return


def _is_whole(folder: Path, number: int, films: FilmList, settings: IndexSettings) -> bool:
    """Whether a shard is there, undamaged, and of the films as they are now."""
    shard = read_shard(folder, number)
    if shard is None:
        return False
    same = shard.plan == films.digest and shard.state == _state(films, number, settings.shard_films)
    damage = shard.damage(folder) if same else None
    if damage or not same:
        _logger.info("shard %d is made anew: %s", number, damage or "its films have changed")
    return same and damage is None


def _state(films: FilmList, number: int, size: int) -> str:
    places = range(number * size, min((number + 1) * size, len(films.names)))
    return hashlib.sha256(json.dumps([file_state(films.path(place)) for place in places]).encode()).hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, whatever the number of processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make_shards(
    numbers: Sequence[int], folder: Path, films: FilmList, settings: IndexSettings, encoder: FilmEncoder
) -> None:
    total = -(-len(films.names) // settings.shard_films)
    with _one_thread():
        for number in numbers:
            _make_shard(number, total, folder, films, settings, encoder)


def _make_shard(
    number: int, total: int, folder: Path, films: FilmList, settings: IndexSettings, encoder: FilmEncoder
) -> None:
    start = number * settings.shard_films
    places = range(start, min(start + settings.shard_films, len(films.names)))
    state = _state(films, number, settings.shard_films)
    paths = [films.path(place) for place in places]
    rows, vectors, fine, tokens, failures = [], [], [], [], []
    reading = read_ahead(paths, lambda path: read_whole(path, encoder.reader), 2, _AHEAD)
    for place, found in zip(places, reading, strict=True):
        _end_with_parent()
        if found is None or isinstance(found, RadiographError):
            assert found is not None  # nothing is done already
            _logger.warning("not embedded: %s", found)
            failures.append([films.names[place], found.reason, found.remedy])
            continue
        film, identity = found
        own = encoder.tokens(film.array)  # [T, D]
        vectors.append(own.mean(axis=0))
        fine.append(fine_structure(film.array[0]))
        tokens += [own.astype(np.float16)] if settings.tokens else []
        rows.append([films.names[place], identity.sha256, *films.cells[place]])
    shard = Shard(number, total, films.root, settings.plain(), films.digest, state, len(rows), failures, {})
    arrays = [_stored(vectors, settings.dtype, encoder.width), np.array(fine, np.int8).reshape(-1, SIDE, SIDE)]
    if settings.tokens:
        grid = encoder.grid[0] * encoder.grid[1], encoder.width
        arrays.append(np.array(tokens, np.float16).reshape(-1, *grid))
    write_shard(folder, shard, [*FILM_COLUMNS, *films.columns], rows, arrays)
    _logger.info("shard %d of %d: %d films, %d failed", number + 1, total, len(rows), len(failures))


def _stored(vectors: Sequence[np.ndarray], dtype: str, width: int) -> np.ndarray:
    values = np.array(vectors, np.float32).reshape(-1, width)
    if dtype == "float16" and values.size and np.abs(values).max() > np.finfo(np.float16).max:
        raise ValueError(f"vectors reach {np.abs(values).max():g}, too large for float16; give --dtype float32")
    return values.astype(dtype)


def _in_processes(
    parts: Sequence[Sequence[int]],
    source: str | PathLike[str],
    folder: Path,
    settings: IndexSettings,
    ckpt: str | PathLike[str],
    device: str,
) -> None:
    """Make the shards of each part in a process of its own."""
    context = multiprocessing.get_context("spawn")
    arguments = os.fspath(source), os.fspath(folder), asdict(settings), os.fspath(ckpt), device
    processes = [context.Process(target=_process, args=(list(part), *arguments)) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = sum(process.exitcode != 0 for process in processes)
    if failed:
        raise ValueError(
            f"{folder}: {failed} of {len(processes)} processes failed, see above; "
            "the same command continues when that is mended"
        )


def _process(numbers: list[int], source: str, folder: str, settings: dict[str, Any], ckpt: str, device: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _make_shards(numbers, Path(folder), FilmList.of(source), IndexSettings(**settings), FilmEncoder(ckpt, device))
    except (OSError, ValueError) as error:
        said = disk_message(error) if isinstance(error, OSError) else None
        print(f"error: {printable(said or error)}", file=sys.stderr)
        sys.exit(2)


def _end_with_parent() -> None:
    """End this process when the one that started it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        sys.exit(1)


def merge_index(parts: Sequence[str | PathLike[str]], output: str | PathLike[str]) -> dict[str, int]:
    """Complete an index of which several machines made shares.

    Args:
        parts: their output folders; one where all wrote to the same.
        output: folder of the index; may be one of the parts.

    Returns:
        Numbers of `films`, `failed` and `shards`.

    Raises:
        ValueError: shards are missing or damaged, or of different films or settings.
    """
    folders, target = [Path(part) for part in parts], Path(output)
    first = next((shard for folder in folders for shard in _shards_in(folder)), None)
    if first is None:
        raise ValueError(f"{', '.join(map(str, parts))}: no shard of an index; give what index --shard I/N wrote")
    mark_own(target)
    target_is = os.path.realpath(target)
    missing = []
    for number in range(first.of):
        found = [(folder, shard) for folder in folders if (shard := read_shard(folder, number))]
        _refuse_mixture(first, found)
        whole = next((one for one in found if one[1].damage(one[0]) is None), None)
        if whole is None:
            missing.append(number)
        elif os.path.realpath(whole[0]) != target_is:
            for name in [*whole[1].sha256, f"shard-{number:05}.json"]:
                with (whole[0] / name).open("rb") as source, atomic_file(target / name) as stream:
                    shutil.copyfileobj(source, stream)
    if missing:
        named = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        raise ValueError(
            f"{output}: {len(missing)} of {first.of} shards are missing or damaged ({named}, counted from 0); run the "
            "machines' index commands again, which make only these, and then merge again"
        )
    return finish_index(target, first.of)


def _shards_in(folder: Path) -> Iterator[Shard]:
    for path in sorted(folder.glob("shard-?????.json")):
        shard = read_shard(folder, int(path.stem.removeprefix("shard-")))
        if shard is not None:
            yield shard


def _refuse_mixture(first: Shard, found: Sequence[tuple[Path, Shard]]) -> None:
    for folder, shard in found:
        if (shard.made_with, shard.plan, shard.of) != (first.made_with, first.plan, first.of):
            raise ValueError(
                f"{folder}: shard {shard.number} is of other films or settings than the first; make all shares with "
                "the same films, manifest, encoder and options"
            )


def finish_index(folder: Path, total: int) -> dict[str, int]:
    """Write what is known of the whole index, and the films that failed."""
    shards = [shard for number in range(total) if (shard := read_shard(folder, number))]
    counts = {"films": sum(s.films for s in shards), "failed": sum(len(s.failures) for s in shards), "shards": total}
    for part in folder.glob(".shard-*.part"):  # of files that a killed run was writing
        part.unlink()
    with atomic_file(folder / FAILURES, "w", newline="", encoding="utf-8") as stream:
        writer = CsvWriter(stream)
        writer.writerow(("path", "reason", "remedy"))
        writer.writerows(failure for shard in shards for failure in shard.failures)
    if not counts["films"]:
        raise ValueError(f"{folder}: none of the {counts['failed']} films can be used; see {folder / FAILURES}")
    mean, deviation = _statistics([array_of(folder / shard_files(s.number, False)[1]) for s in shards])
    about = {
        "format": FORMAT,
        "made_with": shards[0].made_with,
        "root": shards[0].root,
        "films": counts["films"],
        "normalisation": "each number less its mean, divided by its deviation; then to length 1",
        "mean": mean.tolist(),
        "deviation": deviation.tolist(),
        "shards": [{"films": shard.films, "sha256": shard.sha256} for shard in shards],
    }
    with atomic_file(folder / INDEX, "w", encoding="utf-8") as stream:
        json.dump(about, stream, indent=1)
    return counts


def _statistics(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each number, float64 `[D]`, shard by shard so that few are in memory."""
    count = sum(len(array) for array in arrays)
    mean = sum(array.astype(np.float64).sum(axis=0) for array in arrays) / count
    squares = sum(np.square(array.astype(np.float64) - mean).sum(axis=0) for array in arrays)
    return mean, np.sqrt(squares / count)
