"""One piece that can be printed: crumbs dropped, thin walls thickened, pieces joined by the shortest bridges.

All of it happens in a field of distances on a finer grid, before it is contoured: everything solid is a union of balls
of one diameter, so there is no thinner wall, and joins are smooth.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import ExportError
from ..formats import from_upright, upright
from ..storage.memory import check_fits
from .shares import Tell, silent
from .solid import Matter, similarity

MIN_WALL_MM = 1.2  # three lines of a 0.4 mm nozzle
VOXELS_OF_A_WALL = 3.0  # where the grid may be so fine
MAX_FINE = 256  # voxels along each edge of the finer grid
BYTES_OF_A_VOXEL = 70  # of it: distances, nearest voxels, pieces
CRUMB = 2.0  # edge of a cube, in walls: pieces of less volume are dropped


@dataclass
class Connection:
    """What was done to make one piece.

    Args:
        bridges: how many were added.
        bridges_mm: their length together, from surface to surface.
        bridges_share: their part of the volume of all that is solid.
        crumbs: pieces that were dropped.
        crumb_mm3: pieces smaller than that were.
        voids: hollows that were filled, as nothing gets out of them.
        wall_mm: no wall is thinner, by the ball that fits into it.
        match_before: how much the pieces looked like the views, [0, 1].
        match_after: the same of what is written.
    """

    bridges: int
    bridges_mm: float
    bridges_share: float
    crumbs: int
    crumb_mm3: float
    voids: int
    wall_mm: float
    match_before: float
    match_after: float

    def lines(self) -> list[str]:
        """For people."""
        share = f"{self.bridges_share:.1%} of the volume"
        return [
            f"bridges         {self.bridges}, {self.bridges_mm:.1f} mm together, {share}",
            f"dropped         {self.crumbs} crumbs of less than {self.crumb_mm3:.1f} mm3; {self.voids} hollows filled",
            f"thickened       to {self.wall_mm:.2f} mm (the ball that fits into every wall)",
            f"like the views  to {self.match_after:.2f}, before to {self.match_before:.2f}",
        ]


@dataclass(frozen=True)
class Connected:
    """A field whose surface at 1 is one piece, on a cube of its own.

    Args:
        field: with a border of empty voxels.
        absorbance: without the border.
        centre: of the cube in upright world coordinates, x, y, z.
        half: half its edge, world units.
        connection: what was done.
    """

    field: Float[np.ndarray, "up away right"]
    absorbance: Float[np.ndarray, "up-2 away-2 right-2"]
    centre: Float[np.ndarray, "3"]
    half: float
    connection: Connection


def connected(
    values: Float[np.ndarray, "2 Z Y X"],
    opacity: Float[np.ndarray, "up away right"],
    threshold: float,
    *,
    matter: Matter,
    level: float,
    size_mm: float,
    wall_mm: float,
    tell: Tell = silent,
) -> Connected:
    """Make one piece of all that is solid.

    Args:
        values: (2, Z, Y, X), attenuation per world unit and absorbance.
        opacity: the field that would be contoured, upright, padded by one voxel.
        threshold: where.
        matter: what counts as solid.
        level: the same as `threshold`, in attenuation.
        size_mm: what the longest edge of the bounding box will be.
        wall_mm: diameter of the bridges, and of the ball that fits into every wall; at most a sixth of `size_mm`.
        tell: is handed the share that is done and what is done now, for a bar.

    Raises:
        ExportError: the finer grid does not fit into the memory.
    """
    from scipy.ndimage import maximum_filter

    wall_mm = max(wall_mm, 2.0 * size_mm / MAX_FINE)  # a ball of less than a voxel is none
    radius = wall_mm / 2.0
    tell(0.0, "dropping crumbs")
    cube, index = _finer(opacity, threshold, size_mm, wall_mm)
    absorbance = _at(np.pad(upright(values[1]), 1, mode="edge"), index)
    solid, crumbs, crumb_mm3 = _without_crumbs(_at(opacity, index) >= threshold, cube.voxel, CRUMB * wall_mm)
    tell(0.2, "looking for thin walls")
    # Centres of balls: all that fit, and the middle of what is too thin for them.
    depth, _ = _distances(solid, cube.voxel)
    core = depth >= radius
    too_thin = solid if not core.any() else solid & (_distances(~core, cube.voxel)[0] > radius)
    core |= too_thin & (depth >= maximum_filter(depth, 3))
    del depth, solid, too_thin
    tell(0.5, "joining the pieces")
    reach, nearest = _distances(~core, cube.voxel)
    segments = _bridges(reach <= radius, nearest)
    del nearest
    before, length = _filled(reach, radius, cube.voxel), 0.0
    for begin, end in segments:
        length += max(0.0, cube.voxel * math.dist(begin, end) - wall_mm)
        _stamp(reach, begin, end, cube.voxel, wall_mm)
    after = _filled(reach, radius, cube.voxel)
    tell(0.8, "filling hollows")
    voids = _fill_voids(reach, radius)
    field = np.pad(np.clip(2.0 - reach / np.float32(radius), 0.0, 2.0), 1)
    tell(0.9, "comparing with the views")
    connection = Connection(
        bridges=len(segments),
        bridges_mm=length,
        bridges_share=1.0 - before / after,
        crumbs=crumbs,
        crumb_mm3=crumb_mm3,
        voids=voids,
        wall_mm=wall_mm,
        match_before=similarity(values, matter, level),
        match_after=similarity(values, matter, 1.0, _on_grid(field, values.shape[1:], cube)),
    )
    return Connected(field, absorbance, cube.centre, cube.half, connection)


@dataclass(frozen=True)
class _Cube:
    """Centre (x, y, z, upright) and half its edge in world units, and the edge of its voxels in mm."""

    centre: Float[np.ndarray, "3"]
    half: float
    voxel: float


def _finer(
    opacity: Float[np.ndarray, "up away right"], threshold: float, size_mm: float, wall_mm: float
) -> tuple[_Cube, list[Float[np.ndarray, " N"]]]:
    """A cube around what is solid, and the places of its finer voxels in `opacity`, axis by axis."""
    size = np.array(opacity.shape) - 2
    filled = np.argwhere(opacity >= threshold)
    # The surface lies at most a voxel further out.
    low, high = ((2.0 * (end - 1.0) + 1.0) / size - 1.0 for end in (filled.min(axis=0) - 1, filled.max(axis=0) + 1))
    # What is added may reach out by a wall and a voxel: a mm is then no shorter in the file than it is here.
    world_per_mm = float((high - low).max()) / (size_mm - 3.0 * wall_mm)
    half = size_mm / 2.0 * world_per_mm
    fine = int(min(max(math.ceil(VOXELS_OF_A_WALL * size_mm / wall_mm), size.max() * half), MAX_FINE))
    check_fits(
        BYTES_OF_A_VOXEL * fine**3,
        f"connect=bridges: a grid of {fine}^3 voxels takes",
        "a larger min_wall_mm, or end other programs",
        ExportError,
    )
    centre = (low + high) / 2.0
    steps = ((2.0 * np.arange(fine) + 1.0) / fine - 1.0) * half
    index = [((steps + middle + 1.0) * n - 1.0) / 2.0 + 1.0 for middle, n in zip(centre, size, strict=True)]
    return _Cube(centre[::-1].copy(), half, size_mm / fine), index


def _at(array: Float[np.ndarray, "_ _ _"], index: list[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "_ _ _"]:
    """Linear interpolation on a grid of places, a slice at a time; 0 outside."""
    from scipy.ndimage import map_coordinates

    result = np.empty([len(places) for places in index], np.float32)
    for k, first in enumerate(index[0]):
        places = np.stack(np.meshgrid([first], index[1], index[2], indexing="ij"))
        result[k] = map_coordinates(array, places, order=1, mode="constant")[0]
    return result


def _distances(
    inside: Bool[np.ndarray, "N N N"], voxel: float
) -> tuple[Float[np.ndarray, "N N N"], Int[np.ndarray, "3 N N N"]]:
    """How far each voxel is from the nearest that is not inside, in mm, and which that is."""
    from scipy.ndimage import distance_transform_edt

    found: Any = distance_transform_edt(inside, return_indices=True)
    return (voxel * found[0]).astype(np.float32), found[1]


def _pieces(solid: Bool[np.ndarray, "_ _ _"]) -> tuple[Int[np.ndarray, "_ _ _"], int]:
    """The connected part, counted from 1, that each voxel belongs to; 0 where it is not solid; and their number."""
    from scipy.ndimage import label

    found: Any = label(solid)
    return found


def _without_crumbs(
    solid: Bool[np.ndarray, "N N N"], voxel: float, edge: float
) -> tuple[Bool[np.ndarray, "N N N"], int, float]:
    """Without the pieces smaller than a cube of that edge, but for the largest; how many they were, and their limit."""
    pieces, count = _pieces(solid)
    volumes = np.bincount(pieces.ravel(), minlength=count + 1) * voxel**3
    volumes[0] = 0.0
    kept = volumes >= min(edge**3, volumes.max())
    kept[0] = False
    return kept[pieces], count - int(kept.sum()), edge**3


def _filled(reach: Float[np.ndarray, "N N N"], radius: float, voxel: float) -> float:
    """How many voxels are solid; one through which the surface goes counts in part."""
    return float(np.clip((radius - reach) / np.float32(voxel) + 0.5, 0.0, 1.0).sum(dtype=np.float64))


def _fill_voids(reach: Float[np.ndarray, "N N N"], radius: float) -> int:
    """Make solid what is empty and shut in, which no printer can clear; how many there were."""
    empty, count = _pieces(np.pad(reach > radius, 1, constant_values=True))
    shut = (empty > 0) & (empty != empty[0, 0, 0])
    reach[shut[1:-1, 1:-1, 1:-1]] = 0.0
    return count - 1


def _bridges(
    solid: Bool[np.ndarray, "N N N"], nearest: Int[np.ndarray, "3 N N N"]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shortest lines that join all pieces: a minimum spanning tree.

    Each empty voxel belongs to the piece that it is nearest to. Pieces that the tree joins have voxels side by side,
    halfway between them, so only those are looked at.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    pieces, count = _pieces(solid)
    owner = pieces[tuple(nearest)]
    if count < 2:
        return []
    names, ends = [], []
    for axis in range(3):
        one, two = [slice(None)] * 3, [slice(None)] * 3
        one[axis], two[axis] = slice(None, -1), slice(1, None)
        border = np.argwhere(owner[tuple(one)] != owner[tuple(two)])
        beside = border.copy()
        beside[:, axis] += 1
        names.append(np.sort(np.stack([owner[tuple(border.T)], owner[tuple(beside.T)]], axis=1), axis=1))
        ends.append(np.stack([nearest[(slice(None), *border.T)].T, nearest[(slice(None), *beside.T)].T], axis=1))
    name, end = np.concatenate(names), np.concatenate(ends)
    length = np.linalg.norm(end[:, 0] - end[:, 1], axis=1)
    order = np.lexsort((length, name[:, 1], name[:, 0]))
    name, end, length = name[order], end[order], length[order]
    pair, first = np.unique(name, axis=0, return_index=True)  # the shortest of each pair of pieces
    graph = coo_array((length[first], tuple(pair.T - 1)), shape=(count, count)).tocsr()
    tree = {(int(a) + 1, int(b) + 1) for a, b in zip(*minimum_spanning_tree(graph).nonzero(), strict=True)}
    joined = [k for k, (a, b) in zip(first, pair, strict=True) if (int(a), int(b)) in tree]
    return [(tuple(map(int, end[k, 0])), tuple(map(int, end[k, 1]))) for k in joined]


def _stamp(
    reach: Float[np.ndarray, "N N N"], begin: tuple[int, ...], end: tuple[int, ...], voxel: float, margin: float
) -> None:
    """Lower the distances around a line from `begin` to `end` to those from the line."""
    a, b = np.array(begin, np.float64), np.array(end, np.float64)
    wide = math.ceil(margin / voxel) + 1
    low = np.maximum(np.minimum(a, b).astype(int) - wide, 0)
    high = np.minimum(np.maximum(a, b).astype(int) + wide + 1, reach.shape)
    box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    places = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), axis=-1) - a
    along = np.clip(places @ (b - a) / max(float((b - a) @ (b - a)), 1.0), 0.0, 1.0)
    distance = voxel * np.linalg.norm(places - along[..., None] * (b - a), axis=-1)
    reach[box] = np.minimum(reach[box], distance)


def _on_grid(field: Float[np.ndarray, "_ _ _"], shape: tuple[int, ...], cube: _Cube) -> Float[np.ndarray, "Z Y X"]:
    """The field at the voxels of the volume, in the world's axes; 0 outside the cube."""
    count = field.shape[0] - 2
    index = [
        ((((2.0 * np.arange(n) + 1.0) / n - 1.0 - middle) / cube.half + 1.0) * count - 1.0) / 2.0 + 1.0
        for n, middle in zip((shape[1], shape[0], shape[2]), cube.centre[::-1], strict=True)  # up, away, right
    ]
    return np.ascontiguousarray(from_upright(_at(field, index)))
