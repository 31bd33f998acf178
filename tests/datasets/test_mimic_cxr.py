"""MIMIC-CXR-JPG from its published layout."""

from __future__ import annotations

import gzip

import pytest

from cxw_monai.datasets import prepare_dataset

FILMS = {  # dicom: subject, study, view, split
    "aa-1": ("10000032", "50414267", "PA", "train"),
    "aa-2": ("10000032", "50414267", "LATERAL", "train"),
    "aa-3": ("10000032", "53189527", "AP", "train"),
    "bb-1": ("11000001", "51111111", "LL", "validate"),
    "bb-2": ("11000001", "51111111", "PA", "validate"),
    "cc-1": ("12000002", "52222222", "", "test"),
    "cc-2": ("12000002", "52222223", "AP", "test"),
}


@pytest.fixture
def tree(put, root):
    metadata = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate\n"
    split = "dicom_id,study_id,subject_id,split\n"
    for dicom, (subject, study, view, part) in FILMS.items():
        metadata += f"{dicom},{subject},{study},CHEST,{view},6,8,21800101\n"
        split += f"{dicom},{study},{subject},{part}\n"
        put(f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg")
    metadata += "dd-1,13000003,53333333,CHEST,PA,6,8,21800101\n"  # in no split
    labels = "subject_id,study_id,Atelectasis,Cardiomegaly,Edema,No Finding\n"
    chexpert = labels + "10000032,50414267,-1.0,-1.0,,\n11000001,51111111,1.0,0.0,,\n12000002,52222222,,,,1.0\n"
    for part, text in (("metadata", metadata), ("split", split), ("chexpert", chexpert)):
        (root / f"mimic-cxr-2.0.0-{part}.csv.gz").write_bytes(gzip.compress(text.encode()))
    put("mimic-cxr-2.0.0-negbio.csv", labels + "10000032,50414267,0.0,1.0,,\n")


def test_all_three_official_splits_are_kept(tree, prepare, root, tmp_path):
    """The official loader's slip: whatever split is asked for, it gives train."""
    films = prepare("mimic_cxr")
    splits = {name[:4]: film.split for name, film in films.items()}
    names = {"train": "training", "validate": "validation", "test": "test"}
    assert splits == {dicom: names[part] for dicom, (*_, part) in FILMS.items()}
    film = films["aa-1.jpg"]
    assert film.image == str(root / "files/p10/p10000032/s50414267/aa-1.jpg")
    assert (film.patient_id, film.study, film.view, film.width, film.height) == ("10000032", "50414267", "PA", 8, 6)
    assert film.labels == {"Atelectasis": 1, "Cardiomegaly": 0, "Edema": 0, "No Finding": 0} == films["aa-2.jpg"].labels
    assert films["aa-2.jpg"].view == films["bb-1.jpg"].view == "LAT" and films["cc-1.jpg"].view is None
    assert films["aa-3.jpg"].labels == {}  # its study has no row of labels: not known, not 0
    assert films["cc-1.jpg"].labels["No Finding"] == 1
    summary = (tmp_path / "out/summary.json").read_text()
    assert "1 films of mimic-cxr-2.0.0-metadata.csv.gz aren't in mimic-cxr-2.0.0-split.csv.gz" in summary
    assert "2 films of studies without a row" in summary and "2180" not in summary


def test_frontal_only_and_the_other_labeler(tree, prepare):
    films = prepare("mimic_cxr", frontal_only=True, labeler="negbio")
    assert {name[:4] for name in films} == {"aa-1", "aa-3", "bb-2", "cc-2"}
    assert films["aa-1.jpg"].labels["Cardiomegaly"] == 1


def test_unknown_splits_and_missing_files_are_refused(tree, put, root, tmp_path):
    put("mimic-cxr-2.0.0-split.csv", "")
    (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(b"dicom_id,split\naa-1,holdout\n"))
    with pytest.raises(ValueError, match="unknown split 'holdout'; expected train, validate, test"):
        prepare_dataset("mimic_cxr", root, tmp_path / "out")
    (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(b"dicom,part\n"))
    with pytest.raises(
        ValueError, match=r"split\.csv\.gz: no column 'dicom_id', 'split' among \['dicom', 'part'\]; see https"
    ):
        prepare_dataset("mimic_cxr", root, tmp_path / "out")
    (root / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match="chexpert.csv.gz or .*chexpert.csv; .*https://physionet"):
        prepare_dataset("mimic_cxr", root, tmp_path / "out")
