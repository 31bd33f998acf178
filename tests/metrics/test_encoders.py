"""Encoders of any kind: files made here, modules written here, and Hugging Face models from a config."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from torch import nn

from cxw_monai.metrics.encoders import AnyEncoder, Preprocessing, open_encoder
from tests.helpers.small_networks import images

SHOWN = images(5, 1, 32, 32)


class Means(nn.Module):
    """A map of 4 x 4 places: mean and maximum of each."""

    def forward(self, x):
        return torch.cat([nn.functional.avg_pool2d(x, 8), nn.functional.max_pool2d(x, 8)], dim=1)


def test_a_film_is_prepared_as_it_is_stated():
    prepare = Preprocessing((2, 2), 3, 0.0, 255.0, (100.0, 0.0, 55.0), (2.0, 1.0, 200.0))
    made = prepare(torch.tensor([[[[0.0, 1.0], [0.2, 0.4]]]]))
    assert made.shape == (1, 3, 2, 2)
    assert made[0, 0].flatten().tolist() == pytest.approx([-50, 77.5, -24.5, 1], abs=1e-4)
    assert made[0, 2, 0].tolist() == pytest.approx([-0.275, 1.0])
    stated = "2 x 2 px, 3 channels, grey values 0 to 255, mean 100/0/55, std 2/1/200"
    assert prepare.stated() == stated
    for wrong in ({"std": (0.0,)}, {"mean": (1.0, 2.0)}, {"low": 1.0}, {"size": (0, 2)}):
        with pytest.raises(ValueError):
            Preprocessing(**({"size": (2, 2), "channels": 3} | wrong))


def test_a_torchscript_file_gives_tokens_and_their_mean(tmp_path):
    torch.jit.script(Means()).save(tmp_path / "means.ts")
    encoder = open_encoder(f"torchscript:{tmp_path / 'means.ts'},size=32,range=0/2")
    expected = Means()(2 * SHOWN).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder.tokens(SHOWN), expected)
    torch.testing.assert_close(torch.from_numpy(encoder.vector(SHOWN)), expected.mean(dim=1))
    assert (encoder.grid, encoder.size, encoder.dimensions) == ((4, 4), (32, 32), 2)
    assert "grey values 0 to 2" in encoder.preprocessing.stated()


@pytest.mark.parametrize("batch", ["b", 1])
def test_an_onnx_file_says_its_size_and_channels(tmp_path, batch):
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, save

    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    flat = helper.make_node("Flatten", ["y"], ["z"])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 24, 32])
    gives = helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, 3])
    graph = helper.make_graph([node, flat], "g", [given], [gives])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    save(model, str(tmp_path / "mean.onnx"))
    encoder = open_encoder(f"onnx:{tmp_path / 'mean.onnx'},mean=0.5,std=0.25")
    assert (encoder.size, encoder.preprocessing.channels, encoder.grid) == ((24, 32), 3, (1, 1))
    shown = images(3, 1, 24, 32)
    expected = (shown.mean(dim=(1, 2, 3)) - 0.5) / 0.25
    torch.testing.assert_close(
        torch.from_numpy(encoder.vector(shown)), expected[:, None].expand(-1, 3), atol=1e-5, rtol=0
    )


def test_a_callable_of_a_module_of_the_folder(tmp_path, monkeypatch):
    (tmp_path / "my_encoder_a.py").write_text(
        "import torch\n"
        "def make():\n"
        "    def encode(x):\n"
        "        tokens = x.flatten(2).transpose(1, 2)[:, :16]\n"
        "        return {'tokens': torch.cat([7 + 0 * tokens[:, :1], tokens], dim=1)}\n"
        "    return encode\n"
        "def number():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    mean, first = (open_encoder(f"python:my_encoder_a:make,size=32,pool={pool}") for pool in ("mean", "cls"))
    torch.testing.assert_close(mean.tokens(SHOWN)[..., 0], SHOWN.flatten(1)[:, :16])
    assert (first.vector(SHOWN) == 7).all() and not (mean.vector(SHOWN) == 7).any()
    for wrong, expected in (
        ("python:my_encoder_a:number", "gives a int; it must give what takes images"),
        ("python:my_encoder_a:nothing", "can't be opened .AttributeError"),
        ("python:no_such_module:make", "can't be opened .ModuleNotFoundError"),
        ("python:my_encoder_a", "give package.module:function"),
    ):
        with pytest.raises(ValueError, match=expected):
            open_encoder(wrong)


def test_what_can_not_be_used_is_refused_with_a_remedy(tmp_path):
    torch.jit.script(nn.Conv2d(3, 2, 4)).save(tmp_path / "rgb.ts")
    (tmp_path / "broken.ts").write_bytes(b"no model")
    for spec, expected in (
        ("rad-dino", "an encoder is one of ours:..., timm:..., hf:"),
        ("hf:", "nothing after hf:"),
        ("torchscript:nowhere.ts", "nowhere.ts: no such file; check the path"),
        (f"torchscript:{tmp_path / 'broken.ts'}", "can't be opened .*check the name or give a local file"),
        (f"torchscript:{tmp_path / 'rgb.ts'}", "fails on an image of 224 x 224 px, 1 channel,.*give size=, channels="),
        (f"torchscript:{tmp_path / 'rgb.ts'},sizes=3", "'sizes=3' is no setting; there are size=, channels=, range="),
        (f"torchscript:{tmp_path / 'rgb.ts'},size=big", "size must be a number or numbers with / between, got 'big'"),
        (f"torchscript:{tmp_path / 'rgb.ts'},channels=3,pool=max", "pool must be mean or cls, got 'max'"),
        ("ours:nowhere", "nowhere: no such file, and no bundle of this name"),
    ):
        with pytest.raises(ValueError, match=expected):
            open_encoder(spec)
    with pytest.raises(ValueError, match="gives NaN or infinity; check its preprocessing: 32 x 32 px"):
        AnyEncoder("nan", lambda x: x.flatten(1) * float("nan"), Preprocessing((32, 32)))
    with pytest.raises(ValueError, match=r"gives shape \[1\] for 1 images; expected \[B, D\]"):
        AnyEncoder("flat", lambda x: x.sum(dim=(1, 2, 3)), Preprocessing((32, 32)))


@pytest.mark.parametrize(("kind", "library"), [("timm", "timm"), ("hf", "transformers"), ("xrv", "torchxrayvision")])
def test_a_missing_library_is_named_with_its_command(kind, library):
    if importlib.util.find_spec(library):
        pytest.skip(f"{library} is installed")
    with pytest.raises(ValueError, match=rf"{kind}:any: needs {library}; pip install .cxw-monai\[rivals\]."):
        open_encoder(f"{kind}:any")


def test_the_shipped_encoder_by_its_name():
    encoder = open_encoder("ours:chexworld_pretraining")
    assert (encoder.grid, encoder.size, encoder.dimensions) == ((10, 10), (160, 160), 192)
    shown = images(2, 1, 160, 160)
    assert encoder.vector(shown) == pytest.approx(encoder.tokens(shown).mean(dim=1).numpy())


NORMAL = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "do_rescale": True, "do_normalize": True}


@pytest.mark.parametrize("name", ["ViT", "Dinov2", "Dinov2WithRegisters"])
def test_a_hugging_face_model_of_a_folder(tmp_path, name):
    """Their size and normalisation are read; class and register tokens aren't among the patches."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, image_size=32, patch_size=8
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}Model")(config).eval()
    model.save_pretrained(tmp_path)
    processor = {
        **NORMAL,
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    encoder = open_encoder(f"hf:{tmp_path}")
    prepared = (SHOWN - torch.tensor(NORMAL["image_mean"]).view(3, 1, 1)) / torch.tensor(NORMAL["image_std"]).view(
        3, 1, 1
    )
    with torch.no_grad():
        expected = model(pixel_values=prepared).last_hidden_state
    before = 5 if name == "Dinov2WithRegisters" else 1
    torch.testing.assert_close(encoder.tokens(SHOWN), expected[:, before:])
    cls = open_encoder(f"hf:{tmp_path},pool=cls")
    torch.testing.assert_close(torch.from_numpy(cls.vector(SHOWN)), expected[:, 0])
    assert (encoder.size, encoder.grid) == ((32, 32), (4, 4))


def test_a_hugging_face_model_without_preprocessing_needs_it_stated(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48, image_size=32, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no preprocessor_config.json; give its preprocessing, such as size=224,mean="):
        open_encoder(f"hf:{tmp_path}")
    encoder = open_encoder(f"hf:{tmp_path},size=32,mean=0.5,std=0.25")
    assert encoder.preprocessing.stated() == "32 x 32 px, 3 channels, grey values 0 to 1, mean 0.5, std 0.25"
