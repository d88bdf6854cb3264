"""A surface's own figures against shapes whose figures are known."""

import importlib.util

import numpy as np
import pytest
from numpy.typing import ArrayLike

from mnist3d.export.surface import Surface, contour
from tests.conftest import need

# A tetrahedron on the axes: corners 0, x, y, z, seen from outside counter-clockwise.
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)


def surface(faces: ArrayLike = FACES, vertices=CORNERS):
    return Surface(vertices, np.asarray(faces, np.int32), np.ones(len(vertices), np.float32))


def test_a_tetrahedron_is_closed_has_a_sixth_and_looks_outward():
    assert surface().is_closed
    assert surface().enclosed_volume == pytest.approx(1 / 6)
    assert surface(FACES[:, ::-1]).enclosed_volume == pytest.approx(-1 / 6)
    centres, normals = surface().triangles(slice(None))
    assert np.linalg.norm(normals, axis=1) == pytest.approx(np.ones(4))
    assert ((centres - CORNERS.mean(axis=0)) * normals).sum(axis=1).min() > 0


def test_more_vertices_than_the_square_root_of_an_int32_are_no_problem():
    """Edges are numbered vertex times number of vertices plus vertex."""
    far = np.concatenate([np.zeros((99_996, 3), np.float32), CORNERS])
    assert surface(FACES + 99_996, far).is_closed
    assert not surface(FACES[:3] + 99_996, far).is_closed


@pytest.mark.parametrize(
    ("faces", "what"),
    [
        (FACES[:3], "a face is missing"),
        ([*FACES[:3], FACES[3][::-1]], "a face is turned over"),
        ([*FACES, *FACES], "every face is there twice"),
        ([*FACES, [0, 1, 2]], "a leaf sticks out"),
    ],
)
def test_what_is_not_closed_is_said_so(faces, what):
    assert not surface(faces).is_closed, what


def test_pieces_are_told_apart_and_one_can_be_taken_out():
    both = surface([*FACES, *(FACES + 4)], np.concatenate([CORNERS, CORNERS + 2.0]))
    pieces = both.pieces()
    assert sorted(set(pieces)) == [0, 1]
    assert len(set(pieces[:4])) == len(set(pieces[4:])) == 1
    second = both.part(pieces == pieces[4])
    assert second.is_closed
    assert second.vertices.min() == 2.0
    assert second.enclosed_volume == pytest.approx(1 / 6, abs=1e-6)


def test_a_vertex_takes_its_voxels_light_in_the_share_of_their_opacity():
    need(importlib.util.find_spec("skimage"), "scikit-image is not installed: pip install -e '.[export]'")
    opacity = np.zeros((5, 5, 6), np.float32)
    opacity[2, 2, 2:4] = 0.8, 0.4  # along x: a bright dense voxel, then a darker thin one
    absorbance = np.full((3, 3, 4), 1.0, np.float32)  # of the empty ones, which must not count
    absorbance[1, 1, 1:3] = 0.0, 0.5
    found = contour(opacity, 0.6, absorbance)
    assert found.is_closed
    between = found.vertices[
        :, 0
    ].argmax()  # half-way between the two: .5 * .8 * 1 + .5 * .4 * .5 over .5 * .8 + .5 * .4
    assert found.brightness[between] == pytest.approx((0.8 * 1.0 + 0.4 * 0.5) / (0.8 + 0.4), rel=1e-5)
    assert np.delete(found.brightness, between) == pytest.approx(np.ones(len(found.brightness) - 1))
