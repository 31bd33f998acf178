"""Search by example: an index of films on disk, neighbours of a film or of a region, copies of films, and scores."""

from .build import build_index, merge_index
from .index import DamagedIndexError, FilmIndex
from .search import ExactSearch, Neighbours, Search

__all__ = ["DamagedIndexError", "ExactSearch", "FilmIndex", "Neighbours", "Search", "build_index", "merge_index"]
