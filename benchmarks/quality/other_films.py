"""Pictures that are no frontal chest films, made up to calibrate with: there are few real ones that may be shared.

Three kinds, all of 128 x 128 px. *Rendered*: a chest CT from the side, obliquely, from above, or a part of it.
*Drawn*: limbs, hands, skulls, rows of teeth, pelves, from tubes and shells whose thickness is taken for attenuation,
besides text, test patterns and noise. *Altered*: parts, halves, rearranged tiles and scrambled waves of chest films,
and whole ones that are turned by 27 to 63 degrees from any upright position. They are caricatures: a model must be
tried on real films of other anatomies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch.nn import functional as F

__all__ = ["KINDS_RENDERED", "SIDE", "SUBJECTS", "altered", "cut", "drawn", "frontal", "rendered", "tilted"]

SIDE = 128
_ROWS, _COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
_STEPS = 64  # samples of a ray
Point = tuple[float, float]


def frontal(density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A chest CT from the front or the back, as in :func:`rendered`: a film that *is* one."""
    angles = rng.normal(0, [4, 4, 3])
    return _render(density, angles, rng.uniform(0.62, 0.85), rng.uniform(-0.08, 0.08, 3), rng)


def rendered(density: np.ndarray, rng: np.random.Generator, kind: str) -> np.ndarray:
    """A chest CT from the side, obliquely, from above, or a part of it from anywhere.

    Args:
        density: ``[X, Y, Z]``, attenuation over that of water, axes towards right, front and head, isotropic.
        rng: source of randomness.
        kind: one of :data:`KINDS_RENDERED`.

    Returns:
        float32 ``[128, 128]`` in [0, 1], bone bright.
    """
    turn, tilt, roll = rng.uniform(-180, 180), rng.normal(0, 8), rng.normal(0, 6)
    if rng.random() < 0.5:
        density = np.where(density > 1.15, 1.15 + (density - 1.15) * rng.uniform(0.6, 1.6), density)  # bone
    if kind == "lateral":
        turn = rng.choice([-90, 90]) + rng.uniform(-25, 25)
    if kind == "oblique":
        turn = rng.choice([-1, 1]) * rng.uniform(35, 65) + rng.choice([0, 180])
    if kind == "above":
        tilt = rng.choice([-90, 90]) + rng.uniform(-35, 35)
    if kind != "part":
        return _render(density, (turn, tilt, roll), rng.uniform(0.5, 0.95), rng.uniform(-0.15, 0.15, 3), rng)
    zoom = rng.uniform(0.15, 0.4)
    return _render(density, (turn, tilt, rng.uniform(-180, 180)), zoom, rng.uniform(-0.6, 0.6, 3), rng, depth=zoom)


KINDS_RENDERED = ("lateral", "oblique", "above", "part")


def _render(
    density: np.ndarray,
    angles: np.ndarray | tuple[float, float, float],
    scale: float,
    shift: np.ndarray,
    rng: np.random.Generator,
    depth: float = 1.2,
) -> np.ndarray:
    """Parallel projection along y after turning by degrees about z, x and y, of ``scale`` of the largest extent."""
    about_z, about_x, about_y = (_rotation(axis, angle) for axis, angle in zip((2, 0, 1), angles, strict=True))
    turn = torch.tensor(about_z @ about_x @ about_y, dtype=torch.float32)
    extent = max(density.shape)
    x = torch.linspace(-scale, scale, SIDE)  # to the patient's right
    z = torch.linspace(scale, -scale, SIDE)  # downwards
    y = torch.linspace(-depth, depth, _STEPS)
    grid = torch.stack(torch.meshgrid(y, z, -x, indexing="ij"), dim=-1)[..., [2, 0, 1]]  # [y, z, x, (x, y, z)]
    points = (grid @ turn.T + torch.tensor(shift, dtype=torch.float32)) * extent
    points = points / torch.tensor(density.shape, dtype=torch.float32)
    volume = torch.from_numpy(np.ascontiguousarray(density.transpose(2, 1, 0)))[None, None]  # [1, 1, Z, Y, X]
    paths = F.grid_sample(volume, points[None], align_corners=False)[0, 0].mean(0).numpy() * depth
    return exposed(paths, rng)


