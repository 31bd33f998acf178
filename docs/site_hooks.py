"""MkDocs hooks: pages that stand outside `docs/`, links that work both in the repository and on the site, settings."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from pydoc import locate

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = ("chexworld_pretraining", "chexworld_segmentation", "chexworld_classification", "chexworld_landmarks")
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
PAGES |= {f"bundles/{name}/docs/README.md": f"bundles/{name}.md" for name in BUNDLES}
PAGES |= {f"bundles/{name}/docs/model_card.md": f"bundles/{name}_model_card.md" for name in BUNDLES}
"""File of the repository -> page of the site."""
SOURCES = {page: source for source, page in PAGES.items()}

_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")


def _read(source: str) -> str:
    return (ROOT / source).read_text(encoding="utf-8")


def _source(page: str) -> str:
    """The repository's path of a page."""
    return SOURCES.get(page, f"docs/{page}")


def _place(source: str, link: str) -> str:
    """Where a link of a file leads on the site; what is neither page nor below `docs/` lies below `files/`."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if not (ROOT / target).is_file():
        raise PluginError(f"{source} links to {link}, but there is no file {target}")
    return PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else f"files/{target}")


def _links(source: str) -> set[str]:
    """The site's places of all relative links of a file."""
    links = (match[1] for match in _LINK.finditer(_read(source)))
    return {_place(source, link) for link in links if "://" not in link}


def settings_classes() -> Iterator[tuple[str, str, type]]:
    """Each bundle, the config of one of its commands, and the class of that command's settings."""
    for bundle in BUNDLES:
        for command in ("train", "evaluate", "inference"):
            config = json.loads(_read(f"bundles/{bundle}/configs/{command}.json"))
            name = config["settings"]["_target_"].rpartition(".")[0]
            found = locate(name)
            if not isinstance(found, type):
                raise PluginError(f"{bundle}, {command}.json: there is no class {name}")
            yield bundle, command, found


def _settings_page() -> Iterator[str]:
    """Every setting of the bundles, from the classes that check them."""
    yield "# Settings\n"
    yield "All settings of the bundles' commands, as the code checks them. Each can be given on the command line"
    yield "(`--NAME VALUE`, or `--set NAME=VALUE` of `cxw-monai`), or in a YAML file that follows in `--config_file`."
    yield "*Fixed* ones cannot change when a run resumes; changes of *logged* ones are named in the log.\n"
    shown: dict[str, set[str]] = {bundle: set() for bundle in BUNDLES}
    for bundle, command, settings in settings_classes():
        fields = {name: field for name, field in settings.model_fields.items() if name not in shown[bundle]}
        shown[bundle] |= set(fields)
        yield f"## {bundle.removeprefix('chexworld_').capitalize()}: {command}\n"
        yield "| setting | default | meaning | resume |\n| --- | --- | --- | --- |"
        for name, field in fields.items():
            default = "*from others*" if field.default_factory else f"`{json.dumps(field.default, default=str)}`"
            resume = (field.json_schema_extra or {}).get("resume", "")
            yield f"| `{name}` | {default} | {(field.description or '').replace('|', '&#124;')} | {resume} |"
        yield ""


def on_files(files: Files, config) -> Files:
    """Adds the pages and linked files that stand outside `docs/`."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_read(source)))
    files.append(File.generated(config, "settings.md", content="\n".join(_settings_page())))
    pages = [file.src_uri for file in files if file.src_uri.endswith(".md") and file.src_uri != "settings.md"]
    for place in sorted(set().union(*(_links(_source(page)) for page in pages))):
        if place.startswith("files/"):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / place.removeprefix("files/"))))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Points links that are relative to the repository's file to the page's place on the site."""
    here = page.file.src_uri
    if not here.endswith(".md") or here == "settings.md":
        return markdown

    def moved(match: re.Match[str]) -> str:
        if "://" in match[0]:
            return match[0]
        place = posixpath.relpath(_place(_source(here), match[1]), posixpath.dirname(here) or ".")
        return place + (match[2] or "")

    return _LINK.sub(moved, markdown)
