"""What a user can do about an error of the file system."""

from __future__ import annotations

import errno

__all__ = ["disk_message"]

_REMEDIES = {
    errno.ENOSPC: "free some disk",
    errno.EDQUOT: "free some of the quota",
    errno.EFBIG: "raise the limit of a file's size",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "give the permission, or choose another folder",
    errno.EPERM: "give the permission, or choose another folder",
    errno.EEXIST: "move the file that is in the place of the folder, or choose another folder",
    errno.ENOTDIR: "move the file that is in the place of the folder, or choose another folder",
    errno.ENOENT: "bring it back, or check the path",
}


def disk_message(error: OSError) -> str | None:
    """File, reason and remedy; None for an error that names no file, or of another kind."""
    if error.errno not in _REMEDIES or error.filename is None:
        return None
    return f"{error.filename}: {error.strerror}; {_REMEDIES[error.errno]}"
