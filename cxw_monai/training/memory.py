"""What the C library does with memory that training frees."""

from __future__ import annotations

import ctypes
import logging
import platform

__all__ = ["keep_freed_memory"]

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_INT = 2**31 - 1
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep what this process frees for what it asks for next.

    By default freed blocks go back to the kernel, which hands them out again page by page, each cleared and mapped
    anew: in every training step for activations and gradients. The process then holds its peak until it ends.

    Returns:
        Whether the C library took it: glibc only; elsewhere nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = bool(mallopt(_TRIM_THRESHOLD, _LARGEST_INT) and mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))
    logger.debug("glibc keeps freed memory: %s", kept)
    return kept
