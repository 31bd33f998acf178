"""Weights that would answer wrongly, or fill the memory, are refused wherever weights are taken, by the file's name."""

import copy
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import cxw_monai
from cxw_monai.io.files.printable import printable
from cxw_monai.label.model import LabelModel
from cxw_monai.networks import RadiographEmbedder, radiograph_vit
from cxw_monai.weights.encoder import load_encoder, load_weights
from cxw_monai.weights.files import CheckpointError, build, read_content, state_dict_of
from cxw_monai.weights.official import import_official
from cxw_monai.weights.segmenter import load_segmenter, new_segmenter, read_settings, save_segmenter, segmenter_settings
from cxw_monai.weights.segmenter_settings import SegmenterSettings

FILM = np.random.default_rng(0).random((64, 64), dtype=np.float32)
WEIGHT = "blocks.3.attn.qkv.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict:
    """What a file of a tiny segmenter holds."""
    path = tmp_path_factory.mktemp("segmenter") / "model.pt"
    settings = segmenter_settings(["lungs", "heart"], [64, 64], "tiny", 16, "unet", 4)
    torch.manual_seed(0)
    save_segmenter(new_segmenter(settings), settings, path)
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def encoder(saved) -> dict[str, Tensor]:
    return {name: value for name, value in saved["model"].items() if name.startswith("encoder.")}


@pytest.fixture(scope="module")
def into() -> nn.Module:
    return radiograph_vit("tiny", image_size=64)


def train_from(path: Path) -> None:
    settings = segmenter_settings(["lungs"], 64, base_channels=4, encoder_ckpt=path)
    new_segmenter(settings, path)


SEGMENTERS: dict[str, Callable[[Path], object]] = {
    "API": cxw_monai.load,
    "inference's network": load_segmenter,
    "server": lambda path: LabelModel(path).structures,
}
ENCODERS: dict[str, Callable[[Path], object]] = {
    "API": cxw_monai.load,
    "embedding": load_encoder,
    "training's encoder_ckpt": train_from,
    "pretraining bundle's ckpt": lambda path: load_weights(radiograph_vit("tiny", image_size=64), path),
}
KINDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "NaN": (lambda w: torch.where(torch.arange(192) == 7, torch.nan, w), "holds 576 of 110592 values that are NaN"),
    "infinite": (lambda w: w / 0, "NaN or infinite"),
    "too large for float32": (lambda w: w.double() * 1e300, "NaN or infinite"),
    "whole numbers": (lambda w: w.long(), "holds int64 values, not floats"),
    "booleans": (lambda w: w > 0, "holds bool values, not floats"),
    "complex": (lambda w: w.to(torch.complex64), "holds complex64 values, not floats"),
    "8-bit floats": (lambda w: w.to(torch.float8_e4m3fn), "not floats"),
    "sparse": (lambda w: w.to_sparse(), "is not a plain tensor"),
    "without values": (lambda w: w.to("meta"), "is not a plain tensor"),
    "expanded": (lambda w: torch.zeros(1).expand(10**6, 10**6), "claims the shape .1000000, 1000000. with 4 bytes"),
    "empty": (lambda w: torch.zeros(0, 10**15), "is empty"),
}


def refused(read: Callable[[Path], object], path: Path, said: str) -> CheckpointError:
    with pytest.raises(CheckpointError, match=said) as raised:
        read(path)
    error, message = raised.value, str(raised.value)
    assert message == f"{error.path}: {error.reason}; {error.remedy}" and error.remedy
    assert error.path.name == path.name and len(message) < 1000 and message.isprintable()
    return error


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_are_no_weights(tmp_path, saved, kind):
    change, said = KINDS[kind]
    state = {f"encoder.{WEIGHT}": change(saved["model"][f"encoder.{WEIGHT}"].clone())}
    torch.save({"model": state, "settings": saved["settings"]}, tmp_path / "model.pt")
    torch.save(state, tmp_path / "encoder.pt")
    for read in SEGMENTERS.values():
        refused(read, tmp_path / "model.pt", said)
    for read in ENCODERS.values():
        refused(read, tmp_path / "encoder.pt", said)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision_are_taken(tmp_path, saved, dtype):
    content = copy.deepcopy(saved)
    content["model"] = {n: v.to(dtype) if v.is_floating_point() else v for n, v in saved["model"].items()}
    torch.save(content, tmp_path / "model.pt")
    torch.save(saved, tmp_path / "whole.pt")
    found, whole = (cxw_monai.load(tmp_path / name).probabilities(FILM)["heart"] for name in ("model.pt", "whole.pt"))
    assert found.dtype == np.float32 and np.abs(found - whole).max() < 0.05
    torch.save({n: v for n, v in content["model"].items() if n.startswith("encoder.")}, tmp_path / "encoder.pt")
    assert cxw_monai.load(tmp_path / "encoder.pt").image_size == (64, 64)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("decoder.coarsest.1.running_var", -1.0, "holds a negative variance"),
        ("encoder.image_std", 0.0, "holds a standard deviation of 0"),
    ],
)
def test_statistics_that_make_nan(tmp_path, saved, name, value, said):
    content = copy.deepcopy(saved)
    content["model"][name].fill_(value)
    torch.save(content, tmp_path / "model.pt")
    for read in SEGMENTERS.values():
        refused(read, tmp_path / "model.pt", said)


