"""Whether a package is one: the checks of MONAI's model zoo, and that its models agree, on the zip as it is written.

The checks are facts of the zoo's rules: required files; the version in the changelog; the metadata's keys; the
properties of the training and the inference workflow; channels and types that the metadata state against the network;
an export by MONAI itself that torch.jit reads; no file over 25 MB, exports aside, that `large_files.yml` doesn't list.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from importlib import resources
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out
from monai.utils import optional_import
from PIL import Image

from cxw_monai.inference.api import load
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.weights.bundles import extract_bundle

from .contents import SUMS, file_hashes, read_metadata

__all__ = ["LARGEST_FILE", "REQUIRED_FILES", "verify_package"]

LARGEST_FILE = 25_000_000
"""Bytes, of what stands in a repository; a larger file must be listed in `large_files.yml`."""
EXPORTS = {"models/model.ts", "models/model.onnx"}
"""Made with the package, of 32-bit weights: twice as large as `model.pt` may be."""
REQUIRED_FILES = (
    "LICENSE",
    SUMS,
    "configs/inference.json",
    "configs/logging.conf",
    "configs/metadata.json",
    "configs/train.json",
    "docs/README.md",
    "docs/data_license.txt",
    "models/model.onnx",
    "models/model.pt",
    "models/model.ts",
    "sbom.json",
)
TOLERANCE = 1e-4
_SIDE, _FILMS = 96, 10  # px and number of the films that the workflows are made with

_logger = logging.getLogger(__name__)


def verify_package(archive: str | PathLike[str]) -> list[str]:
    """Unpack a package and check it.

    Args:
        archive: the zip. Its configs are executed: check only what you trust.

    Returns:
        What is wrong, a line each; nothing for a package that is whole.

    Raises:
        BundleError: it can't be unpacked.
    """
    problems: list[str] = []
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = extract_bundle(archive, folder)
        for check in (_files, _sizes, _sums, _metadata, _bill):
            problems += check(bundle)
        if problems:  # what follows executes the configs
            return problems
        for check in (_network, _export, _workflows, _exported_models):
            problems += _guarded(check, bundle)
    return problems


def _guarded(check: Callable[[Path], list[str]], bundle: Path) -> list[str]:
    """A check whose own failure is a problem: a config may raise anything."""
    try:
        return check(bundle)
    except Exception as error:
        cause = error.__cause__ or error
        return [f"{check.__name__.strip('_')}: {type(cause).__name__}: {' '.join(str(cause).split())[:300]}"]


def _files(bundle: Path) -> list[str]:
    return [f"{name}: missing" for name in REQUIRED_FILES if not (bundle / name).is_file()]


def _sizes(bundle: Path) -> list[str]:
    listed: set[str] = set(EXPORTS)
    if (large := bundle / "large_files.yml").is_file():
        listed |= {entry["path"] for entry in yaml.safe_load(large.read_text(encoding="utf-8"))["large_files"]}
    sizes = {path.relative_to(bundle).as_posix(): path.stat().st_size for path in bundle.rglob("*") if path.is_file()}
    return [
        f"{name}: {size} bytes, over {LARGEST_FILE}, and not in large_files.yml"
        for name, size in sorted(sizes.items())
        if size > LARGEST_FILE and name not in listed
    ]


def _sums(bundle: Path) -> list[str]:
    if not (bundle / SUMS).is_file():
        return []
    lines = (bundle / SUMS).read_text(encoding="utf-8").splitlines()
    stated = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = file_hashes(bundle)
    return [
        f"{name}: not what {SUMS} says"
        for name in sorted(stated.keys() | found.keys())
        if stated.get(name) != found.get(name)
    ]


def _metadata(bundle: Path) -> list[str]:
    if not (bundle / "configs" / "metadata.json").is_file():
        return []
    jsonschema, _ = optional_import("jsonschema")
    metadata = read_metadata(bundle)
    schema = json.loads(resources.files(__package__).joinpath("metadata_schema.json").read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(metadata)
    problems = [f"configs/metadata.json: {'/'.join(map(str, error.path))}: {error.message[:200]}" for error in errors]
    if metadata["version"] not in metadata.get("changelog", {}):
        problems.append(f"configs/metadata.json: version {metadata['version']} is not in the changelog")
    return problems


def _bill(bundle: Path) -> list[str]:
    from .sbom import bill_problems  # only here: it needs the extra `packaging`

    bill = bundle / "sbom.json"
    return bill_problems(bill.read_text(encoding="utf-8")) if bill.is_file() else []


def _arguments(bundle: Path) -> dict[str, Any]:
    configs = bundle / "configs"
    paths = {"config_file": str(configs / "inference.json"), "meta_file": str(configs / "metadata.json")}
    return {**paths, "net_id": "network_def", "bundle_root": str(bundle)}


def _network(bundle: Path) -> list[str]:
    verify_net_in_out(**_arguments(bundle), device="cpu", n=4)
    return []


def _export(bundle: Path) -> list[str]:
    weights = bundle / "models" / "model.pt"
    key = load(bundle).STATE_KEY
    with TemporaryDirectory() as folder:
        script = str(Path(folder) / "model.ts")
        ckpt_export(**_arguments(bundle), filepath=script, ckpt_file=str(weights), key_in_ckpt=key)
        torch.jit.load(script, map_location="cpu")
    return []


def _workflows(bundle: Path) -> list[str]:
    """Both workflows are made, with a few films of noise, and asked for the properties that MONAI requires."""
    problems = []
    with TemporaryDirectory() as folder:
        data = _noise(Path(folder) / "data", json.loads((bundle / "configs" / "train.json").read_text()))
        small: dict[str, Any] = {"image_size": _SIDE, "cache_size": _SIDE, "batch_size": 2, "val_fraction": 0.3}
        for kind, config, own in (("train", "train.json", small), ("infer", "inference.json", {})):
            known = json.loads((bundle / "configs" / config).read_text(encoding="utf-8"))
            places = {"output_dir": f"{folder}/{kind}", "input": str(data), "output": f"{folder}/found"}
            workflow = ConfigWorkflow(
                config_file=str(bundle / "configs" / config),
                meta_file=str(bundle / "configs" / "metadata.json"),
                logging_file=False,
                workflow_type=kind,
                bundle_root=str(bundle),
                dataset_dir=str(data),
                device=torch.device("cpu"),
                num_workers=1,
                **own,
                **{name: place for name, place in places.items() if name in known},
            )
            workflow.initialize()
            missing = set(workflow.check_properties() or ()) - {"val_preprocessing"}  # views are shared with training
            problems += [f"configs/{config}: no property {name}" for name in sorted(missing)]
    return problems


def _noise(folder: Path, train: dict[str, Any]) -> Path:
    """Films of seeded noise with a manifest, with masks, labels or landmarks of what the training config names."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    structures = train.get("structures", [])
    if structures:
        mask = Image.new("L", (_SIDE, _SIDE))
        mask.paste(255, (20, 20, 60, 60))
        mask.save(folder / "mask.png")
    rows: list[dict[str, Any]] = []
    for number in range(_FILMS):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(folder / f"film{number}.png")
        masks = {f"mask_{name}": "mask.png" for name in structures}
        labels = {f"label_{name}": (number + place) % 2 for place, name in enumerate(train.get("classes", []))}
        points = {f"landmark_{name}": f"[{20 + number}, 40]" for name in ("first", "second") if "points" in train}
        rows.append({"image": f"film{number}.png", "patient_id": str(number), **masks, **labels, **points})
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        write_rows(stream, list(rows[0]), rows)
    return folder


def _exported_models(bundle: Path) -> list[str]:
    """TorchScript and ONNX against the package's own answer, on two films of noise."""
    onnxruntime, _ = optional_import("onnxruntime")
    model = load(bundle, amp="none")
    films = np.random.default_rng(0).random((2, 1, 130, 110), dtype=np.float32)
    expected = np.stack([model.answer(film) for film in films])
    script = torch.jit.load(str(bundle / "models" / "model.ts"), map_location="cpu").eval()
    with torch.inference_mode():
        found = {"models/model.ts": script(torch.from_numpy(films)).numpy()}
    session = onnxruntime.InferenceSession(str(bundle / "models" / "model.onnx"), providers=["CPUExecutionProvider"])
    found["models/model.onnx"] = session.run(None, {"image": films})[0]
    off = {name: float(np.abs(one - expected).max()) for name, one in found.items()}
    _logger.info("Largest differences to the package's own answer: %s", off)
    return [f"{name}: differs by {most:.2g} from model.pt" for name, most in off.items() if not most <= TOLERANCE]
