"""Regularisers that keep embeddings from collapsing, as terms of the loss.

Sources: SIGReg (LeJEPA, arXiv 2511.08544) pushes embeddings to an isotropic Gaussian by testing random one-dimensional
projections; the variance and covariance terms of VICReg (arXiv 2105.04906) are its special case of two moments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["REGULARISERS", "random_directions", "regulariser", "sigreg", "variance_covariance"]

REGULARISERS = ("none", "sigreg", "variance_covariance")
POINTS = 17  # of the trapezoid rule
LIMIT = 5.0
DIRECTIONS = 256
ROWS = 1024
VARIANCE_EPS = 1e-4


def random_directions(channels: int, count: int, like: Tensor) -> Tensor:
    """Fresh unit directions `[channels, count]` from torch's global generator, which checkpoints save."""
    return F.normalize(torch.randn(channels, count, device=like.device), dim=0)


def sigreg(embeddings: Tensor, directions: Tensor) -> Tensor:
    """Epps-Pulley statistic of the projections against the standard normal, averaged over directions.

    For each direction `N * integral of |ecf(t) - exp(-t^2 / 2)|^2 * exp(-t^2) dt` over [-5, 5] (trapezoids on 17
    points), with ecf the empirical characteristic function of the N projections. The integrand is even and 0 at t = 0,
    so that only the 8 points above 0 are computed. For samples of a standard normal its expectation is
    sqrt(pi) - sqrt(pi / 2) = 0.52 whatever N is; it is 0.13 N when all embeddings are 0.

    Args:
        embeddings: `[N, D]`.
        directions: `[D, M]`, unit columns.

    Returns:
        A scalar.
    """
    t = torch.linspace(-LIMIT, LIMIT, POINTS, device=embeddings.device)[POINTS // 2 + 1 :].view(-1, 1)  # [T, 1]
    weights = 4 * LIMIT / (POINTS - 1) * torch.exp(-t.square())  # both sides of 0
    weights[-1] /= 2
    angles = (embeddings.float() @ directions) * t.unsqueeze(-1)  # [T, N, M]
    real, imaginary = angles.cos().mean(dim=1), angles.sin().mean(dim=1)  # [T, M]
    distance = (real - torch.exp(-t.square() / 2)).square() + imaginary.square()
    return embeddings.shape[0] * (weights * distance).sum(dim=0).mean()


def variance_covariance(embeddings: Tensor) -> Tensor:
    """Hinge on the standard deviation of each channel below 1, plus the squared off-diagonal covariances over D.

    Args:
        embeddings: `[N, D]`, N at least 2.

    Returns:
        A scalar, 0 for uncorrelated channels of standard deviation 1 or more.
    """
    centred = embeddings.float() - embeddings.float().mean(dim=0)
    covariance = centred.T @ centred / (len(centred) - 1)  # [D, D]
    variance = covariance.diagonal()
    hinge = F.relu(1 - (variance + VARIANCE_EPS).sqrt()).mean()
    return hinge + (covariance.square().sum() - variance.square().sum()) / embeddings.shape[1]


def regulariser(name: str, tokens: Tensor) -> Tensor:
    """Mean of a regulariser over patch tokens (at most 1024 of them, evenly taken) and over images' mean tokens.

    Args:
        name: `sigreg` or `variance_covariance`.
        tokens: `[B, K, D]`.

    Returns:
        A scalar in float32.
    """
    flat = tokens.flatten(0, 1)
    flat = flat[:: math.ceil(len(flat) / ROWS)]
    pooled = tokens.mean(dim=1)
    with torch.autocast(tokens.device.type, enabled=False):
        if name == "variance_covariance":
            return (variance_covariance(flat) + variance_covariance(pooled)) / 2
        directions = random_directions(tokens.shape[-1], DIRECTIONS, tokens)
        return (sigreg(flat, directions) + sigreg(pooled, directions)) / 2