def test_finite_weights_with_answers_that_are_none(tmp_path, saved, encoder):
    """Each number is fine, their sums overflow: no empty mask, no vector of NaN."""
    content = copy.deepcopy(saved)
    content["model"][f"encoder.{WEIGHT}"].fill_(3e38)
    torch.save(content, tmp_path / "model.pt")
    refused(lambda path: cxw_monai.load(path).segment(FILM), tmp_path / "model.pt", "answers with NaN or infinite")
    refused(lambda path: cxw_monai.load(path).probabilities(FILM), tmp_path / "model.pt", "answers with NaN")
    torch.save({name: content["model"][name] for name in encoder}, tmp_path / "encoder.pt")
    refused(lambda path: cxw_monai.load(path).embed(FILM), tmp_path / "encoder.pt", "answers with NaN or infinite")


SETTINGS = [
    *(
        ("image_size", v)
        for v in ([-16, 64], [2**20, 2**20], [0, 64], [64], [64, 64, 64], "64", [64.0, 64], [True, 64])
    ),
    *(("image_size", v) for v in (64, None, [60, 64], [4096, 4096], ["64", "64"], [torch.tensor(64)] * 2)),
    *(("patch_size", v) for v in (0, -16, True, 2**20, 16.0, "16", None)),
    *(("in_channels", v) for v in (0, 10**6, True)),
    *(("base_channels", v) for v in (0, -4, 10**9, 2.5)),
    *(("size", v) for v in ("../tiny", ["tiny"], None, 3)),
    *(("decoder", v) for v in ("unet2", {"unet": 1}, 1)),
    *(("encoder_image_size", v) for v in ([2**20, 2**20], [64, -64], 64)),
    *(("pretrained_patch", v) for v in (0, True, 7)),
    *(
        ("structures", v)
        for v in ([], "lungs", None, 2, [1, 2], ["lungs", None], ["lungs", "lungs"], ["lungs", "Lungs"])
    ),
    *(
        ("structures", ["lungs", v])
        for v in ("../../../x", "a/b", "..", ".x", "a\\b", "a\nb", "\x1b[31m", "", " ", "-x")
    ),
    *(("structures", ["lungs", v]) for v in ("x" * 10**6, "a:b", "=1+1", "a\0", "\u202ex", "heart ")),
    ("structures", [f"s{number}" for number in range(300)]),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_settings_of_no_network(tmp_path, saved, name, value):
    content = {"settings": saved["settings"] | {name: value}, "model": {"any": torch.ones(1)}}
    torch.save(content, tmp_path / "model.pt")
    for read in (*SEGMENTERS.values(), read_settings):
        error = refused(read, tmp_path / "model.pt", "settings of no network: ")
        assert name in error.reason or name.removeprefix("pretrained_") in error.reason
    if not isinstance(value, list) or not any(isinstance(one, Tensor) for one in value):
        plain = {n: tuple(v) if isinstance(v, list) else v for n, v in content["settings"].items()}
        with pytest.raises(ValueError):  # and a training can't write such a file
            SegmenterSettings(**plain)


def test_names_of_any_script_are_taken():
    names = ["lung_left", "11-rib", "Lunge_links", "сердце", "肺"]
    assert segmenter_settings(names, 64, "tiny").structures == tuple(names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": "huge"}, "of another geometry .missing: encoder.blocks.12"),
        ({"base_channels": 1024}, "of another geometry .other shape: decoder"),
        ({"in_channels": 64}, "of another geometry .other shape: .*encoder.patch_embed.proj.weight .192, 1, 16, 16."),
        ({"structures": ["lungs"]}, "of another geometry .other shape: decoder.head"),
        ({"decoder": "linear"}, "of another geometry .unexpected: decoder.coarsest"),
        ({"patch_size": 8}, "of another geometry"),
        ({"patch_size": 4, "image_size": [64, 64]}, "settings make no network .*patches of 8 or 16 px"),
        (
            {"encoder_image_size": [2048, 2048]},
            "other shape: encoder.pos_embed .1, 16, 192. instead of .1, 16384, 192.",
        ),
        ({"encoder_image_size": [32, 128]}, "positions of 4 x 4 tokens, not of 2 x 8"),
        ({"pretrained_patch": 8}, "positions of 4 x 4 tokens of another pretraining's patch"),
    ],
)
def test_settings_of_another_network_than_the_tensors(tmp_path, saved, change, said):
    content = copy.deepcopy(saved)
    content["settings"] |= change
    torch.save(content, tmp_path / "model.pt")
    for read in SEGMENTERS.values():
        refused(read, tmp_path / "model.pt", said)


