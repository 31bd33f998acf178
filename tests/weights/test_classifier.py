"""Classifiers in files: settings that come back, start from an encoder, and refusals."""

import pytest
import torch

from cxw_monai.networks import RadiographEmbedder, radiograph_vit
from cxw_monai.weights.classifier import classifier_settings, load_classifier, new_classifier, read_classifier
from cxw_monai.weights.classifier_settings import ClassifierSettings
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.kinds import read_weights, save_network
from cxw_monai.weights.segmenter import load_segmenter

PLAIN = {"classes": ("edema", "mass"), "image_size": 32, "size": "tiny"}


def test_a_saved_classifier_comes_back_with_its_points(tmp_path):
    settings = classifier_settings(**PLAIN, head="attentive", head_layers=2, head_norm=True)
    points = {"edema": {"youden": 0.25, "sensitivity_90": 0.125}}
    settings = ClassifierSettings(**{**vars(settings), "temperatures": (1.5, 0.5), "operating_points": points})
    network = new_classifier(settings).eval()
    save_network(network, settings, tmp_path / "model.pt")
    found, loaded = read_classifier(tmp_path)
    assert found == settings and read_weights(tmp_path).kind == "classification"
    film = torch.rand(1, 1, 32, 32)
    assert torch.equal(loaded(film), network(film))
    with pytest.raises(CheckpointError, match="not a segmentation model"):
        load_segmenter(tmp_path)


def test_starts_from_an_encoder_and_freezes_it(tmp_path):
    encoder = radiograph_vit("tiny", image_size=64)
    torch.save(RadiographEmbedder(encoder).state_dict(), tmp_path / "encoder.pt")
    settings = classifier_settings(("edema",), image_size=32, encoder_ckpt=tmp_path / "encoder.pt")
    assert (settings.size, settings.encoder_image_size) == ("tiny", (64, 64))
    network = new_classifier(settings, tmp_path / "encoder.pt", freeze="encoder")
    assert torch.equal(network.encoder.blocks[3].mlp.fc1.weight, encoder.blocks[3].mlp.fc1.weight)
    trainable = {name.split(".")[0] for name, one in network.named_parameters() if one.requires_grad}
    assert trainable == {"head"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"classes": ("a", "A")}, "classes must have different names"),
        ({"target": "regression"}, "target must be one of"),
        ({"target": "multi_class", "classes": ("a",)}, "two or more"),
        ({"head": "mlp"}, "head must be one of"),
        ({"head_layers": 13}, "head_layers must be a whole number from 1 to 12"),
        ({"head_norm": 1}, "head_norm must be true or false"),
        ({"temperatures": (0.0, 1.0)}, "temperatures must be numbers above 0"),
        ({"temperatures": (float("nan"), 1.0)}, "temperatures must be numbers above 0"),
        ({"temperatures": (1.0,)}, "temperatures must be 2 or none"),
        ({"operating_points": {"liver": {}}}, "operating_points must be"),
        ({"operating_points": {"edema": {"youden": 2.5}}}, "from 0 to 2"),
        ({"operating_points": {"edema": {"../up": 0.5}}}, "must be named by"),
        ({"operating_points": []}, "operating_points must be"),
    ],
)
def test_settings_of_a_strangers_file_are_checked(tmp_path, wrong, said):
    settings = classifier_settings(**PLAIN)
    plain = {**vars(settings), **wrong}
    torch.save({"model": new_classifier(settings).state_dict(), "settings": plain}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=said):
        load_classifier(tmp_path)
