"""Software bill of materials of a packaged bundle (CycloneDX 1.6, JSON)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

__all__ = ["bill_of_materials"]

_ROOT = "cxw-monai"
_NAME = re.compile(r"^[A-Za-z0-9._-]+")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(name: str) -> list[str]:
    """Names that an installed distribution requires without an extra, whichever of them are installed."""
    lines = [line for line in distribution(name).requires or () if "extra ==" not in line.replace("'", '"')]
    return [_canonical(match[0]) for line in lines if (match := _NAME.match(line)) and _installed(match[0])]


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _library(name: str) -> dict[str, Any]:
    metadata = distribution(name).metadata
    version = metadata["Version"]
    component = {"type": "library", "bom-ref": f"pkg:pypi/{name}@{version}", "name": name, "version": version}
    component["purl"] = component["bom-ref"].replace("+", "%2B")
    stated = metadata["License-Expression"] or metadata["License"]
    if stated and "\n" not in stated.strip() and len(stated) < 100:
        component["licenses"] = [{"license": {"name": stated.strip()}}]
    return component


def bill_of_materials(metadata: Mapping[str, Any], name: str, hashes: Mapping[str, str]) -> dict[str, Any]:
    """What a bundle is made of and runs on.

    Libraries are those that ``cxw_monai`` requires, directly or through others, in the versions installed here, with
    which the package was made and verified. There is no time in it, so that the same package has the same bill.

    Args:
        metadata: the bundle's, for version, description and licence.
        name: the bundle's.
        hashes: SHA-256 of each of its files, by path in the bundle.

    Raises:
        PackageNotFoundError: ``cxw_monai`` runs without being installed.
    """
    edges: dict[str, list[str]] = {}
    waiting = [_ROOT]
    while waiting:
        if (one := waiting.pop()) not in edges:
            edges[one] = _requirements(one)
            waiting.extend(edges[one])
    libraries = {one: _library(one) for one in sorted(edges)}
    reference = f"{name}@{metadata['version']}"
    files = [
        {
            "type": "machine-learning-model" if path.startswith("models/model.") else "file",
            "bom-ref": path,
            "name": path,
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for path, digest in sorted(hashes.items())
    ]
    bundle = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": name,
        "version": metadata["version"],
        "description": metadata["description"],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    refs = {one: library["bom-ref"] for one, library in libraries.items()}
    graph = [{"ref": refs[one], "dependsOn": sorted({refs[each] for each in edges[one]})} for one in sorted(edges)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": bundle},
        "components": [*files, *libraries.values()],
        "dependencies": [{"ref": reference, "dependsOn": [refs[_ROOT]]}, *graph],
    }
