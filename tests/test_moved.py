"""Import paths of version 0.1: each gives the module of the new path itself, with a warning that names it."""

import importlib
import subprocess
import sys

import pytest

from cxw_monai._moved import MOVED, new_name


@pytest.mark.parametrize("old", [name for name in MOVED if not name.startswith("cxw_monai.label")])
def test_an_old_path_is_the_new_module(old):
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=f"{old} is {MOVED[old]} since"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MOVED[old])
    assert module.__name__ == module.__spec__.name == MOVED[old]


def test_what_lies_below_a_package_moved_with_it():
    assert new_name("cxw_monai.data.drr.render") == "cxw_monai.rendering.render"
    with pytest.warns(FutureWarning):
        from cxw_monai.data.public.registry import datasets as old
    from cxw_monai.datasets.registry import datasets as new

    assert old is new


def test_paths_that_did_not_move_do_not_warn():
    assert new_name("cxw_monai.networks.vit") is None
    code = "import cxw_monai.networks.vit, cxw_monai.io.radiograph, cxw_monai.training"
    done = subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="cxw_monai.engines.nothing"):
        importlib.import_module("cxw_monai.engines.nothing")


def test_an_old_path_runs_as_a_command():
    arguments = [sys.executable, "-m", "cxw_monai.bundle_files", "chexworld_segmentation"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().endswith("chexworld_segmentation")
    assert "FutureWarning: cxw_monai.bundle_files is cxw_monai.weights.bundles since version 0.2" in done.stderr


def test_an_old_name_is_the_new_one():
    from cxw_monai.data import manifest, schema

    with pytest.warns(FutureWarning, match="read_records is cxw_monai.data.manifest.read_records since version 0.2"):
        assert schema.read_records is manifest.read_records
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        schema.nothing  # noqa: B018
