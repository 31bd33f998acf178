"""Fixtures of the tests of caches."""

import pytest

SECRET = b"not yours\n" * 20


@pytest.fixture
def victim(tmp_path):
    """A file that nobody may touch; checked at the end."""
    path = tmp_path / "home" / "thesis.txt"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    yield path
    assert path.read_bytes() == SECRET
    assert sorted(path.parent.iterdir()) == [path]
