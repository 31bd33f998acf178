"""Definitions of structures are the same wherever they are written down by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cxw_monai.io.structures import definitions, describe_structure

PROJECT = Path(__file__).resolve().parents[2]


def test_the_documented_definitions_and_codes_are_the_tables():
    text = (PROJECT / "docs" / "segmentation.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    found = {}
    for names, definition, _, code in rows:
        for name in re.findall(r"`(\w+)`", names):
            meaning = describe_structure(name)
            assert code == f"{meaning.type[2]}, {meaning.type[1]} {meaning.type[0]}"
            assert meaning.definition.startswith(definition[:-1]), name
            found[name] = definition
    assert set(found) == {
        *("lung_field_left", "lung_field_right", "lung_left", "lung_right"),
        *("heart", "mediastinum", "clavicle_left", "clavicle_right"),
    }


def test_the_bundles_metadata_define_its_channels():
    file = PROJECT / "bundles" / "chexworld_segmentation" / "configs" / "metadata.json"
    output = json.loads(file.read_text(encoding="utf-8"))["network_data_format"]["outputs"]["pred"]
    assert output["channel_definitions"] == definitions(list(output["channel_def"].values()))