def test_a_network_is_made_only_for_tensors_that_fit_it():
    """Its outline takes no memory."""
    devices = []

    def make() -> nn.Module:
        devices.append(torch.empty(1).device.type)
        return nn.Linear(10**6, 10**6)

    with pytest.raises(CheckpointError, match="weight .2, 2. instead of .1000000, 1000000."):
        build(make, {"weight": torch.zeros(2, 2), "bias": torch.zeros(10**6)}, "model.pt")
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch_embed.proj.weight": torch.zeros(192)}, "a stem of shape .192,."),
        ({"patch_embed.proj.weight": torch.zeros(192, 1, 16, 8)}, "a stem of shape"),
        ({"patch_embed.proj.weight": torch.zeros(191, 1, 16, 16)}, "positions of shape .1, 16, 192. .* width 191"),
        ({"pos_embed": torch.zeros(16, 192)}, "positions of shape .16, 192."),
        ({"pos_embed": torch.zeros(1, 12000, 192)}, "learnt positions of 12000 tokens"),
        ({"pos_embed": torch.zeros(1, 17, 192)}, "learnt positions of 17 tokens"),
        ({"pos_embed": torch.zeros(1, 300**2, 192)}, "positions of 90000 patches"),
        ({"blocks.999999999.norm1.bias": torch.zeros(192)}, "width 192 and depth 13"),
        ({"\x1b[2Jblocks": torch.zeros(1)}, r"unexpected: \\x1b\[2Jblocks"),
        ({"x" * 10**6: torch.zeros(1)}, "unexpected: xxxx"),
        ({f"x{number}": torch.zeros(1) for number in range(1000)}, "unexpected: x0, x1, x10 and 997 more"),
    ],
)
def test_tensors_of_no_encoder(tmp_path, encoder, change, said):
    torch.save(encoder | {f"encoder.{name}": value for name, value in change.items()}, tmp_path / "encoder.pt")
    for read in (cxw_monai.load, load_encoder):
        refused(read, tmp_path / "encoder.pt", said)


def test_a_few_names_do_not_make_a_huge_network(tmp_path):
    """The names of 32 blocks and a stem of the right width are not 2.5 GB of weights."""
    state = {f"encoder.blocks.{number}.norm1.bias": torch.zeros(1) for number in range(32)}
    state |= {
        "encoder.patch_embed.proj.weight": torch.zeros(1280, 1, 1, 1),
        "encoder.pos_embed": torch.zeros(1, 4, 1280),
    }
    torch.save(state, tmp_path / "encoder.pt")
    refused(cxw_monai.load, tmp_path / "encoder.pt", "of another geometry .missing: blocks.0.attn.proj.bias")
    official = {name.removeprefix("encoder."): value for name, value in state.items()} | {
        "blocks.10000000000.norm1.bias": torch.zeros(1)
    }
    named = {f"{prefix}.{name}": value for prefix in ("encoder", "target_encoder") for name, value in official.items()}
    named |= {"predictor.predictor_pos_embed": torch.zeros(1, 4, 8), "predictor.mask_token": torch.zeros(1, 1, 8)}
    torch.save({"model": named}, tmp_path / "official.tar")
    refused(lambda path: import_official(path, tmp_path / "out"), tmp_path / "official.tar", "not an official world")


def test_a_grid_that_is_not_square_is_read_off_the_positions(tmp_path):
    """2 x 8 patches are as many as 4 x 4 and 8 x 2; nobody needs to say which."""
    torch.manual_seed(0)
    network = RadiographEmbedder(radiograph_vit("tiny", image_size=(32, 128))).eval()
    torch.save(network.state_dict(), tmp_path / "encoder.pt")
    film = np.random.default_rng(1).random((32, 128), dtype=np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(film)[None, None])[0].numpy()
    model = cxw_monai.load(tmp_path / "encoder.pt")
    assert model.image_size == (32, 128)
    np.testing.assert_allclose(model.embed(film), expected, atol=1e-5)
    settings = segmenter_settings(["lungs"], [128, 32], encoder_ckpt=tmp_path / "encoder.pt", base_channels=4)
    assert settings.encoder_image_size == (32, 128)
    for wrong in ((128, 32), (64, 64)):
        into = radiograph_vit("tiny", image_size=wrong)
        refused(lambda path, into=into: load_weights(into, path), tmp_path / "encoder.pt", "positions of 2 x 8 tokens")


