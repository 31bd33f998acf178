"""Software bill of materials of a packaged bundle (CycloneDX 1.6, JSON); needs the extra `packaging`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["bill_of_materials", "bill_problems"]

_ROOT = "cxw-monai"


def bill_of_materials(metadata: Mapping[str, Any], name: str, hashes: Mapping[str, str]) -> str:
    """What a bundle is made of and runs on, as JSON.

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
    libraries = {one: _library(one) for one in edges}
    version = metadata["version"]
    bundle = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"{name}@{version}",
        name=name,
        version=version,
        description=metadata["description"],
        licenses=[DisjunctiveLicense(id="Apache-2.0")],
    )
    files = [_file(path, digest) for path, digest in hashes.items()]
    bill = Bom(components=[*files, *libraries.values()], metadata=BomMetaData(component=bundle))
    bill.register_dependency(bundle, [libraries[_ROOT]])
    for one, others in edges.items():
        bill.register_dependency(libraries[one], [libraries[other] for other in others])
    bill.metadata.timestamp = bill.serial_number = None  # type: ignore[assignment]
    return JsonV1Dot6(bill).output_as_string(indent=4) + "\n"


def bill_problems(text: str) -> list[str]:
    """What keeps a bill from being valid under the schema of CycloneDX 1.6."""
    try:
        found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    except ValueError as error:  # no JSON
        return [f"sbom.json: {error}"]
    return [] if found is None else [f"sbom.json: {' '.join(str(found).split())[:200]}"]


def _requirements(name: str) -> list[str]:
    """Names that an installed distribution requires here without an extra, whichever of them are installed."""
    wanted = [Requirement(line) for line in distribution(name).requires or ()]
    here = [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [canonicalize_name(one) for one in here if _installed(one)]


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _library(name: str) -> Component:
    metadata = distribution(name).metadata
    version = metadata["Version"]
    stated = (metadata["License-Expression"] or metadata["License"] or "").strip()
    named = stated and "\n" not in stated and len(stated) < 100  # some state the whole text
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=f"pkg:pypi/{name}@{version}",
        name=name,
        version=version,
        purl=PackageURL("pypi", name=name, version=version),
        licenses=[DisjunctiveLicense(name=stated)] if named else [],
    )


def _file(path: str, digest: str) -> Component:
    model = path.startswith("models/model.")
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL if model else ComponentType.FILE,
        bom_ref=path,
        name=path,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
