"""Films with masks: which are known, how they are stored, and how images and masks move together."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image
from torch.utils.data import DataLoader

from cxw_monai.data.dataset import EpochSampler
from cxw_monai.io import RadiographError
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.tasks.segmentation.dataset import SegmentationDataset, annotated_films
from cxw_monai.tasks.segmentation.items import annotated_items, segmentation_splits, segmentation_subset
from cxw_monai.transforms import ActionSampler, Perturbd, RandActiond
from cxw_monai.transforms.warp import RandFilmWarpd
from cxw_monai.transforms.whole_film import WholeFilmd

LUNGS = ["lung_left", "lung_right"]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def blob(shape, centre, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2


def write_manifest(folder, rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


@pytest.fixture
def lungs(tmp_path):
    """Four films of two patients; bright exactly where the lungs are (right one at image left, and larger)."""
    rows = []
    for number in range(4):
        shape = (60 + number, 72)
        right, left = blob(shape, (30, 20), 14), blob(shape, (34, 52), 9)
        noise = np.random.default_rng(number).integers(0, 20, shape)
        save(tmp_path / f"images/{number}.png", (np.where(right | left, 220, 20) + noise).astype(np.uint8))
        row = {"image": f"images/{number}.png", "patient_id": f"p{number // 2}", "label_fluid": number % 2}
        for name, mask in (("lung_left", left), ("lung_right", right)):
            save(tmp_path / f"masks/{name}/{number}.png", mask.astype(np.uint8) * 255)
            row[f"mask_{name}"] = f"masks/{name}/{number}.png"
        rows.append(row)
    return tmp_path, rows


def films_of(lungs, structures=LUNGS, size=64, **settings):
    folder, rows = lungs
    items = annotated_items(write_manifest(folder, rows), structures, **settings)
    return annotated_films(items, structures, folder / "cache", size, progress=False)


def test_masks_come_back_as_they_were_drawn(lungs):
    films = films_of(lungs)
    for index in range(4):
        drawn = [read_mask(lungs[0] / f"masks/{name}/{index}.png") for name in LUNGS]
        np.testing.assert_array_equal(films.label(index), np.array(drawn))
        assert films.known(index).tolist() == [True, True]
    assert films.label(3).shape == (2, *films.image(3).shape[1:]) and films.label(3).dtype == np.uint8
    assert films.patient(3) == "p1" and films.name(3) == "3"


def test_a_shrunk_mask_holds_the_pixels_of_which_half_is_inside(tmp_path):
    rng = np.random.default_rng(0)
    save(tmp_path / "film.png", rng.integers(0, 255, (32, 40)).astype(np.uint8))
    mask = np.zeros((32, 40), np.uint8)
    mask[0, 0:2] = 255  # 2 of the 4 pixels of cell (0, 0)
    mask[0, 2] = 255  # 1 of 4 of cell (0, 1)
    mask[2:4, 4:6] = 255  # all of cell (1, 2)
    save(tmp_path / "mask.png", mask)
    films = films_of((tmp_path, [{"image": "film.png", "mask_spot": "mask.png"}]), ["spot"], size=16)
    assert films.image(0).shape == (1, 16, 20)
    assert np.argwhere(films.label(0)[0]).tolist() == [[0, 0], [1, 2]]


def test_an_empty_cell_is_unknown_and_only_a_label_makes_it_absent(lungs):
    folder, rows = lungs
    for row in rows[:2]:
        row["mask_lung_left"] = ""
    films = films_of(lungs)
    assert [films.known(i).tolist() for i in range(4)] == [[False, True], [False, True], [True, True], [True, True]]
    assert not films.label(0)[0].any()
    told = films_of(lungs, absent_labels={"lung_left": "label_fluid"})  # 0 on film 0, 1 on film 1
    assert [told.known(i)[0] for i in range(4)] == [True, False, True, True]
    assert not told.label(0)[0].any()


def test_films_of_the_same_file_name_are_called_by_their_paths(tmp_path):
    items = []
    for place in ("p1/x", "p2/x", "p2/y"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(len(items)).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{place}.png")
        items.append({"image": str(tmp_path / f"{place}.png"), "masks": {"heart": []}})
    films = annotated_films(items, ["heart"], tmp_path / "cache", 32, progress=False)
    assert [films.name(index) for index in range(3)] == [f"{tmp_path}/p1/x.png", f"{tmp_path}/p2/x.png", "y"]


def test_structures_are_renamed_and_united(lungs):
    folder, rows = lungs
    rows[0]["mask_lung_left"] = ""
    both = films_of(lungs, ["lungs", "big"], structure_map={"lungs": LUNGS, "big": "lung_right"})
    label = both.label(1)
    drawn = [read_mask(folder / f"masks/{name}/1.png") for name in LUNGS]
    np.testing.assert_array_equal(label[0], drawn[0] | drawn[1])
    np.testing.assert_array_equal(label[1], drawn[1])
    assert both.known(0).tolist() == [False, True]  # a union of an unknown part is unknown


def test_a_name_can_mean_something_else_on_films_of_another_source(lungs):
    """Two sources with a column `lung_left`, of the visible field and of the whole lung; another with `left_lung`."""
    folder, rows = lungs
    for row, source in zip(rows, ("jsrt", "drr", "wingspan", ""), strict=True):
        row |= {"source": source, "mask_left_lung": ""}
    rows[2] |= {"mask_left_lung": rows[2]["mask_lung_right"], "mask_lung_left": ""}
    chosen = {"lung_field_left": {"jsrt": "lung_left", "wingspan": "left_lung"}, "lung_left": {"drr": "lung_left"}}
    items = annotated_items(write_manifest(folder, rows), ["lung_field_left", "lung_left"], chosen)
    masks = [
        {name: [Path(file).parts[-2:] for file in files] for name, files in item["masks"].items()} for item in items
    ]
    assert masks == [
        {"lung_field_left": [("lung_left", "0.png")]},
        {"lung_left": [("lung_left", "1.png")]},
        {"lung_field_left": [("lung_right", "2.png")]},
    ]


def test_a_source_that_the_manifest_has_not_is_named(lungs, caplog):
    folder, rows = lungs
    for row in rows:
        row["source"] = "drr"
    chosen = {"lung_left": {"drr": "lung_left", "ddr": "lung_left"}}
    assert annotated_items(write_manifest(folder, rows), LUNGS, chosen)
    assert "no film of the sources ddr of structure_map; its column source has drr" in caplog.text


def test_columns_of_rendered_findings_are_given_by_their_full_name(lungs):
    folder, rows = lungs
    for number, row in enumerate(rows):
        row["finding_mask_Nodule"] = row["mask_lung_left"] if number == 1 else ""
        row["Nodule"] = int(number == 1)
    settings = {"structure_map": {"nodule": "finding_mask_Nodule"}, "absent_labels": {"nodule": "Nodule"}}
    films = films_of(lungs, ["nodule"], **settings)
    assert [films.known(i)[0] for i in range(4)] == [True] * 4
    assert [bool(films.label(i).any()) for i in range(4)] == [False, True, False, False]


def test_films_without_any_known_mask_are_left_out(lungs):
    folder, rows = lungs
    rows[2].update(mask_lung_left="", mask_lung_right="")
    assert len(films_of(lungs)) == 3
    for row in rows:
        row.update(mask_lung_left="", mask_lung_right="")
    with pytest.raises(ValueError, match="none of its 4 films has a mask of lung_left, lung_right"):
        films_of(lungs)


def test_a_column_that_is_not_there_is_told_with_those_that_are(lungs):
    with pytest.raises(ValueError, match=r"no column mask_hart .* mask_lung_left, mask_lung_right"):
        films_of(lungs, ["hart"])
    with pytest.raises(ValueError, match="absent_labels"):
        films_of(lungs, absent_labels={"lung_left": "label_nothing"})


def test_a_changed_mask_is_read_again(lungs):
    folder, _ = lungs
    before = films_of(lungs).label(1)[0]
    save(folder / "masks/lung_left/1.png", np.zeros((61, 72), np.uint8))
    after = films_of(lungs)
    assert before.any() and not after.label(1)[0].any()
    np.testing.assert_array_equal(after.label(2)[0], read_mask(folder / "masks/lung_left/2.png"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda path: path.unlink(), "no such mask"),
        (lambda path: save(path, np.zeros((60, 60), np.uint8)), "the mask is 60x60 px .* its film 61x72"),
        (lambda path: save(path, np.arange(61 * 72, dtype=np.uint8).reshape(61, 72)), "holds the values 0, 1, 2"),
        (lambda path: save(path, np.zeros((61, 72, 3), np.uint8)), "3 channels"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "cannot be read"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_mask_stops_with_its_name(lungs, made, said, workers):
    folder, rows = lungs
    bad = folder / "masks/lung_left/1.png"
    made(bad)
    items = annotated_items(write_manifest(folder, rows), LUNGS)
    with pytest.raises(RadiographError, match=said) as caught:
        annotated_films(items, LUNGS, folder / "cache", 64, workers=workers, progress=False)
    assert str(caught.value).startswith(f"{bad}: ")


def test_masks_of_zero_and_one_are_taken(tmp_path):
    path = save(tmp_path / "mask.png", np.eye(4, dtype=np.uint8))
    np.testing.assert_array_equal(read_mask(path, (4, 4)), np.eye(4, dtype=bool))


def test_more_structures_than_bits_are_refused(lungs):
    folder, rows = lungs
    items = annotated_items(write_manifest(folder, rows), LUNGS)
    with pytest.raises(ValueError, match="1 to 32"):
        annotated_films(items, [f"s{n}" for n in range(33)], folder / "cache", progress=False)


def test_many_structures_keep_their_own_bits(lungs):
    names = {f"s{n}": LUNGS[n % 2] for n in range(20)}
    films = films_of(lungs, list(names), structure_map=names)
    plain = films_of(lungs)
    for number in range(20):
        np.testing.assert_array_equal(films.label(2)[number], plain.label(2)[number % 2])


def test_splits_keep_patients_apart(lungs):
    folder, rows = lungs
    rows += [{**row, "image": f"copy{n}.png", "patient_id": f"p{2 + n}"} for n, row in enumerate(rows)]
    for n in range(4):
        (folder / f"copy{n}.png").write_bytes((folder / f"images/{n}.png").read_bytes())
    splits = segmentation_splits(write_manifest(folder, rows), LUNGS, val_fraction=0.3, test_fraction=0.2, seed=1)
    patients = [{item["patient_id"] for item in part} for part in splits]
    assert sum(len(part) for part in splits) == 8 and all(patients)
    assert len(set.union(*patients)) == sum(len(part) for part in patients)


def test_the_column_split_is_followed(lungs):
    folder, rows = lungs
    for row, split in zip(rows, ("training", "training", "validation", "test"), strict=True):
        row["split"] = split
    rows[3]["patient_id"] = "p2"
    splits = segmentation_splits(write_manifest(folder, rows), LUNGS, splits="column")
    assert [[item["image"][-5] for item in part] for part in splits] == [["0", "1"], ["2"], ["3"]]
    subset = segmentation_subset("test", folder / "manifest.csv", structures=LUNGS, splits="column")
    assert subset == splits.test
    rows[3]["patient_id"] = "p1"
    with pytest.raises(ValueError, match="a patient is in two splits"):
        segmentation_splits(write_manifest(folder, rows), LUNGS, splits="column")
    rows[3]["split"] = ""
    with pytest.raises(ValueError, match="expected one of training, validation, test"):
        segmentation_splits(write_manifest(folder, rows), LUNGS, splits="column")


def test_a_test_manifest_must_hold_other_films(lungs, tmp_path_factory):
    folder, rows = lungs
    manifest = write_manifest(folder, rows)
    other = tmp_path_factory.mktemp("other")
    save(other / "film.png", np.arange(400, dtype=np.uint8).reshape(20, 20))
    save(other / "mask.png", np.zeros((20, 20), np.uint8))
    test = write_manifest(other, [{"image": "film.png", "mask_lung_left": "mask.png", "mask_lung_right": ""}])
    splits = segmentation_splits(manifest, LUNGS, val_fraction=0.5, test_datalist=test)
    assert [len(part) for part in splits] == [2, 2, 1]
    with pytest.raises(ValueError, match="are also in"):
        segmentation_splits(manifest, LUNGS, val_fraction=0.5, test_datalist=manifest)


def augmented(films, size=48, seed=0, **settings):
    warp = RandFilmWarpd(size, films.structures, **settings)
    action = RandActiond("action", ActionSampler(noise_prob=0.5))
    return SegmentationDataset(films, Compose([warp, action, Perturbd("image", "action", "image")]), seed)


def test_image_and_masks_move_together(lungs):
    """The films are bright exactly in the lungs, so the warped film thresholded is the warped masks' union."""
    films = films_of(lungs)
    warp = RandFilmWarpd((48, 64), LUNGS, crop_prob=0.7, affine_prob=1.0, rotate=30, shear=15, distortion_prob=0.7)
    dataset = SegmentationDataset(films, Compose([warp]), seed=5)
    seen = 0
    for epoch in range(6):
        for index in range(4):
            sample = dataset[(epoch, index)]
            union, bright = sample["label"].amax(dim=0) > 0.5, sample["image"][0] > 0.5
            assert sample["image"].shape == (1, 48, 64) and sample["label"].shape == (2, 48, 64)
            assert (union != bright).float().mean() < 0.012
            seen += int(union.any() and not union.all())
    assert seen > 20