def test_the_same_name_twice(tmp_path, encoder):
    name = f"encoder.{WEIGHT}"
    torch.save({f"module.{name}": encoder[name], **encoder}, tmp_path / "encoder.pt")
    refused(cxw_monai.load, tmp_path / "encoder.pt", "with and without 'module.'")


def test_a_zip_that_unpacks_to_more_than_it_is(tmp_path, saved):
    torch.save(saved, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "model.pt", "w") as bomb:
        for member in whole.infolist():
            bomb.writestr(member.filename, bytes(member.file_size), zipfile.ZIP_DEFLATED)
    for read in SEGMENTERS.values():
        refused(read, tmp_path / "model.pt", "not a readable checkpoint .[0-9]+ bytes in a file of")


def write_safetensors(path: Path, header: bytes, data: bytes = b"") -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.mark.parametrize(
    "header",
    [
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"a": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [18446744073709551615, 2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "X\\u001b[2J", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"__metadata__": {"settings": {"a": 1}}}',
        b"\xff\xfe" * 50,
    ],
)
def test_headers_of_safetensors(tmp_path, header):
    write_safetensors(tmp_path / "model.safetensors", header, bytes(4))
    for read in (cxw_monai.load, load_encoder):
        refused(read, tmp_path / "model.safetensors", "not a safetensors file|holds no encoder|not floats")


def test_safetensors_are_checked_as_others(tmp_path, saved):
    settings, state = copy.deepcopy(saved["settings"]), {n: v.contiguous() for n, v in saved["model"].items()}
    path, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    save_file(state, path, {"settings": "[" * 100_000})
    config.write_text(json.dumps({"settings": settings}))
    assert set(cxw_monai.load(path).segment(FILM)) == {"lungs", "heart"}
    for text in ("[" * 100_000, "{", "[]", '{"settings": NaN}', '{"settings": {"size": "tiny"}}', "\x00", "{}"):
        config.write_text(text)
        for read in SEGMENTERS.values():
            with pytest.raises(CheckpointError, match="config.json: no readable settings|not a segmentation"):
                read(path)
    config.write_text(json.dumps({"settings": settings | {"structures": ["../../../x", "heart"]}}))
    refused(cxw_monai.load, path, "structures must be named by")
    save_file(state | {"encoder.norm.bias": torch.full((192,), torch.nan)}, path)
    config.write_text(json.dumps({"settings": settings}))
    for read in SEGMENTERS.values():
        refused(read, path, "encoder.norm.bias holds 192 of 192 values that are NaN")


@pytest.mark.parametrize("size", ["160", [160], -16, 2**20, True, "$1+1", None, {"a": 1}, [160.0, 160]])
def test_a_bundles_image_size(tmp_path, encoder, size):
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    torch.save(encoder, tmp_path / "models" / "model.pt")
    (tmp_path / "configs" / "inference.json").write_text(json.dumps({"image_size": size}))
    with pytest.raises(CheckpointError, match="inference.json: no readable image_size .ValueError: image_size must be"):
        cxw_monai.load(tmp_path)
    for text in ("[" * 100_000, "[]", "{}", "{"):
        (tmp_path / "configs" / "inference.json").write_text(text)
        with pytest.raises(CheckpointError, match="inference.json: no readable image_size"):
            cxw_monai.load(tmp_path)


def test_what_is_wrong_in_a_zip_is_named_by_the_zip(tmp_path, saved):
    content = copy.deepcopy(saved)
    content["settings"]["patch_size"] = 0
    torch.save(content, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.writestr("segmenter/configs/metadata.json", "{}")
        archive.write(tmp_path / "model.pt", "segmenter/models/model.pt")
    with pytest.raises(CheckpointError, match="settings of no network") as raised:
        cxw_monai.load(tmp_path / "bundle.zip")
    assert raised.value.path == tmp_path / "bundle.zip" / "models" / "model.pt"


def test_names_of_files_are_shown_in_one_line():
    assert printable("a\x1b[31m\n\udc80b", 80) == "a\\x1b[31m\\n\\udc80b"
    assert printable("x" * 10**7, 5) == "xxxxx..."


def test_counters_stay_whole_numbers():
    state = {"norm.num_batches_tracked": torch.tensor(3), "norm.weight": torch.ones(2)}
    assert state_dict_of(state, "model.pt") == state
    with pytest.raises(CheckpointError, match="num_batches_tracked holds float8"):
        state_dict_of({"norm.num_batches_tracked": torch.ones(1).to(torch.float8_e5m2)}, "model.pt")


def test_a_bundle_without_weights_says_so(tmp_path):
    (tmp_path / "configs").mkdir()
    with pytest.raises(CheckpointError, match="this bundle holds no weights: name those of a training"):
        read_content(tmp_path / "models" / "model.pt")
    with pytest.raises(CheckpointError, match="check the path"):
        read_content(tmp_path / "model.pt")
