"""The decoder, what is kept beside it, and the report on a world model and on an encoder alone."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxw_monai.metrics.world.films import read_world_films
from cxw_monai.networks.pixel_decoder import PixelDecoder
from cxw_monai.tasks.pretraining import decoding, report
from cxw_monai.tasks.pretraining.components import new_network
from cxw_monai.tasks.pretraining.decoding import fitted_decoder, kept_decoder, psnr
from cxw_monai.tasks.pretraining.report import write_report
from cxw_monai.tasks.pretraining.settings import PretrainingSettings, SeeingSettings
from cxw_monai.tasks.pretraining.sight import block_of, open_sight, square
from cxw_monai.tasks.pretraining.sight_pictures import heat_map, principal_colours
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.tensor_files import read_tensors, write_tensors

PREDICTED = ("In a hidden block", "In a neighbouring crop", "Under another exposure")
SMALL = {"network_size": "tiny", "image_size": 32, "patch_size": 8, "predictor_dim": 24, "predictor_depth": 1}


class PatchWorld:
    """Targets are the pixels of the patches, of which every pixel can be read off."""

    grid, size, predicts = (4, 4), (32, 32), frozenset()

    def targets(self, images):
        return torch.nn.functional.unfold(images, 8, stride=8).transpose(1, 2) - 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """14 films of smooth noise as files."""
    place = tmp_path_factory.mktemp("films")
    for n, blobs in enumerate(gaussian_filter(np.random.default_rng(0).standard_normal((14, 64, 64)), (0, 4, 4))):
        grey = (blobs - blobs.min()) / (blobs.max() - blobs.min())
        Image.fromarray(np.rint(30 + 180 * grey).astype(np.uint8)).save(place / f"film{n:02}.png")
    return place


@pytest.fixture(scope="module")
def films(folder):
    return read_world_films([{"image": str(path)} for path in sorted(folder.iterdir())], (32, 32))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A run's folder: a small world model, its encoder, and the curves of two epochs."""
    place = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = new_network(PretrainingSettings(output_dir=str(place), **SMALL))
    torch.save(model.state_dict(), place / "model.pt")
    prefix = "target_encoder."
    encoder = {f"encoder.{n.removeprefix(prefix)}": v for n, v in model.state_dict().items() if n.startswith(prefix)}
    torch.save(encoder, place / "encoder.pt")
    (place / "metrics.csv").write_text("epoch,loss\n1,0.9\n2,0.8\n")
    return place


def settings_of(weights, folder, output, **others):
    given = {"ckpt": str(weights), "dataset_dir": str(folder), "output_dir": str(output), "amp": "none", **SMALL}
    plain = {"world_tests": ["spread"], "random_networks": 0, "device": "cpu"}
    return SeeingSettings(**{**given, **plain, **others})


def test_a_decoder_puts_each_patch_in_its_place():
    decoder = PixelDecoder(6, 8, (2, 3))
    with torch.no_grad():
        decoder.head.weight.copy_(torch.arange(6.0).expand(64, 6))
        decoder.head.bias.copy_(torch.arange(64) / 64)  # the pixels of a patch, row by row
    image = decoder(torch.eye(6)[None])[0, 0]  # each place has a token of its own
    assert image.shape == (16, 24)
    assert image[9, 18].item() == pytest.approx(5 + (1 * 8 + 2) / 64)  # the last patch: row 1, column 2


def test_psnr_by_hand():
    truth = torch.zeros(2, 1, 4, 4)
    assert psnr(torch.stack([truth[0] + 0.1, truth[1] + 0.01]), truth).tolist() == pytest.approx([20, 40], abs=1e-3)


def test_a_decoder_learns_what_the_targets_hold_and_beats_the_mean_film(films):
    decoder = fitted_decoder(PatchWorld(), films)
    held, known = films.whole([0, 1, 2]), films.whole([3, 4, 5, 6])
    scores = decoding.decoder_scores(decoder, PatchWorld(), held, known)
    assert scores["decoded"] > 30 > scores["mean film"] + 5  # all but the shrinkage of the ridge
    torch.testing.assert_close(
        fitted_decoder(PatchWorld(), films).state_dict(), decoder.state_dict(), rtol=0, atol=1e-6
    )


def test_a_decoder_is_kept_for_its_own_network_and_films(films, tmp_path, monkeypatch):
    path = tmp_path / "decoder.safetensors"
    first, about = kept_decoder(path, PatchWorld(), films, "key")
    assert (about["films"] + about["held_out"], set(about["psnr"])) == (
        14,
        {"decoded", "mean film", "mean of each patch"},
    )
    monkeypatch.setattr(decoding, "fitted_decoder", None)
    second, same = kept_decoder(path, PatchWorld(), films, "key")
    assert same == about
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="of another network, other films or settings; give another --output_dir"):
        kept_decoder(path, PatchWorld(), films, "another key")


