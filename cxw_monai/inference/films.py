"""The films of a data set, each whole at a network's size."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.io.read import reader_options
from cxw_monai.transforms.whole_film import pair, whole_film

__all__ = ["FilmDataset"]


class FilmDataset(Dataset):
    """Films read from their files, each as `whole_film` shows it.

    A film that can't be read is a black one with a `reason`: whoever collects the answers leaves it out, or stops
    (`EmbeddingWriter`).

    Args:
        items: `{"image": path, ...}`; other fields are kept in `items`.
        size: height and width in px, or one number for both.
        reader: how films are read, see `cxw_monai.io.read.reader_options`.
        min_size: films whose shorter side has fewer px can't be used.

    Attributes:
        items: in the order of their absolute paths.

    Raises:
        ValueError: no film, a film that is listed twice, or a wrong option of the reader.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        size: int | Sequence[int],
        reader: Mapping[str, Any] | None = None,
        min_size: int = 16,
    ) -> None:
        whole = [{**item, "image": os.path.abspath(item["image"])} for item in items]
        self.items = sorted(whole, key=lambda item: item["image"])
        if not self.items:
            raise ValueError("no films: the data set is empty")
        path, times = Counter(item["image"] for item in self.items).most_common(1)[0]
        if times > 1:
            raise ValueError(f"{path} is listed {times} times; list each film once")
        self.size, self._options = pair(size), {**reader_options(**(reader or {})), "min_size": min_size}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`image`: float32 `[1, H, W]` in [0, 1], bone bright; `index`: its place in `items`; `reason` and `remedy`:
        why it can't be read, else empty."""
        try:
            film = read_radiograph(self.items[index]["image"], **self._options)
        except RadiographError as error:
            black = torch.zeros(1, *self.size)
            return {"image": black, "index": index, "reason": error.reason, "remedy": error.remedy}
        return {"image": whole_film(film.array, self.size), "index": index, "reason": "", "remedy": ""}
