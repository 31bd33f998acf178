"""MkDocs hooks: pages that stand outside `docs/`, and links that work both in the repository and on the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = ("chexworld_pretraining", "chexworld_segmentation")
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


def on_files(files: Files, config) -> Files:
    """Adds the pages and linked files that stand outside `docs/`."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_read(source)))
    pages = [file.src_uri for file in files if file.src_uri.endswith(".md")]
    for place in sorted(set().union(*(_links(_source(page)) for page in pages))):
        if place.startswith("files/"):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / place.removeprefix("files/"))))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Points links that are relative to the repository's file to the page's place on the site."""
    here = page.file.src_uri
    if not here.endswith(".md"):
        return markdown

    def moved(match: re.Match[str]) -> str:
        if "://" in match[0]:
            return match[0]
        place = posixpath.relpath(_place(_source(here), match[1]), posixpath.dirname(here) or ".")
        return place + (match[2] or "")

    return _LINK.sub(moved, markdown)
