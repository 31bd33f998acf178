"""Masks of unlabelled films by several segmenters that agree, as a manifest to train the next one on.

A segmenter of rendered films meets another world in films of people. What several of them say of such a film together,
where they agree, teaches one that has seen both (self-training; arXiv 1911.04252 for classification)::

    DIR/manifest.csv                    image, patient_id, mask_<structure>; then the labelled films
    DIR/<film>/masks/<structure>.png    0 and 255 on the film's own grid
    DIR/agreement.csv                   agreement on each structure of every film, the dropped ones too

``<film>`` is the film's path below its manifest's folder (:func:`~cxw_monai.io.results.film_names.result_folders`). A
structure on which they disagree has an empty cell: it is unknown on that film.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import SimpleInferer
from tqdm import tqdm

from cxw_monai.data.manifest import load_items
from cxw_monai.io import Radiograph, RadiographError, read_radiograph
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.io.results.film_names import film_name, result_folders
from cxw_monai.io.results.folders import mark_own, output_lock
from cxw_monai.io.results.mask_files import write_png_masks
from cxw_monai.networks.decoders.layers import BatchNorm2d
from cxw_monai.weights.segmenter import read_segmenter

from .augmented import VIEWS, AugmentedInferer
from .predictor import Predictor, on_device, restore_masks

__all__ = ["Committee", "agreement_of", "make_pseudo_labels"]

_logger = logging.getLogger(__name__)


def agreement_of(probabilities: np.ndarray) -> np.ndarray:
    """How far models draw the same: Dice of each one's mask with that of their mean.

    Args:
        probabilities: ``[M, S, h, w]`` of M models.

    Returns:
        Mean over the models, for each structure, ``[S]`` in [0, 1]; 0 where the mean has no mask at all.
    """
    masks = probabilities >= 0.5
    mean = probabilities.mean(axis=0) >= 0.5
    shared = (masks & mean).sum(axis=(2, 3))  # [M, S]
    total = masks.sum(axis=(2, 3)) + mean.sum(axis=(1, 2))
    dice = 2 * shared / np.maximum(total, 1)
    return dice.mean(axis=0)


class Committee:
    """Segmenters of the same structures that look at a film together.

    Args:
        models: files of saved segmenters.
        device: where they compute.
        amp: ``auto``, ``bfloat16`` or ``none``.
        augmented: each model also looks at the film mirrored, nearer and further
            (:data:`~cxw_monai.inference.augmented.VIEWS`), each view being a member of its own.

    Raises:
        ValueError: no model, models of different structures, or another `amp`.
        CheckpointError: a file that is no saved segmenter.
    """

    def __init__(
        self,
        models: Sequence[str | PathLike[str]],
        device: str | torch.device = "cpu",
        amp: str = "auto",
        augmented: bool = False,
    ) -> None:
        if not models:
            raise ValueError("no model; give at least one model.pt of a segmentation run")
        self.members: list[Predictor] = []
        for model in models:
            settings, network = read_segmenter(Path(model))
            network, structures = on_device(network, device), settings.structures
            for view in VIEWS if augmented else VIEWS[:1]:
                inferer = AugmentedInferer(SimpleInferer(), structures, [view]) if augmented else None
                member = Predictor(
                    network, settings.image_size, device, structures, amp=amp, inferer=inferer, source=model
                )
                self.members.append(member)
            if structures != self.structures:
                raise ValueError(f"{model} segments {structures}, {models[0]} {self.structures}")

    @property
    def structures(self) -> tuple[str, ...]:
        """What each of the models segments."""
        return self.members[0].structures

    @torch.no_grad()
    def adapt(self, films: Iterable[np.ndarray], batch_size: int = 16) -> None:
        """Takes the batch normalisations' statistics from these films instead of the models' training films.

        Source: adaptive batch normalisation (arXiv 1603.04779).

        Args:
            films: ``[1, H, W]`` in [0, 1] each, as for :meth:`probabilities`.
            batch_size: films of a batch; a last batch that isn't full is left out.
        """
        batches = 0
        members = list({id(member.network): member for member in self.members}.values())  # views share a network
        waiting: list[list[torch.Tensor]] = [[] for _ in members]
        for number, array in enumerate(films, start=1):
            for images, member in zip(waiting, members, strict=True):
                images.append(member.prepare(array))
            if number % batch_size:
                continue
            batches += 1
            for images, member in zip(waiting, members, strict=True):
                for norm in (module for module in member.network.modules() if isinstance(module, BatchNorm2d)):
                    norm.train()
                    norm.momentum = 1 / batches  # the mean of all batches
                with member.precision():
                    member.network(torch.stack(images).to(member.device))
                member.network.eval()
                images.clear()

    def probabilities(self, array: np.ndarray) -> np.ndarray:
        """Each model's probabilities of one film.

        Args:
            array: ``[1, H, W]`` in [0, 1], bone bright.

        Returns:
            float32 ``[M, S, h, w]`` of the whole film at the first model's size.
        """
        first, *others = (member.probabilities(array) for member in self.members)  # [S, h, w] each
        return np.stack([first, *(_at_size(found, first.shape[1:]) for found in others)])


def _at_size(probabilities: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Probabilities ``[S, h, w]`` of a model whose films have another size."""
    if probabilities.shape[1:] == size:
        return probabilities
    found = torch.from_numpy(probabilities)[None]
    return torch.nn.functional.interpolate(found, size, mode="bilinear")[0].numpy()