def _rotation(axis: int, degrees: float) -> np.ndarray:
    """Rotation about one of the axes, ``[3, 3]``."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = c
    matrix[first, second], matrix[second, first] = -s, s
    return matrix


def exposed(paths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A film ``[H, W]`` of attenuation: its display, noise, blur, collimation and markers are drawn."""
    paths = ndimage.gaussian_filter(paths, rng.uniform(0, 1.2)) * (1 + rng.uniform(0, 0.06) * _waves(rng, 1.5))
    body = paths[paths > 0.02 * paths.max()] if (paths > 0).any() else paths
    if rng.random() < 0.5:
        low, high = np.percentile(body, (rng.uniform(0, 10), rng.uniform(97, 100)))
        film = (paths - low) / max(float(high - low), 1e-6)
    else:
        film = 1 - np.exp(-paths * rng.uniform(0.7, 3) / max(float(np.percentile(body, 80)), 1e-6))
    film = np.clip(film, 0, 1) ** np.exp(rng.normal(0, 0.3))
    film = film + rng.normal(0, rng.uniform(0, 0.03), film.shape)
    film = np.clip(film, 0, 1).astype(np.float32)
    if rng.random() < 0.3:
        edges = (rng.uniform(0, 0.2, 4) * SIDE).astype(int)
        outside = np.ones(film.shape, dtype=bool)
        outside[edges[0] : SIDE - edges[1], edges[2] : SIDE - edges[3]] = False
        film[outside] = rng.choice([0, 1])
    return film


def drawn(rng: np.random.Generator, subject: str | None = None) -> np.ndarray:
    """A film of one of :data:`SUBJECTS`, any of them by default.

    Returns:
        float32 ``[128, 128]``; a third of them with bone dark.
    """
    film = SUBJECTS[subject or list(SUBJECTS)[rng.integers(len(SUBJECTS))]](rng)
    film = np.rot90(film, rng.integers(4)) if rng.random() < 0.3 else film
    return np.ascontiguousarray(1 - film if rng.random() < 0.35 else film, dtype=np.float32)


def _tube(start: Point, end: Point, first: float, last: float) -> np.ndarray:
    """Thickness ``[128, 128]`` of a round tube between two points (row, column) in px, of radii at its ends."""
    (r0, c0), (r1, c1) = start, end
    length = max((r1 - r0) ** 2 + (c1 - c0) ** 2, 1e-3)
    along = np.clip(((_ROWS - r0) * (r1 - r0) + (_COLUMNS - c0) * (c1 - c0)) / length, 0, 1)
    off = (_ROWS - r0 - along * (r1 - r0)) ** 2 + (_COLUMNS - c0 - along * (c1 - c0)) ** 2
    return 2 * np.sqrt(np.maximum((first + along * (last - first)) ** 2 - off, 0))


def _ellipsoid(centre: Point, radii: Point, angle: float = 0.0) -> np.ndarray:
    """Thickness of an ellipsoid, its depth the smaller of its radii (px)."""
    down, right = _ROWS - centre[0], _COLUMNS - centre[1]
    c, s = np.cos(angle), np.sin(angle)
    off = ((c * down - s * right) / radii[0]) ** 2 + ((s * down + c * right) / radii[1]) ** 2
    return 2 * min(radii) * np.sqrt(np.maximum(1 - off, 0))


