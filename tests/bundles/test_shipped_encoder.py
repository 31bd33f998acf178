"""The encoder that the pretraining bundle ships, on films of people that it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import cxw_monai
from benchmarks.learning.data import read_split
from benchmarks.learning.descriptors import encoder_tokens
from cxw_monai.data.manifest import read_datalist
from cxw_monai.io import read_radiograph
from cxw_monai.metrics.world.spread import embedding_statistics
from cxw_monai.networks import radiograph_vit
from cxw_monai.transforms.whole_film import WholeFilmd

MODEL = Path(__file__).resolve().parents[2] / "bundles" / "chexworld_pretraining" / "models" / "model.pt"
FITTED, HELD_OUT = 80, 80


@pytest.fixture(scope="module")
def films(shared_data):
    """Films of the benchmark's test patients, and whether they were taken standing (PA), and are of women."""
    rows = read_datalist(shared_data / "nih_cxr14_subset" / "manifest.csv", section="all")
    split = read_split()
    rows = [row for row in rows if split[Path(row["image"]).stem] == "test"][: FITTED + HELD_OUT]
    squash = WholeFilmd(160)
    images = torch.stack([squash({"image": read_radiograph(row["image"]).array})["image"] for row in rows])
    return images, np.array([row["view"] == "PA" for row in rows]), np.array([row["sex"] == "F" for row in rows])


def auroc(vectors: np.ndarray, labels: np.ndarray) -> float:
    scaled = (vectors - vectors[:FITTED].mean(axis=0)) / (vectors[:FITTED].std(axis=0) + 1e-6)
    model = LogisticRegression(C=0.1, max_iter=2000).fit(scaled[:FITTED], labels[:FITTED])
    return roc_auc_score(labels[FITTED:], model.decision_function(scaled[FITTED:]))


def test_the_file_is_small():
    assert MODEL.stat().st_size <= 25_000_000


def test_its_tokens_have_not_collapsed_and_tell_view_and_sex(films):
    """Sex is what films of several hospitals taught: .850 here, the weights of version 0.4.0 had .812."""
    images, standing, women = films
    shipped = encoder_tokens(cxw_monai.load("chexworld_pretraining").network.encoder)(images)
    torch.manual_seed(0)
    fresh = encoder_tokens(radiograph_vit("tiny", image_size=160))(images)
    ranks = [embedding_statistics(torch.from_numpy(each.tokens))["rank"] for each in (shipped, fresh)]
    assert ranks[0] > 1.5 * ranks[1] > 20
    assert auroc(shipped.vector, standing) > 0.9 and auroc(shipped.vector, women) > 0.83