def test_random_numbers_hang_on_seed_epoch_and_film_alone(lungs):
    films = films_of(lungs)
    first = augmented(films)
    in_order = {key: first[key] for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    again = augmented(films)
    for key in reversed(list(in_order)):
        for name, value in again[key].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(in_order[key][name])), (key, name)
    assert not torch.equal(in_order[(0, 0)]["image"], in_order[(1, 0)]["image"])
    assert not torch.equal(augmented(films, seed=1)[(0, 0)]["image"], in_order[(0, 0)]["image"])


def test_workers_draw_what_one_process_draws(lungs):
    films = films_of(lungs)
    batches = []
    for workers in (0, 2):
        sampler = EpochSampler(len(films), seed=1)
        sampler.set_epoch(3)
        loader = DataLoader(augmented(films), 2, sampler=sampler, num_workers=workers)
        batches.append(list(loader))
    for alone, shared in zip(*batches, strict=True):
        assert all(torch.equal(alone[name], shared[name]) for name in alone)
    assert pickle.loads(pickle.dumps(films)).label(1).sum() == films.label(1).sum()


def test_whole_films_are_stretched(lungs):
    films = films_of(lungs)
    dataset = SegmentationDataset(films, WholeFilmd((30, 36)))
    sample = dataset[0]  # 60 x 72 px, so halved
    means = films.label(0).reshape(2, 30, 2, 36, 2).mean(axis=(2, 4))
    clear = (means == 0) | (means == 1)
    assert sample["image"].shape == (1, 30, 36) and sample["image"].max() <= 1
    assert (sample["label"].numpy() == means)[clear].mean() > 0.99
    same = SegmentationDataset(films, WholeFilmd((60, 72)))[0]
    np.testing.assert_allclose(same["image"].numpy(), films.image(0) / 255, atol=1e-6)
    np.testing.assert_array_equal(same["label"].numpy(), films.label(0))