def _bone(start: Point, end: Point, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A long bone: a hollow shaft between two thicker ends."""
    waist = radius * rng.uniform(0.55, 0.85)
    shaft = _tube(start, end, waist, waist) - rng.uniform(0.5, 0.9) * _tube(start, end, waist * 0.6, waist * 0.6)
    ends = np.maximum(_ellipsoid(start, (radius, radius)), _ellipsoid(end, (radius, radius)))
    return np.maximum(shaft, 0.6 * ends)


def _limb(rng: np.random.Generator) -> np.ndarray:
    """One or two limbs, of one or two bones that meet in a joint."""
    paths = np.zeros((SIDE, SIDE), dtype=np.float32)
    for centre in [38.0, 90.0] if rng.random() < 0.3 else [rng.uniform(40, 88)]:
        wide = rng.uniform(12, 34)
        lean, joint = rng.uniform(-25, 25), rng.uniform(-10, 138)
        top, bottom = (-15.0, centre - lean), (143.0, centre + lean * rng.uniform(-1, 1))
        middle = (joint, centre + rng.uniform(-8, 8))
        soft = np.maximum(
            _tube(top, middle, wide * rng.uniform(0.8, 1.3), wide),
            _tube(middle, bottom, wide, wide * rng.uniform(0.5, 1.2)),
        )
        paths = np.maximum(paths, soft)
        for start, end in ((top, middle), (middle, bottom)):
            for offset in [0.0] if rng.random() < 0.5 else [-0.4 * wide, 0.35 * wide]:
                a, b = (start[0], start[1] + offset), (end[0], end[1] + offset)
                paths = paths + rng.uniform(1.5, 4) * _bone(a, b, wide * rng.uniform(0.2, 0.5), rng)
    return exposed(paths, rng)


def _hand(rng: np.random.Generator) -> np.ndarray:
    """A palm with fingers (or a foot with toes), of a few bones each; once or twice."""
    paths = np.zeros((SIDE, SIDE), dtype=np.float32)
    for origin in [(rng.uniform(80, 120), 64.0)] if rng.random() < 0.7 else [(100.0, 34.0), (100.0, 94.0)]:
        scale = rng.uniform(0.7, 1.3) if origin[1] == 64 else 0.6
        soft, bones = _tube(origin, (origin[0] + 60, origin[1]), 22 * scale, 15 * scale), 0.0
        spread = rng.uniform(0.15, 0.4)
        for finger in range(int(rng.integers(3, 6))):
            angle, place = (finger - 2) * spread + rng.normal(0, 0.05), np.array(origin, dtype=float)
            for length, radius in zip(np.array([34, 20, 13, 9]) * scale, np.array([7, 6, 5, 4]) * scale, strict=True):
                tip = place + length * np.array([-np.cos(angle), np.sin(angle)])
                soft = np.maximum(soft, _tube(tuple(place), tuple(tip), radius * 1.4, radius * 1.3))
                bones = np.maximum(bones, _bone(tuple(place), tuple(tip), radius * 0.6, rng))
                place = tip
        for _ in range(8):
            where = np.array(origin) + rng.normal(0, 8 * scale, 2) + [6 * scale, 0]
            bones = np.maximum(bones, _ellipsoid(tuple(where), (5 * scale, 6 * scale)))
        paths = paths + soft + rng.uniform(2, 4) * bones
    return exposed(paths, rng)


def _skull(rng: np.random.Generator) -> np.ndarray:
    """A shell with orbits, sinuses and a jaw."""
    centre, radii = (rng.uniform(45, 65), rng.uniform(54, 74)), (rng.uniform(34, 55), rng.uniform(34, 58))
    thick = rng.uniform(2, 6)
    inner = (radii[0] - thick, radii[1] - thick)
    paths = _ellipsoid(centre, radii) + 3 * (_ellipsoid(centre, radii) - _ellipsoid(centre, inner))
    jaw = rng.uniform(-25, 25)
    paths = paths + _ellipsoid((centre[0] + radii[0], centre[1] + jaw), (25, 25)) + _tube((90, 64), (150, 64), 22, 30)
    for side in (-1, 1):
        place = (centre[0] + rng.uniform(10, 30), centre[1] + jaw / 2 + side * rng.uniform(5, 18))
        paths = paths - rng.uniform(0.3, 0.8) * _ellipsoid(place, (rng.uniform(6, 11), rng.uniform(7, 12)))
        paths = paths + 2 * _bone(place, (place[0] + 45, place[1] + side * 4), 5, rng)
    return exposed(np.maximum(paths + _teeth_paths(rng, centre[0] + radii[0] + 5, 40), 0), rng)


def _teeth_paths(rng: np.random.Generator, row: float, width: float) -> np.ndarray:
    paths = np.zeros((SIDE, SIDE), dtype=np.float32)
    bend = rng.uniform(-12, 12)
    for place in np.linspace(-1, 1, int(rng.integers(6, 17))):
        column, bow = 64 + place * width, bend * place**2
        for side in (-1, 1):
            root = (row + bow + side * rng.uniform(14, 24) * width / 55, column + rng.normal(0, 1))
            paths = np.maximum(paths, _tube((row + bow + side * 3, column), root, width / 14, width / 28))
    return paths


def _teeth(rng: np.random.Generator) -> np.ndarray:
    """A panoramic or a bitewing picture."""
    width = rng.choice([58.0, 90.0, 130.0])
    paths = 4 * _teeth_paths(rng, rng.uniform(50, 78), width)
    paths = paths + _tube((rng.uniform(85, 110), -10), (rng.uniform(85, 110), 138), 30, 30)
    paths = paths + rng.uniform(0, 2) * _tube((rng.uniform(10, 40), -10), (rng.uniform(10, 40), 138), 25, 25)
    for column in (rng.uniform(0, 20), rng.uniform(108, 128)):
        paths = paths + 2 * _bone((20, column), (110, column + rng.normal(0, 8)), 10, rng)
    return exposed(paths, rng)


def _pelvis(rng: np.random.Generator) -> np.ndarray:
    """A body with a spine, and below it a ring of bone, hips and thighs; or the abdomen above."""
    shift = rng.uniform(-20, 60)
    paths = _tube((-40, 64), (170, 64), rng.uniform(50, 75), rng.uniform(50, 75)) * 0.6
    for row in np.arange(shift - 120, shift + 30, 16):
        paths = paths + 1.5 * _ellipsoid((row, 64), (9, rng.uniform(10, 14)))
    for side in (-1, 1):
        wing = (50 + shift, 64 + side * 32)
        paths = paths + rng.uniform(0.8, 1.6) * _ellipsoid(wing, (26, 16), side * 0.5)
        ring = (82 + shift, 64 + side * 18)
        paths = paths + 2 * (_ellipsoid(ring, (17, 14)) - _ellipsoid(ring, (12, 9)))
        paths = paths + 2.5 * _bone((78 + shift, 64 + side * 40), (160 + shift, 64 + side * 46), 9, rng)
    for _ in range(int(rng.integers(0, 10))):  # gas of the bowel
        paths = paths - _ellipsoid(tuple(rng.uniform(20, 108, 2)), tuple(rng.uniform(3, 9, 2)), rng.uniform(0, 3))
    return exposed(np.maximum(paths, 0), rng)


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Anything of tubes, shells and ellipsoids."""
    paths = np.zeros((SIDE, SIDE), dtype=np.float32)
    for _ in range(int(rng.integers(1, 9))):
        place, radii = tuple(rng.uniform(0, SIDE, 2)), tuple(np.exp(rng.uniform(1.5, 4.2, 2)))
        paths = paths + rng.uniform(0.2, 2) * _ellipsoid(place, radii, rng.uniform(0, 3))
        if rng.random() < 0.5:
            thin = (radii[0] * 0.85, radii[1] * 0.85)
            paths = paths - rng.uniform(0, 0.9) * _ellipsoid(place, thin)
        if rng.random() < 0.5:
            ends = rng.uniform(-20, SIDE + 20, (2, 2))
            paths = paths + rng.uniform(0.5, 3) * _tube(tuple(ends[0]), tuple(ends[1]), *rng.uniform(2, 20, 2))
    return exposed(np.maximum(paths, 0), rng)


def _breast(rng: np.random.Generator) -> np.ndarray:
    """A half ellipse at a side, with strands in it."""
    place, radii = (rng.uniform(40, 90), float(rng.choice([-5, SIDE + 5]))), (rng.uniform(35, 60), rng.uniform(40, 80))
    paths = _ellipsoid(place, radii)
    return exposed(paths * (1 + rng.uniform(0.5, 2) * np.clip(_waves(rng, 1.2), 0, None)), rng)


def _waves(rng: np.random.Generator, power: float) -> np.ndarray:
    """Noise whose amplitude falls with the frequency, of deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]) + 1 / SIDE
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) / frequency**power
    noise = np.fft.irfft2(spectrum, (SIDE, SIDE))
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def _noise(rng: np.random.Generator) -> np.ndarray:
    return np.clip(0.5 + rng.uniform(0.1, 0.4) * _waves(rng, rng.uniform(0, 2.5)), 0, 1)


def _page(rng: np.random.Generator) -> np.ndarray:
    """Lines of text, or a table."""
    page = Image.new("L", (SIDE, SIDE), 255)
    draw = ImageDraw.Draw(page)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    for row in range(int(rng.integers(0, 20)), SIDE, int(rng.integers(7, 16))):
        text = "".join(rng.choice(letters, int(rng.integers(5, 30))))
        draw.text((int(rng.integers(2, 30)), row), text, fill=int(rng.integers(0, 120)))
    if rng.random() < 0.3:
        for place in range(0, SIDE, int(rng.integers(10, 40))):
            draw.line((place, 0, place, SIDE), fill=90)
    return np.asarray(page, dtype=np.float32) / 255


def _pattern(rng: np.random.Generator) -> np.ndarray:
    """Blocks of grey, bars or a gradient."""
    if rng.random() < 0.3:
        slope = rng.normal(0, 1, 2)
        film = slope[0] * _ROWS + slope[1] * _COLUMNS
        return (film - film.min()) / max(float(np.ptp(film)), 1e-6)
    blocks = rng.random(tuple(rng.integers(1, 9, 2) + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.NEAREST))


SUBJECTS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "limb": _limb,
    "hand": _hand,
    "skull": _skull,
    "teeth": _teeth,
    "pelvis": _pelvis,
    "shapes": _shapes,
    "breast": _breast,
    "noise": _noise,
    "page": _page,
    "pattern": _pattern,
}


def _any_position(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    film = np.rot90(film, rng.integers(4))[:, :: rng.choice([-1, 1])]
    return np.clip(1 - film if rng.random() < 0.4 else film, 0, 1).astype(np.float32)


def tilted(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A chest film ``[128, 128]`` in [0, 1], turned by 27 to 63 degrees from any upright position."""
    image, fill = Image.fromarray(film), float(rng.choice([0, 0, 0, 1, np.median(film)]))
    angle = rng.uniform(27, 63) + 90 * rng.integers(4)
    turned = image.rotate(angle, Image.Resampling.BILINEAR, expand=rng.random() < 0.6, fillcolor=fill)
    edge = int(turned.height * rng.uniform(0.05, 0.2)) if rng.random() < 0.3 else 0
    turned = turned.crop((edge, edge, turned.width - edge, turned.height - edge))
    return _any_position(np.asarray(turned.resize((SIDE, SIDE), Image.Resampling.BOX)), rng)


def cut(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The upper, lower, left or right 30 to 50 % of a chest film ``[128, 128]`` in [0, 1], stretched to a square."""
    film = np.rot90(film, quarters := int(rng.integers(4)))[: int(SIDE * rng.uniform(0.3, 0.5))]
    width = int(SIDE * rng.uniform(0.7, 1))
    first = rng.integers(0, SIDE - width + 1)
    part = np.ascontiguousarray(np.rot90(film[:, first : first + width], -quarters))
    return _any_position(np.asarray(Image.fromarray(part).resize((SIDE, SIDE), Image.Resampling.BICUBIC)), rng)


def altered(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part, rearranged tiles, a rolled copy or scrambled waves of a chest film.

    Args:
        film: ``[128, 128]`` in [0, 1].
        rng: source of randomness.

    Returns:
        float32 ``[128, 128]``, in any position and polarity.
    """
    kind = rng.choice(["part", "part", "tiles", "rolled", "waves"])
    if kind == "part":
        side = int(rng.uniform(0.2, 0.42) * SIDE)
        top, left = rng.integers(0, SIDE - side, 2)
        part = Image.fromarray(np.ascontiguousarray(film[top : top + side, left : left + side]))
        film = np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    elif kind == "tiles":
        count = int(rng.choice([2, 4]))
        tiles = film.reshape(count, SIDE // count, count, SIDE // count).swapaxes(1, 2).reshape(count**2, -1)
        order = rng.permutation(count**2)
        while (order == np.arange(count**2)).sum() > count**2 // 4:
            order = rng.permutation(count**2)
        tiles = tiles[order].reshape(count, count, SIDE // count, SIDE // count)
        film = tiles.swapaxes(1, 2).reshape(SIDE, SIDE)
    elif kind == "rolled":
        film = np.roll(film, int(rng.uniform(0.35, 0.65) * SIDE), axis=int(rng.integers(2)))
    else:
        spectrum = np.abs(np.fft.rfft2(film - film.mean()))
        phase = np.angle(np.fft.rfft2(rng.standard_normal(film.shape)))
        film = film.mean() + np.fft.irfft2(spectrum * np.exp(1j * phase), film.shape)
    film = np.rot90(film, rng.integers(4)) if rng.random() < 0.5 else film
    return np.clip(1 - film if rng.random() < 0.5 else film, 0, 1).astype(np.float32)