def test_tensors_and_what_is_said_of_them_come_back_and_damage_is_told(tmp_path):
    path = tmp_path / "some.safetensors"
    write_tensors(path, {"a": torch.arange(3.0)}, {"key": "x", "grid": [2, 3]})
    tensors, about = read_tensors(path)
    assert about == {"key": "x", "grid": [2, 3]} and tensors["a"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="not what was written there"):
        read_tensors(path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_tensors(tmp_path / "none.safetensors")


def test_blocks_and_squares_lie_where_they_are_asked_for():
    assert block_of((4, 6), 0, 0).tolist() == [0, 1]
    assert block_of((4, 6), 1, 1).tolist() == [22, 23]
    assert square(1, 0, 0.25).tolist() == [0.75, 0, 0.25, 0.25]


def test_like_tokens_have_like_colours_and_usual_is_dark():
    tokens = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0))
    tokens[0, 3] = tokens[0, 0]
    colours = principal_colours(tokens, (2, 2))[0]
    assert np.allclose(colours[0, 0], colours[1, 1]) and not np.allclose(colours[0, 0], colours[0, 1])
    assert heat_map(torch.tensor([[[-1.0]], [[2.0]], [[9.0]]]), (2, 2), 4.0)[:, 0, 0].tolist() == [0, 0.5, 1]


@pytest.fixture(scope="module")
def sight(weights, folder, tmp_path_factory):
    return open_sight(settings_of(weights / "model.pt", folder, tmp_path_factory.mktemp("sight")))


def test_a_hidden_block_is_hidden_from_the_network(sight):
    """Whatever is in the block, the prediction there is the same; what is outside stays the truth's."""
    block = block_of(sight.world.grid, 0, 0)
    image = sight.films.whole([0])[0]
    other = image.clone()
    other[:, :8, :8] = 1 - other[:, :8, :8]
    first, second = (sight.hidden_block(one, block) for one in (image, other))
    assert block.tolist() == [0] and first.given[0, :8, :8].eq(0.5).all()
    torch.testing.assert_close(first.decoded_prediction[:, :8, :8], second.decoded_prediction[:, :8, :8])
    assert not torch.equal(first.decoded_truth[:, :8, :8], second.decoded_truth[:, :8, :8])
    torch.testing.assert_close(first.decoded_prediction[:, 8:], first.decoded_truth[:, 8:])


def test_another_crop_and_exposure_are_predicted_from_what_was_given(sight):
    film = sight.films.pixels[0]
    given, wanted = square(0, 0, 0.5), square(0, 1, 0.5)
    found = sight.other_crop(film, given, wanted)
    torch.testing.assert_close(found.given[0], film[0, :32, :32] / 255, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.truth[0], film[0, :32, 32:] / 255, atol=1e-6, rtol=0)
    elsewhere = sight.other_crop(film, given, square(1, 0, 0.5))
    assert not torch.allclose(found.decoded_prediction, elsewhere.decoded_prediction, atol=1e-7)
    seen = sight.other_exposure(sight.films.whole([0])[0], torch.tensor([0.5, 1.0, 1.0, 0.0, 0.0]))
    torch.testing.assert_close(seen.given, seen.truth / 2)


def test_films_are_nearest_to_themselves(sight):
    places, likeness = sight.nearest(sight.films.whole([2, 5]), 3)
    assert places[:, 0].tolist() == [2, 5] and likeness[:, 0].tolist() == pytest.approx([1, 1], abs=1e-5)


def test_the_report_is_one_page_that_loads_nothing_and_is_not_made_twice(weights, folder, tmp_path, monkeypatch):
    settings = settings_of(weights / "model.pt", folder, tmp_path)
    page = write_report(settings)
    text = page.read_text()
    wanted = ("Too few films to tell", "Curves of its run", *PREDICTED, "Correspondence", "Nearest films", "dB PSNR")
    assert [words for words in wanted if words not in text] == []
    assert not re.findall(r"https?:|<script|<link|@import", text)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)', text))
    assert len(text) < 3e6 and "film00.png" not in text and str(folder) not in text
    rows = list(csv.DictReader((tmp_path / "films.csv").open()))
    assert sorted(row["image"] for row in rows) == [str(path) for path in sorted(folder.iterdir())]
    first = re.sub(r"data:image/[^\"]*", "", text)
    for module, name in ((decoding, "fitted_decoder"), (report, "judge")):
        monkeypatch.setattr(module, name, None)
    assert re.sub(r"data:image/[^\"]*", "", write_report(settings).read_text()) == first


def test_the_report_on_an_encoder_leaves_out_what_needs_a_predictor(weights, folder, tmp_path):
    text = write_report(settings_of(weights / "encoder.pt", folder, tmp_path)).read_text()
    assert "an encoder without a predictor: what needs predictions is left out" in text
    assert "There is no prediction to be surprised by" in text
    assert not any(words in text for words in PREDICTED)


def test_a_folder_of_another_network_is_not_mixed_with_this_one(weights, folder, tmp_path):
    open_sight(settings_of(weights / "encoder.pt", folder, tmp_path))
    with pytest.raises(CheckpointError, match="another --output_dir"):
        open_sight(settings_of(weights / "model.pt", folder, tmp_path))


def test_too_few_films_are_told(weights, tmp_path, folder):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(folder.iterdir())[:5]:
        (few / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="at least 10 patients are needed, got 5; add films"):
        open_sight(settings_of(weights / "model.pt", few, tmp_path / "out"))
