"""Masks by several segmenters: who agrees, what is written, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxw_monai.inference.pseudo_labels import Committee, agreement_of, make_pseudo_labels
from cxw_monai.io.results import folders
from cxw_monai.io.results.folders import is_result_folder
from cxw_monai.networks.decoders.layers import BatchNorm2d
from cxw_monai.tasks.segmentation.items import annotated_items
from cxw_monai.weights.segmenter import new_segmenter, save_segmenter, segmenter_settings

STRUCTURES = ("lung_left", "heart")
SIZE = (40, 56)


def model(path: Path, logits=(3.0, 3.0), structures=STRUCTURES) -> Path:
    """A segmenter that gives the same logit everywhere, whatever it is shown."""
    settings = segmenter_settings(structures, image_size=32, size="tiny", decoder="linear")
    network = settings.network()
    with torch.no_grad():
        network.decoder.head.weight.zero_()
        network.decoder.head.bias.copy_(torch.tensor(logits).repeat_interleave(network.decoder.cells**2))
    save_segmenter(network, settings, path)
    return path


def films(folder: Path, names=("a", "b")) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, SIZE, dtype=np.uint8)).save(
            folder / f"{name}.png"
        )
    rows = "".join(f"{name}.png,p{number}\n" for number, name in enumerate(names))
    (folder / "manifest.csv").write_text("image,patient_id\n" + rows)
    return folder / "manifest.csv"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_agreement_by_hand():
    """Two models, four pixels: masks of 2 and 1 pixels, mean of 2: Dice 1 and 2/3, of mean 5/6."""
    first, second = [0.9, 0.9, 0.1, 0.1], [0.9, 0.2, 0.1, 0.1]
    probabilities = np.array([first, second], np.float32).reshape(2, 1, 2, 2)
    assert agreement_of(probabilities) == pytest.approx([5 / 6])
    same = np.array([first, first], np.float32).reshape(2, 1, 2, 2)
    both = np.concatenate([same, probabilities], axis=1)
    assert agreement_of(both) == pytest.approx([1, 5 / 6])


def test_a_structure_that_nobody_draws_is_no_agreement():
    assert agreement_of(np.full((3, 1, 4, 4), 0.2, np.float32)) == [0.0]


def test_masks_are_on_the_films_grid_and_train_the_next_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = make_pseudo_labels(
        films(tmp_path / "films"), [model(tmp_path / "1.pt"), model(tmp_path / "2.pt")], "out"
    )
    items = annotated_items(manifest, STRUCTURES)
    assert [item["patient_id"] for item in items] == ["p0", "p1"]
    for item in items:
        for name in STRUCTURES:
            mask = np.asarray(Image.open(item["masks"][name][0]))
            assert mask.shape == SIZE and (mask == 255).all()


def test_what_the_models_disagree_on_is_unknown(tmp_path):
    models = [model(tmp_path / "1.pt"), model(tmp_path / "2.pt", (3.0, -9.0))]
    manifest = make_pseudo_labels(films(tmp_path / "films"), models, tmp_path / "out")
    assert all(set(item["masks"]) == {"lung_left"} for item in annotated_items(manifest, STRUCTURES))
    listed = rows_of(tmp_path / "out" / "agreement.csv")
    assert [(row["lung_left"], row["heart"]) for row in listed] == [("1.0000", "0.0000")] * 2


def test_an_augmented_model_has_to_agree_with_itself(tmp_path):
    """Four views of one model are four members; its batch statistics are adapted once."""
    structures = ("lung_left", "lung_right")
    path = model(tmp_path / "m.pt", structures=structures)
    committee = Committee([path], augmented=True)
    film = np.zeros((1, *SIZE), np.float32)
    found = committee.probabilities(film)
    assert found.shape == (4, 2, 32, 32)
    np.testing.assert_array_equal(found[1], found[0])  # the same everywhere, so mirrored too
    assert found[2, :, 0].max() < 1e-5 < 0.9 < found[2, :, 16, 16].min()  # the film's edge isn't in the nearer view
    assert len({id(member.network) for member in committee.members}) == 1
    listed = films(tmp_path / "films", ("a",))
    rows = rows_of(make_pseudo_labels(listed, [path], tmp_path / "out", augmented=True, adapt=False))
    assert rows[0]["mask_lung_left"]


def test_statistics_of_augmented_models_are_adapted_once(tmp_path):
    settings, found = segmenter_settings(("heart",), 32, "tiny", 16, "hybrid", 4), []
    save_segmenter(new_segmenter(settings), settings, tmp_path / "h.pt")
    for augmented in (False, True):
        committee = Committee([tmp_path / "h.pt"], augmented=augmented)
        committee.adapt(np.random.default_rng(0).random((4, 1, 32, 32), dtype=np.float32), batch_size=2)
        found.append(committee.members[0].network.state_dict())
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name])


def test_no_agreement_at_all_is_an_error_that_names_the_list(tmp_path):
    models = [model(tmp_path / "1.pt"), model(tmp_path / "2.pt", (-9.0, -9.0))]
    with pytest.raises(ValueError, match=r"agree on no mask at 0\.9.*agreement\.csv"):
        make_pseudo_labels(films(tmp_path / "films"), models, tmp_path / "out")
    assert len(rows_of(tmp_path / "out" / "agreement.csv")) == 2


def test_labelled_films_come_along_under_the_structures_names(tmp_path):
    labelled = films(tmp_path / "labelled", ["c"])
    Image.new("L", SIZE[::-1]).save(tmp_path / "labelled" / "m.png")
    labelled.write_text("image,patient_id,mask_lung_field_left,mask_heart\nc.png,p9,m.png,\n")
    manifest = make_pseudo_labels(
        films(tmp_path / "films"),
        [model(tmp_path / "1.pt")],
        tmp_path / "out",
        labelled=labelled,
        columns={"lung_left": "lung_field_left"},
    )
    last = annotated_items(manifest, STRUCTURES)[-1]
    assert last["patient_id"] == "p9"
    assert last["masks"] == {"lung_left": [str(tmp_path / "labelled" / "m.png")]}  # the heart is unknown there


def test_adapted_statistics_are_those_of_the_films(tmp_path):
    """The running mean of the first normalisation is the mean over both batches of what comes into it."""
    settings = segmenter_settings(STRUCTURES, image_size=32, size="tiny", decoder="unet", base_channels=2)
    save_segmenter(settings.network(), settings, tmp_path / "1.pt")
    committee = Committee([tmp_path / "1.pt"], amp="none")
    network = committee.members[0].network
    norm = next(module for module in network.modules() if isinstance(module, BatchNorm2d))
    seen = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].mean(dim=(0, 2, 3))))
    pictures = [np.random.default_rng(i).random((1, 32, 32), dtype=np.float32) for i in range(5)]
    committee.adapt(pictures, batch_size=2)
    assert len(seen) == 2 and not network.training and not norm.training
    torch.testing.assert_close(norm.running_mean, (seen[0] + seen[1]) / 2)


def test_an_unreadable_film_is_left_out_and_told(tmp_path, caplog):
    manifest = films(tmp_path / "films")
    (tmp_path / "films" / "a.png").write_bytes(b"no picture")
    made = make_pseudo_labels(manifest, [model(tmp_path / "1.pt")], tmp_path / "out")
    assert [Path(row["image"]).name for row in rows_of(made)] == ["b.png"]
    assert "a.png" in caplog.text


def test_what_does_not_fit_is_refused(tmp_path):
    manifest, one = films(tmp_path / "films"), model(tmp_path / "1.pt")
    other = model(tmp_path / "2.pt", (1.0,), ("heart",))
    with pytest.raises(ValueError, match=r"2\.pt segments \('heart',\)"):
        make_pseudo_labels(manifest, [one, other], tmp_path / "out")
    with pytest.raises(ValueError, match="no model"):
        make_pseudo_labels(manifest, [], tmp_path / "out")
    with pytest.raises(ValueError, match="agreement must lie"):
        make_pseudo_labels(manifest, [one], tmp_path / "out", agreement=1.5)
    with pytest.raises(ValueError, match="no column mask_lung_left"):
        make_pseudo_labels(manifest, [one], tmp_path / "out", labelled=manifest)
    assert not (tmp_path / "out").exists()


def test_masks_are_named_below_the_manifests_folder_and_marked_as_results(tmp_path, monkeypatch):
    (tmp_path / "films").mkdir()
    manifest = films(tmp_path / "films" / "p1", ["=a"])
    written = make_pseudo_labels(manifest, [model(tmp_path / "1.pt")], tmp_path / "out")
    assert is_result_folder(tmp_path / "out" / "=a") and written.read_text().splitlines()[1].count("'=a/masks/") == 2
    (item,) = annotated_items(written, STRUCTURES)
    assert item["masks"]["heart"] == [str(tmp_path / "out" / "=a" / "masks" / "heart.png")]
    monkeypatch.setattr(folders, "_PATIENCE", 0.0)
    before = written.read_bytes()
    with folders.output_lock(tmp_path / "out"), pytest.raises(folders.OutputBusyError):
        make_pseudo_labels(manifest, [tmp_path / "1.pt"], tmp_path / "out")
    assert written.read_bytes() == before


def test_a_film_that_no_manifest_can_name_is_left_out(tmp_path, caplog):
    manifest = films(tmp_path / "films", ["a", "b"])
    (tmp_path / "films" / "b.png").rename(tmp_path / "films" / "b\udcff.png")
    listed = [str(tmp_path / "films" / name) for name in ("a.png", "b\udcff.png")]
    manifest = tmp_path / "films" / "list.json"
    manifest.write_text(json.dumps([{"image": image, "patient_id": "p"} for image in listed]))
    written = make_pseudo_labels(manifest, [model(tmp_path / "1.pt")], tmp_path / "out")
    assert [item["image"] for item in annotated_items(written, STRUCTURES)] == listed[:1]
    assert "b\\udcff.png: its name isn't UTF-8, which a manifest is; rename it" in caplog.text