def test_without_randomness_the_warp_is_the_whole_film(lungs):
    films = films_of(lungs)
    settings = {"crop_prob": 0.0, "affine_prob": 0.0, "distortion_prob": 0.0}
    warped = SegmentationDataset(films, Compose([RandFilmWarpd((60, 72), LUNGS, **settings)]))[0]
    np.testing.assert_allclose(warped["image"].numpy(), films.image(0) / 255, atol=1e-5)
    np.testing.assert_array_equal(warped["label"].numpy(), films.label(0))


def test_a_mirrored_film_has_its_sides_exchanged(lungs):
    folder, rows = lungs
    rows[0]["mask_lung_left"] = ""
    films = films_of(lungs)
    settings = {"crop_prob": 0.0, "affine_prob": 0.0, "distortion_prob": 0.0, "flip_prob": 1.0}
    dataset = SegmentationDataset(films, Compose([RandFilmWarpd((61, 72), LUNGS, **settings)]))
    sample = dataset[1]  # 61 x 72 px: nothing is resized
    np.testing.assert_allclose(sample["image"].numpy(), films.image(1)[..., ::-1] / 255, atol=1e-5)
    left, right = films.label(1)
    np.testing.assert_array_equal(sample["label"].numpy(), np.array([right, left])[..., ::-1])
    assert dataset[0]["known"].tolist() == [True, False]  # known was the right lung, which is now the left one


def test_cached_films_are_shared_by_path_with_other_columns(lungs):
    """Another choice of structures makes another mask file, beside the same images."""
    one, two = films_of(lungs), films_of(lungs, ["lung_right"])
    assert one.cache.folder == two.cache.folder
    np.testing.assert_array_equal(one.label(3)[1], two.label(3)[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_packing_masks_draws_nothing_from_the_global_generator(lungs, workers):
    """Else a run whose cache was there before would start with other weights than one that made it."""
    folder, rows = lungs
    items = annotated_items(write_manifest(folder, rows), LUNGS)
    before = torch.get_rng_state()
    annotated_films(items, LUNGS, folder / "cache", 64, workers=workers, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
