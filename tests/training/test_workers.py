"""A loader's workers share what their parent holds, however long the manifest."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from cxw_monai.training import prepare_worker

SMAPS = Path("/proc/self/smaps_rollup")


class WrittenMemory(Dataset):
    """MiB that the process which reads a sample does not share with its parent, after a garbage collection."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> float:
        gc.collect()
        line = next(line for line in SMAPS.read_text().splitlines() if line.startswith("Private_Dirty"))
        return int(line.split()[1]) / 1024


@pytest.mark.skipif(not SMAPS.is_file(), reason="the system does not tell which memory is shared")
def test_a_worker_does_not_copy_the_manifest():
    def written(**settings) -> float:
        return next(iter(DataLoader(WrittenMemory(), num_workers=1, **settings))).item()

    own = written(worker_init_fn=prepare_worker, multiprocessing_context="fork")  # without a manifest
    items = [{"image": f"{number}.png", "patient_id": str(number // 2)} for number in range(400_000)]
    shared, copied = (
        written(worker_init_fn=prepare_worker, multiprocessing_context="fork"),
        written(multiprocessing_context="fork"),
    )
    assert len(items) == 400_000  # held until here
    assert shared - own < 10 < 20 < copied - shared  # MB; the collector's marks alone copy more than 20