def make_pseudo_labels(
    datalist: str | PathLike[str],
    models: Sequence[str | PathLike[str]],
    output_dir: str | PathLike[str],
    *,
    agreement: float = 0.9,
    labelled: str | PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    adapt: bool = True,
    augmented: bool = False,
    device: str | torch.device = "cpu",
) -> Path:
    """Masks of the films on which the models agree.

    Args:
        datalist: manifest of the unlabelled films.
        models: files of saved segmenters with the same structures.
        output_dir: folder to make; a film whose masks are there already is made again.
        agreement: least :func:`agreement_of` a mask that is kept, in [0, 1].
        labelled: manifest with masks, whose films come into the new manifest too.
        columns: structure to the name of its mask in ``labelled``, where that is another.
        adapt: take the models' batch statistics from the unlabelled films first (:meth:`Committee.adapt`).
        augmented: a model has to agree with itself on the film mirrored, nearer and further, too (:class:`Committee`).
        device: where the models compute.

    Returns:
        Path of the new ``manifest.csv``; its mask columns are called as the structures.

    Raises:
        ValueError: the agreement is out of range, no film is left, ``labelled`` lacks a column, or another run is
            writing there (OutputBusyError).
        CheckpointError, FileNotFoundError: a file that isn't there or isn't what it should be.
    """
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement must lie in [0, 1], got {agreement}")
    committee = Committee(models, device, augmented=augmented)
    added = list(_labelled_rows(labelled, committee.structures, columns or {})) if labelled else []
    items = load_items(datalist=datalist, section="all")
    with output_lock(output_dir):
        return _label(committee, items, datalist, Path(output_dir), agreement, added, adapt)


def _label(
    committee: Committee,
    items: Sequence[Mapping[str, Any]],
    datalist: str | PathLike[str],
    folder: Path,
    agreement: float,
    added: Sequence[Mapping[str, str]],
    adapt: bool,
) -> Path:
    """Write masks and manifest; see :func:`make_pseudo_labels`."""
    names = [f"mask_{name}" for name in committee.structures]
    root = Path(datalist).absolute().parent
    folders = result_folders(
        [item["image"] for item in items], root, reserved=("masks", "manifest.csv", "agreement.csv")
    )
    if adapt:
        committee.adapt(film.array for _, film in _readable(items))
    rows, seen = [], []
    for item, film in _readable(items):
        probabilities = committee.probabilities(film.array)
        scores = agreement_of(probabilities)
        agreed = np.flatnonzero(scores >= agreement)
        cells = (f"{score:.4f}" for score in scores)
        seen.append({"image": film_name(item["image"], root), **dict(zip(committee.structures, cells, strict=True))})
        if len(agreed) == 0:
            continue
        own_map = film.meta["pixel_map"].resize(*probabilities.shape[2:])
        masks = restore_masks(probabilities[:, agreed].mean(axis=0), own_map, 0.5, [True] * len(agreed))
        kept = [committee.structures[number] for number in agreed]
        place = folder / folders[item["image"]]
        mark_own(place)
        files = write_png_masks(place / "masks", masks, kept)
        row = {"image": item["image"], "patient_id": item.get("patient_id") or "", **dict.fromkeys(names, "")}
        rows.append(row | {f"mask_{file.stem}": str(file.relative_to(folder)) for file in files})
    _write_csv(folder / "agreement.csv", ["image", *committee.structures], seen)
    for name in names:
        count = sum(bool(row[name]) for row in rows)
        _logger.info("%s: the models agree on %d of %d films (%.2f or more).", name, count, len(items), agreement)
    if not rows:
        raise ValueError(f"{datalist}: the models agree on no mask at {agreement}; look at {folder / 'agreement.csv'}")
    _write_csv(folder / "manifest.csv", ["image", "patient_id", *names], [*rows, *added])
    return folder / "manifest.csv"


def _readable(items: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Radiograph]]:
    """The films that can be read; a line in the log for each other one."""
    for item in tqdm(list(items), desc="films", unit="film"):
        try:
            _check_encodable(item["image"])
            yield item, read_radiograph(item["image"])
        except RadiographError as error:
            _logger.warning("left out: %s", error)


def _check_encodable(path: str) -> None:
    """Refuse a name that no manifest can hold."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise RadiographError(path, "its name isn't UTF-8, which a manifest is", "rename it") from error


def _labelled_rows(
    datalist: str | PathLike[str], structures: Sequence[str], columns: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    for item in load_items(datalist=datalist, section="all"):
        row = {"image": item["image"], "patient_id": item.get("patient_id") or ""}
        for name in structures:
            column = f"mask_{columns.get(name, name)}"
            if column not in item:
                raise ValueError(f"{datalist}: no column {column} for {name}; give --columns {name}=NAME")
            row[f"mask_{name}"] = item[column] or ""
        yield row


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, columns, rows)
