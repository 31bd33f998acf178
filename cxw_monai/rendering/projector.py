"""Ray-sampling projector: line integrals of voxel volumes along the rays of a cone beam.

Every ray is sampled at equally spaced depths; each sample is a trilinear mean of 8 voxels. A whole ray is therefore a
weighted sum of rows of a table ``[voxels, channels]``, which ``embedding_bag`` computes in one pass for any number of
channels on CPU and CUDA. For ray sampling of DRRs see Gopalakrishnan & Golland, "Fast Auto-Differentiable Digitally
Reconstructed Radiographs", CLIP 2022, https://arxiv.org/abs/2208.12737.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from .geometry import ConeBeam

__all__ = ["project_volumes"]

_LATTICE_MM = 10.0  # spacing at which the (smooth) mapping of room to voxels is evaluated exactly
_SAMPLES_PER_CHUNK = 1_000_000


@torch.no_grad()
def project_volumes(
    volumes: Sequence[torch.Tensor],
    beam: ConeBeam,
    to_index: Callable[[np.ndarray], np.ndarray],
    depth_range: tuple[float, float],
    step_mm: float = 2.0,
) -> torch.Tensor:
    """Integrates volumes along all rays of a cone beam.

    Outside the grid the nearest voxel counts (edge replication): give the volume faces of zeros where it ends in air.

    Args:
        volumes: tensors ``[D0, D1, D2, C_i]`` (float32, contiguous) on one grid and one device. Fastest when rays
            cross D0 least, that is with slices from foot to head first.
        beam: the geometry.
        to_index: maps room points ``[..., 3]`` in mm to indices ``[..., 3]`` along (D0, D1, D2); smooth, since it
            is interpolated linearly between points about 10 mm apart (exact for affine maps).
        depth_range: first and last depth in mm along the beam axis (0 at the isocentre) that is integrated.
        step_mm: largest distance of samples along the beam axis.

    Returns:
        ``[sum C_i, height, width]`` on the volumes' device: values times mm along the ray.

    Raises:
        ValueError: if the volumes differ in grid, or the depth range or the step is empty.
    """
    shape = tuple(volumes[0].shape[:3])
    if any(v.ndim != 4 or tuple(v.shape[:3]) != shape for v in volumes):
        raise ValueError(f"volumes must be [D0, D1, D2, C] on one grid, got {[tuple(v.shape) for v in volumes]}")
    if step_mm <= 0 or depth_range[1] <= depth_range[0]:
        raise ValueError(f"need step_mm > 0 and a rising depth_range, got {step_mm} and {depth_range}")
    device = volumes[0].device
    samples = max(2, int(np.ceil((depth_range[1] - depth_range[0]) / step_mm)))
    step = (depth_range[1] - depth_range[0]) / samples
    depths = depth_range[0] + step * (np.arange(samples) + 0.5)
    lattice = _index_lattice(beam, to_index, depths).to(device)  # [3, h, w, k]
    blend = _blend_rows(beam.height, lattice.shape[1]).to(device)  # [H, h]
    rows_per_chunk = max(1, _SAMPLES_PER_CHUNK // (beam.width * samples))
    chunks = []
    for first in range(0, beam.height, rows_per_chunk):
        rows = torch.einsum("rh,chwk->crwk", blend[first : first + rows_per_chunk], lattice).contiguous()
        index = functional.interpolate(rows, size=(beam.width, samples), mode="bilinear", align_corners=True)
        voxels, weights = _trilinear(index, shape)  # [R * W, 8 * K] each
        sums = [
            functional.embedding_bag(voxels, v.flatten(0, 2), per_sample_weights=weights, mode="sum") for v in volumes
        ]
        chunks.append(torch.cat(sums, dim=1))  # [R * W, C]
    length = torch.as_tensor(beam.obliquity() * step, dtype=torch.float32, device=device)
    return torch.cat(chunks).T.reshape(-1, beam.height, beam.width) * length


def _index_lattice(beam: ConeBeam, to_index: Callable[[np.ndarray], np.ndarray], depths: np.ndarray) -> torch.Tensor:
    """Voxel indices at a coarse lattice of pixels and depths: ``[3, h, w, k]``."""
    pixel = beam.pitch_mm / beam.magnification
    rows, columns = (
        np.linspace(0, n - 1, max(2, int(np.ceil(n * pixel / _LATTICE_MM)) + 1)) for n in (beam.height, beam.width)
    )
    count = max(2, int(np.ceil((depths[-1] - depths[0]) / _LATTICE_MM)) + 1)
    points = beam.points(rows, columns, np.linspace(depths[0], depths[-1], count))
    return torch.as_tensor(np.moveaxis(to_index(points), -1, 0).copy(), dtype=torch.float32)


def _blend_rows(rows: int, nodes: int) -> torch.Tensor:
    """Weights ``[rows, nodes]`` of linear interpolation between equally spaced nodes."""
    position = torch.linspace(0, nodes - 1, rows, dtype=torch.float64)
    return (1 - (position[:, None] - torch.arange(nodes)).abs()).clamp(min=0).float()


def _trilinear(index: torch.Tensor, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat voxel numbers and weights of the 8 neighbours of points ``[3, R, W, K]``; both ``[R * W, 8 * K]``."""
    index = index.flatten(1, 2)  # [3, R * W, K]
    lows, highs = [], []
    base = torch.zeros(index.shape[1:], dtype=torch.int32, device=index.device)
    for axis, size in enumerate(shape):
        position = index[axis].clamp(0, size - 1)
        low = position.floor().clamp_(max=size - 2)
        highs.append(position.sub_(low))
        lows.append(1 - highs[-1])
        base.mul_(size).add_(low.int())
    y, x = shape[1] * shape[2], shape[2]
    voxels = torch.empty((base.shape[0], 8, base.shape[1]), dtype=torch.int32, device=index.device)
    weights = torch.empty(voxels.shape, dtype=torch.float32, device=index.device)
    for i, first in enumerate((lows[0], highs[0])):
        for j, second in enumerate((lows[1], highs[1])):
            plane = first * second
            for k, third in enumerate((lows[2], highs[2])):
                corner = 4 * i + 2 * j + k
                torch.mul(plane, third, out=weights[:, corner])
                torch.add(base, y * i + x * j + k, out=voxels[:, corner])
    return voxels.flatten(1), weights.flatten(1)
