"""Embeddings as files: every film its own row, whatever it is called."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cxw_monai.inference.embeddings import EmbeddingWriter
from cxw_monai.io.files.csv_files import read_rows
from cxw_monai.io.results.film_names import film_path
from cxw_monai.metrics.descriptors import load_descriptors


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_names_of_any_bytes_read_back_from_both_files(tmp_path):
    images = [f"/d/{name}.png" for name in ("\udcff", "a\nb", "=1+1", "50%", "plain")]
    items = [{"image": image, "patient_id": f"=p{i}"} for i, image in enumerate(images)]
    values = torch.arange(15.0).reshape(5, 3) - 7
    writer = EmbeddingWriter(tmp_path / "out", SimpleNamespace(items=items))
    state = SimpleNamespace(output={"pred": values}, batch={"index": torch.arange(5)})
    writer._gather(SimpleNamespace(state=state))
    writer._write(SimpleNamespace(state=state))
    with (tmp_path / "out" / "embeddings.csv").open(newline="", encoding="utf-8") as stream:
        rows = read_rows(stream)
    assert [film_path(row["image"]) for row in rows] == images
    assert [row["patient_id"] for row in rows] == [f"=p{i}" for i in range(5)]
    np.testing.assert_array_equal([[float(row[f"e{k}"]) for k in range(3)] for row in rows], values.numpy())
    read = load_descriptors(tmp_path / "out" / "embeddings.npz")
    assert sorted(read.images) == sorted(images)
