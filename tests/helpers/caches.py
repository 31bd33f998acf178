"""The files of a cache of films or masks."""

FILES = ("pixels.bin", "meta.jsonl", "images.bin", "index.json", "items")


def file_of(cache, name):
    """The path of one of these files."""
    return next(cache.folder.glob("items-*")) if name == "items" else cache.folder / name
