"""Films that are no chests: their masks are written with a mark everywhere, left out, or not looked at."""

from __future__ import annotations

import csv
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from torch import nn

from cxw_monai.inference.api import SegmentationModel
from cxw_monai.inference.run import end_with_status
from cxw_monai.inference.settings import SegmentSettings
from cxw_monai.io import RadiographError
from cxw_monai.quality import ImplausibleWarning
from tests.helpers import dicom_files as _files
from tests.helpers.film_segmenter import film_segmenter

LUNGS = ("lung_left", "lung_right")


class Halves(nn.Module):
    """Two structures: the film's upper and its lower half, whatever it shows."""

    structures = LUNGS

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        upper = torch.linspace(4, -4, image.shape[-2])[None, None, :, None].expand(1, 1, -1, image.shape[-1])
        return torch.cat([upper, -upper], dim=1)


def page() -> np.ndarray:
    """Stripes of 12 bits: no frontal chest, in any position."""
    grey = np.full((300, 240), 3500, dtype=np.uint16)
    grey[::10] = 200
    grey[0, :3] = 199, 201, 202  # two levels would be a mask
    return grey


@pytest.fixture
def film(tmp_path):
    (tmp_path / "films").mkdir()
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "PatientName": "Secret^Name"}
    return _files.write_dicom(tmp_path / "films" / "in.dcm", page(), bits=12, **uids)


def run(film, output, structures=LUNGS, **settings):
    formats = ("png", "seg", "csv")
    return film_segmenter([film], film.parent, output, Halves(), structures, formats=formats, **settings).run()


def rows(path):
    with Path(path).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_by_default_table_log_summary_and_seg_say_so(film, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        summary = run(film, tmp_path / "out")
    assert (summary["failed"], summary["implausible"]) == (0, 1)
    row = rows(tmp_path / "out" / "measurements.csv")[0]
    told = row["implausible"].split("; ")
    assert told[0] == "not a frontal chest film" and any("lungs:" in one for one in told[1:])
    sure = (np.log1p(np.exp(4)) - np.log(2)) / 4  # mean of the sigmoid from 0 to 4, of as much inside as outside
    assert float(row["expected_dice_lung_left"]) == pytest.approx(sure, abs=0.01)
    assert told[-1].startswith("right lung: the network is unsure of it, expected Dice 0.83")  # below 0.85
    assert "implausible, look at it" in caplog.text and "1 of them look implausible" in caplog.text
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["implausible"] == 1
    seg = pydicom.dcmread(next((tmp_path / "out").rglob("segmentation.dcm")))
    for text in (seg.SeriesDescription, seg.ContentDescription):
        assert text.startswith("IMPLAUSIBLE, look at it. ") and len(text) <= 64
    assert (tmp_path / "out").rglob("masks/*.png")


def test_skip_writes_no_masks_and_ends_with_one(film, tmp_path):
    summary = run(film, tmp_path / "out", on_implausible="skip")
    assert (summary["failed"], summary["films"]) == (1, 0)
    assert rows(tmp_path / "out" / "failures.csv")[0]["reason"].startswith("implausible: not a frontal chest film")
    assert not list((tmp_path / "out").rglob("masks/*.png"))
    with pytest.raises(SystemExit, match="1 of 1 films were not segmented"):
        end_with_status(summary, tmp_path / "out")


def test_keep_and_structures_of_other_parts_are_not_looked_at(film, tmp_path):
    assert run(film, tmp_path / "keep", on_implausible="keep")["implausible"] == 0
    assert run(film, tmp_path / "femora", structures=("femur_left", "femur_right"))["implausible"] == 0
    for name in ("keep", "femora"):
        assert rows(tmp_path / name / "measurements.csv")[0]["implausible"] == ""
        seg = pydicom.dcmread(next((tmp_path / name).rglob("segmentation.dcm")))
        assert seg.SeriesDescription.startswith("Segmentation, threshold")


def test_a_resume_with_another_choice_is_refused(film, tmp_path):
    run(film, tmp_path / "out")
    with pytest.raises(ValueError, match="on_implausible was 'flag' and is now 'skip'"):
        run(film, tmp_path / "out", on_implausible="skip", resume=True)
    with pytest.raises(ValueError, match="on_implausible must be one of keep, flag, skip"):
        SegmentSettings(on_implausible="drop")


def test_the_api_warns_for_every_film_refuses_or_does_not_look(film):
    model = SegmentationModel(Halves(), (96, 96), torch.device("cpu"))
    array = (page() / np.float32(4095)).astype(np.float32)
    for _ in range(2):
        with pytest.warns(ImplausibleWarning, match="a film: implausible, look at it: not a frontal chest film"):
            masks = model.segment(array)
    assert masks["lung_left"].shape == array.shape and masks["lung_left"].any()
    assert "not a frontal chest film" in model.review(array, masks)
    with pytest.warns(ImplausibleWarning, match="in.dcm"):
        model.segment(film)
    with pytest.raises(RadiographError, match=r"in\.dcm: implausible: not a frontal chest film"):
        model.segment(film, on_implausible="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.segment(film, on_implausible="keep")
    with pytest.raises(ValueError, match="on_implausible must be one of"):
        model.segment(film, on_implausible="drop")
