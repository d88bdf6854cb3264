"""A closed surface as three arrays: contouring, pieces, volume.

Marching cubes and the figures of its result, in bounded memory: a fine volume has millions of triangles, of which
general mesh classes keep large tables of edges.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ..geometry.grids import voxel_places
from ..storage import require

FACES_AT_ONCE = 2**17


@dataclass(frozen=True)
class Surface:
    """Triangles in world units, x right, y away from the viewer, z up, with outward normals.

    Args:
        vertices: positions.
        faces: indices of each triangle's vertices, counter-clockwise seen from outside.
        brightness: 1 - absorbance at each vertex, [0, 1].
    """

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    brightness: Float[np.ndarray, " V"]

    @property
    def extents(self) -> Float[np.ndarray, "3"]:
        """Edges of the bounding box."""
        return np.ptp(self.vertices, axis=0)

    @property
    def is_closed(self) -> bool:
        """Whether every edge belongs to just two triangles, which run along it in opposite directions."""
        count = len(self.vertices)
        # int64 by name: before NumPy 2 an int32 array times a number stays int32, and overflows
        along = [self.faces[:, k].astype(np.int64) * count + self.faces[:, (k + 1) % 3] for k in range(3)]
        forward = np.concatenate(along)
        del along
        forward.sort()
        if (forward[1:] == forward[:-1]).any():
            return False
        backward = forward % count * count + forward // count
        backward.sort()
        return bool(np.array_equal(forward, backward))

    @property
    def enclosed_volume(self) -> float:
        """Sum of the signed tetrahedra between the triangles and the centre, in cubed world units."""
        total = 0.0
        for begin in range(0, len(self.faces), FACES_AT_ONCE):
            a, b, c = self.vertices[self.faces[begin : begin + FACES_AT_ONCE].T].astype(np.float64)
            total += float((a * np.cross(b, c)).sum()) / 6.0
        return total

    def pieces(self) -> Int[np.ndarray, " F"]:
        """Which connected part each triangle belongs to, counted from 0."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        rows, columns = self.faces[:, :2].ravel(), self.faces[:, 1:].ravel()  # two edges of a triangle connect it
        size = len(self.vertices)
        graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
        return connected_components(graph, directed=False)[1][self.faces[:, 0]]

    def part(self, kept: Bool[np.ndarray, " F"]) -> "Surface":
        """The kept triangles and their vertices."""
        used, faces = np.unique(self.faces[kept], return_inverse=True)
        return Surface(self.vertices[used], faces.reshape(-1, 3).astype(np.int32), self.brightness[used])

    def triangles(self, chosen: slice) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, "F 3"]]:
        """Centres and outward unit normals of some triangles; of a degenerate one the normal is 0."""
        corners = self.vertices[self.faces[chosen]].astype(np.float64)
        return corners.mean(axis=1), unit_normals(corners)


def unit_normals(corners: Float[np.ndarray, "F 3 3"]) -> Float[np.ndarray, "F 3"]:
    """Of triangles, by the right hand; 0 for a degenerate one."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def contour(
    opacity: Float[np.ndarray, "up away right"], threshold: float, absorbance: Float[np.ndarray, "up-2 away-2 right-2"]
) -> Surface:
    """Marching cubes (Lewiner et al. 2003).

    Args:
        opacity: of a voxel step, with a border of empty voxels, so that every surface is closed.
        threshold: opacity where the surface lies.
        absorbance: without the border. A vertex takes its two voxels' brightness in the share of their opacities: what
            is empty is seen by nobody, whatever its absorbance.
    """
    measure = require("skimage.measure", "meshes", "scikit-image")
    corners, faces, _, _ = measure.marching_cubes(opacity, threshold, allow_degenerate=False)
    corners, faces = corners.astype(np.float32, copy=False), faces.astype(np.int32, copy=False)
    shape = np.array(opacity.shape, np.float32) - 2
    vertices = voxel_places(corners - 1.0, shape)[:, ::-1]  # zyx to xyz
    # A vertex lies on an edge between two voxels: it has a fraction along one axis at most.
    low = corners.astype(np.int32)
    high = np.minimum(low + (corners > low), np.array(opacity.shape, np.int32) - 1)
    share = (corners - low).sum(axis=1)
    light, weight = np.zeros(len(corners), np.float32), np.zeros(len(corners), np.float32)
    for place, near in ((low, 1.0 - share), (high, share)):
        counts = near * opacity[tuple(place.T)]
        inner = np.clip(place - 1, 0, np.array(absorbance.shape, np.int32) - 1)  # in the border, opacity is 0
        light += counts * (1.0 - absorbance[tuple(inner.T)])
        weight += counts
    brightness = np.clip(light / np.maximum(weight, np.finfo(np.float32).tiny), 0.0, 1.0)
    # scikit-image's triangles face inward in its own index order; xyz is its mirror image, where they face outward.
    return Surface(np.ascontiguousarray(vertices), faces, brightness)


def smoothed(surface: Surface, passes: int) -> Surface:
    """Taubin's filter (1995), as trimesh has it: smooths without shrinking."""
    from scipy.sparse import coo_array, diags_array

    trimesh = require("trimesh", "smoothing")
    rows = np.concatenate([surface.faces[:, k] for k in (0, 1, 2, 1, 2, 0)])
    columns = np.concatenate([surface.faces[:, k] for k in (1, 2, 0, 0, 1, 2)])
    size = len(surface.vertices)
    neighbours = coo_array((np.ones(len(rows), np.float64), (rows, columns)), shape=(size, size)).tocsr()
    neighbours.data[:] = 1.0  # an edge of two triangles counts once
    mean = diags_array(1.0 / np.maximum(neighbours.sum(axis=1), 1.0)) @ neighbours
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    trimesh.smoothing.filter_taubin(mesh, iterations=passes, laplacian_operator=mean)
    return Surface(np.asarray(mesh.vertices, np.float32), surface.faces, surface.brightness)
