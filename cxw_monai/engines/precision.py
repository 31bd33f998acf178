"""How exactly CUDA devices compute in float32."""

from __future__ import annotations

import torch

__all__ = ["allow_tf32"]


def allow_tf32(allowed: bool = True) -> None:
    """Let CUDA devices round the factors of float32 products and convolutions to TF32 (10 bits of mantissa), or not.

    It is several times faster there, and changes nothing on CPUs or under bfloat16 autocast.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
