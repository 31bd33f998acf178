"""Masks beside a cache: kept packed, and as wary of what was planted or altered as the films' own store."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data import mask_store
from cxw_monai.data.cache import CacheError
from cxw_monai.data.manifest import find_images
from cxw_monai.tasks.segmentation.dataset import annotated_films
from tests.helpers.caches import FILES, file_of


@pytest.fixture
def masked(radiograph_folder, tmp_path):
    """Two films with a mask of the heart each."""
    items = find_images(radiograph_folder)[:2]
    for number, item in enumerate(items):
        mask = np.zeros(np.asarray(Image.open(item["image"])).shape, np.uint8)
        mask[10:30, 5 : 20 + number] = 255
        Image.fromarray(mask).save(tmp_path / f"mask{number}.png")
        item["masks"] = {"heart": [str(tmp_path / f"mask{number}.png")]}
    return lambda: annotated_films(items, ["heart"], tmp_path / "c", progress=False)


def flip(path, at):
    """One bit turned over."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_masks_are_kept_packed_and_opened_in_other_processes(masked):
    folder = masked().masks.folder
    before = (folder / "pixels.bin").stat()
    again = pickle.loads(pickle.dumps(masked()))
    assert (folder / "pixels.bin").stat().st_mtime_ns == before.st_mtime_ns and before.st_mode & 0o777 == 0o644
    assert [int(again.label(n).sum()) for n in (0, 1)] == [20 * 15, 20 * 16]
    assert again.known(0).tolist() == [True] and again.spacing_mm(0) is None


def test_masks_and_films_are_stores_of_one_kind(masked):
    films = masked()
    for each in (films.cache, films.masks):
        assert {path.name.split("-")[0] for path in each.folder.iterdir() if "masks" not in path.name} == set(FILES)
        each.verify()
    assert films.masks.folder.parent == films.cache.folder


@pytest.mark.parametrize("name", ["pixels.bin", "meta.jsonl"])
def test_altered_masks_are_reported_at_first_use_and_packed_again(masked, name, monkeypatch):
    films = masked()
    folder, places = films.masks.folder, films.masks._places
    flip(folder / name, int(places[1]["offset" if name == "pixels.bin" else "meta"]) + 5)
    films = masked()
    assert films.label(0).sum() == 300
    for use in (films.label, films.known):
        with pytest.raises(
            CacheError, match=r"the stored mask of .*film_01\.png is damaged; delete .*/index\.json and run"
        ):
            use(1)
    with pytest.raises(CacheError, match=r"1 of 2 stored masks are damaged \(.*film_01\.png\)"):
        films.masks.verify()
    (folder / "index.json").unlink()  # the remedy
    read, names = mask_store.read_mask, []
    monkeypatch.setattr(mask_store, "read_mask", lambda path, size: names.append(path) or read(path, size))
    assert masked().label(1).sum() == 320
    assert [os.path.basename(path) for path in names] == ["mask1.png"]


@pytest.mark.parametrize("name", ["pixels.bin", "meta.jsonl", "images.bin", "index.json"])
def test_masks_of_another_size_are_packed_again_with_a_warning(masked, name, caplog):
    path = masked().masks.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    assert [masked().label(n).sum() for n in (0, 1)] == [300, 320]
    assert "packing again what is damaged" in caplog.text


@pytest.mark.parametrize("name", ["pixels.bin", "meta.jsonl", "images.bin", "items"])
def test_links_in_the_place_of_masks_are_neither_read_nor_written(masked, victim, tmp_path, name):
    path = file_of(masked().masks, name)
    copy = path.rename(tmp_path / "copy")
    for target in (copy, victim):
        path.symlink_to(target)
        with pytest.raises(CacheError, match=rf"{path.name}: is a link"):
            masked()
        path.unlink()
    assert masked().label(0).sum() == 300


def test_a_link_in_the_place_of_the_masks_folder_is_refused(masked, victim):
    folder = masked().masks.folder
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(victim.parent)
    with pytest.raises(CacheError, match=r"masks-\w+: is a link, or no folder"):
        masked()


def test_packing_that_was_killed_is_resumed(masked, monkeypatch):
    read, calls = mask_store.read_mask, []

    def killed_at_second(path, size):
        calls.append(os.path.basename(path))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read(path, size)

    monkeypatch.setattr(mask_store, "read_mask", killed_at_second)
    with pytest.raises(KeyboardInterrupt):
        masked()
    assert masked().label(0).sum() == 300
    assert calls == ["mask0.png", "mask1.png", "mask1.png"]


def test_masks_packed_by_version_0_1_are_packed_again_with_one_line(masked, caplog):
    caplog.set_level("INFO")
    films = masked()
    for path in films.masks.folder.iterdir():
        path.unlink()
    films.masks.folder.rmdir()
    (films.cache.folder / "masks-0123.bin").write_bytes(b"old")
    caplog.clear()
    assert masked().label(0).sum() == 300
    (told,) = [message for message in caplog.messages if "packing" in message]
    assert "the masks of 2 films; masks-*.bin of version 0.1 there aren't used any more" in told
