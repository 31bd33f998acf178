"""How long it takes to begin: the pretraining bundle's start, and data sets of growing length."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from monai.transforms import Compose
from PIL import Image
from torch.utils.data import DataLoader

from cxw_monai.data.cache import build_cache
from cxw_monai.data.dataset import EpochSampler
from cxw_monai.data.manifest import load_items, split_by_patient
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.tasks.pretraining.dataset import ViewPairDataset
from cxw_monai.transforms import RandActiond, RandWorldViewPaird

from .figures import Measurement, seconds
from .made_films import synthetic_film

__all__ = ["measure_data", "measure_startup"]

_STOP = {
    "+imports": ["$import os", "$import ignite"],
    "stop_at_first_step": (
        "$@train::trainer.add_event_handler(ignite.engine.Events.ITERATION_STARTED, lambda: os._exit(0))"
    ),
    "+initialize": ["@stop_at_first_step"],
}
"""Ends the process when the first batch has been loaded."""


def measure_startup(repeats: int, bundle: str, preset: str = "demo", films: int = 40) -> list[Measurement]:
    """Seconds from the start of ``python -m monai.bundle run`` to the first step of pretraining.

    In each repeat films are rendered into a new folder, and read there for the first time: decoding and the picture of
    the views are included, one loader process is started. The imports alone are measured beside it.

    Args:
        repeats: runs.
        bundle: folder of the pretraining bundle.
        preset: a name in its ``configs/presets``.
        films: 256 px PNG files in the data set.
    """
    imports, starts = [], []
    for _ in range(repeats):
        imports.append(
            seconds(lambda: subprocess.run([sys.executable, "-c", "import torch, monai.bundle"], check=True))
        )
        with TemporaryDirectory() as folder:
            starts.append(_start(Path(bundle), preset, films, Path(folder)))
    return [
        Measurement(f"start of pretraining, preset {preset}, {films} films", "s", starts),
        Measurement("of which imports of torch and MONAI", "s", imports),
    ]


def _start(bundle: Path, preset: str, films: int, folder: Path) -> float:
    (folder / "films").mkdir()
    for number in range(films):
        Image.fromarray(synthetic_film(256, number)[0]).save(folder / "films" / f"{number}.png")
    stop = folder / "stop.json"
    stop.write_text(json.dumps(_STOP))
    configs = f"['configs/train.json','configs/presets/{preset}.yaml','{stop}']"
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", configs]
    command += [f"--dataset_dir={folder / 'films'}", f"--output_dir={folder / 'out'}", "--num_workers=1"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    begun = time.perf_counter()
    ended = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"the bundle ended with {ended.returncode}: {ended.stderr.strip().splitlines()[-1:]}")
    return time.perf_counter() - begun


def measure_data(repeats: int, rows: int = 1000, batch: int = 16, size: int = 64) -> list[Measurement]:
    """Seconds that a data set takes until its first batch, by the length of its manifest.

    The films are files of ``size`` px with two films a patient, so that what grows with their number shows, and not
    the time that decoding takes. They are cached once before; peak memory is that of the case.

    Args:
        repeats: readings of the manifest and starts with the finished cache.
        rows: films in the manifest.
        batch: view pairs in the first batch.
        size: side of a film, px.
    """
    with TemporaryDirectory() as folder:
        manifest = _manifest(Path(folder), rows, size)
        cached = seconds(lambda: _first_batch(manifest, Path(folder), batch, size))
        items = [seconds(lambda: split_by_patient(load_items(datalist=manifest))) for _ in range(repeats)]
        starts = [seconds(lambda: _first_batch(manifest, Path(folder), batch, size)) for _ in range(repeats)]
    name = f"data set of {rows} films"
    return [
        Measurement(f"{name}, manifest read and split", "s", items),
        Measurement(f"{name}, first batch, cache to be made", "s", [cached]),
        Measurement(f"{name}, first batch, cache there", "s", starts),
    ]


def _manifest(folder: Path, rows: int, size: int) -> Path:
    """Small films and the CSV that lists them."""
    image = folder / "film.png"
    Image.fromarray((np.arange(size * size) % 251).astype(np.uint8).reshape(size, size)).save(image)
    content, path = image.read_bytes(), folder / "manifest.csv"
    image.unlink()
    with path.open("w", newline="") as file:
        writer = CsvWriter(file)
        writer.writerow(["image", "patient_id"])
        for number in range(rows):
            place = folder / f"{number // 1000}" / f"{number}.png"
            if number % 1000 == 0:
                place.parent.mkdir()
            place.write_bytes(content)
            writer.writerow([place.relative_to(folder), f"p{number // 2}"])
    return path


def _first_batch(manifest: Path, folder: Path, batch: int, size: int) -> None:
    train, _ = split_by_patient(load_items(datalist=manifest))
    cache = build_cache(train, folder / "cache", size=size, progress=False)
    dataset = ViewPairDataset(cache, Compose([RandWorldViewPaird("image", size=size), RandActiond()]))
    sampler = EpochSampler(len(dataset))
    sampler.set_epoch(0)
    next(iter(DataLoader(dataset, min(batch, len(dataset)), sampler=sampler)))
