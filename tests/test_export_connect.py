"""One piece: the shortest bridges between what is apart, walls thick enough, no crumbs and no hollows."""

import importlib.util
import json
import os

import numpy as np
import pytest

from mnist3d.cli.mesh import in_print
from mnist3d.errors import ExportError
from mnist3d.export import export_mesh
from mnist3d.export.solid import best_level, similarity
from mnist3d.geometry.grids import voxel_centres
from tests.conftest import need


@pytest.fixture(autouse=True)
def contours():
    """Writes all meshes."""
    need(importlib.util.find_spec("skimage"), "scikit-image is not installed: pip install -e '.[export]'")


def box(size=32):
    """World coordinates of all voxels, z, y, x."""
    return np.meshgrid(*(voxel_centres(size).numpy() for _ in range(3)), indexing="ij")


def blocks(*ends):
    """Solid boxes from and to, in the world's x, y, z."""
    z, y, x = box()
    values = np.zeros((2, 32, 32, 32), np.float32)
    for (x0, x1), (y0, y1), (z0, z1) in ends:
        values[0][(x > x0) & (x < x1) & (y > y0) & (y < y1) & (z > z0) & (z < z1)] = 300.0
    return values


# In a row along x with gaps of .25 and .375, so that the way from the first to the last leads over the middle one.
ROW = (
    ((-0.875, -0.5), (-0.25, 0.25), (-0.25, 0.25)),
    ((-0.25, 0.125), (-0.25, 0.25), (-0.25, 0.25)),
    ((0.5, 0.875), (-0.25, 0.25), (-0.25, 0.25)),
)


def test_three_blocks_become_one_by_two_bridges_as_long_as_the_gaps(tmp_path):
    assert export_mesh(blocks(*ROW), tmp_path / "apart.stl").pieces == 3
    report = export_mesh(blocks(*ROW), tmp_path / "m.stl", connect="bridges", min_wall_mm=4.0)
    made = report.connection
    assert made is not None
    assert (report.pieces, report.watertight) == (1, True)
    assert (made.bridges, made.crumbs, made.voids) == (2, 0, 0)
    mm = 60.0 / 1.75  # a world unit: the row is 1.75 long
    # Each end lies on a voxel of the finer grid, 4 / 3 mm or less; so does a surface.
    assert made.bridges_mm == pytest.approx((0.25 + 0.375) * mm, abs=4 * 4.0 / 3)
    assert 4.0 <= made.wall_mm < 4.0 * 60.0 / (60.0 - 3 * 4.0) * 1.1  # room for what is added, and a voxel
    cylinders = np.pi * (made.wall_mm / 2.0) ** 2 * made.bridges_mm
    assert made.bridges_share == pytest.approx(cylinders / report.volume_mm3, rel=0.15)  # a few voxels are counted
    assert max(report.bounding_box_mm) == pytest.approx(60.0, rel=1e-5)
    told = json.loads((tmp_path / "m.stl.json").read_text())
    assert told["report"]["connection"]["bridges"] == 2


def test_of_three_that_are_all_neighbours_no_pair_is_joined_twice(tmp_path):
    above = [((x, x + 0.5), (-0.5, 0.0), (-0.25, 0.25)) for x in (-0.625, 0.125)]
    below = ((-0.25, 0.25), (0.5, 0.875), (-0.25, 0.25))
    report = export_mesh(blocks(*above, below), tmp_path / "m.stl", connect="bridges", min_wall_mm=4.0)
    made = report.connection
    assert made is not None
    assert (report.pieces, made.bridges) == (1, 2)
    mm = 60.0 / 1.375  # a world unit: they are 1.375 high
    assert made.bridges_mm == pytest.approx((0.25 + 0.5) * mm, abs=4 * 4.0 / 3)  # as in a row


def test_a_bridge_is_as_thick_as_asked_for(tmp_path):
    """The middle of the gap is cut: the cross section there is the bridge's."""
    need(importlib.util.find_spec("trimesh"), "trimesh is not installed: pip install -e '.[export]'")
    trimesh = importlib.import_module("trimesh")
    report = export_mesh(blocks(ROW[0], ROW[2]), tmp_path / "m.stl", connect="bridges", min_wall_mm=5.0)
    assert report.pieces == 1
    section = trimesh.load(tmp_path / "m.stl").section((1, 0, 0), (0, 0, 0))
    thick = np.ptp(section.vertices[:, 1:], axis=0)
    made = report.connection
    assert made is not None
    assert made.wall_mm >= 5.0
    # A chord on the finer grid is off by less than half its voxel, 5 / 3 mm.
    assert thick == pytest.approx([made.wall_mm] * 2, abs=5.0 / 6)


def test_thin_walls_are_thickened_and_thick_ones_stay(tmp_path):
    thin = (
        (-0.75, 0.75),
        (-0.75, 0.75),
        (-0.0625, 0.0625),
    )  # two voxels, 1.25 mm of 15, and what the surface lies beyond their centres
    plain = export_mesh(blocks(thin), tmp_path / "m.stl", size_mm=15.0)
    assert plain.thinnest_wall_mm < 1.5
    report = export_mesh(blocks(thin), tmp_path / "m.stl", size_mm=15.0, connect="bridges", min_wall_mm=2.5)
    assert report.thinnest_wall_mm > 2.0  # to about half a voxel of the finer grid, .4 mm
    assert (report.pieces, report.watertight) == (1, True)
    thick = ((-0.75, 0.75), (-0.75, 0.75), (-0.5, 0.5))
    plain = export_mesh(blocks(thick), tmp_path / "m.stl", size_mm=15.0)
    report = export_mesh(blocks(thick), tmp_path / "m.stl", size_mm=15.0, connect="bridges", min_wall_mm=1.0)
    assert report.volume_mm3 == pytest.approx(plain.volume_mm3, rel=0.1)  # its edges are rounded


def test_crumbs_are_dropped_and_hollows_filled(tmp_path):
    crumb = ((0.75, 0.8125), (0.0, 0.0625), (0.0, 0.0625))
    values = blocks(((-0.75, 0.25), (-0.5, 0.5), (-0.5, 0.5)), crumb)
    values[0, 14:18, 14:18, 8:12] = 0.0
    assert export_mesh(values, tmp_path / "m.stl").pieces == 3  # the block, its hollow, the crumb
    report = export_mesh(values, tmp_path / "m.stl", connect="bridges", min_wall_mm=3.0)
    made = report.connection
    assert made is not None
    assert (report.pieces, made.bridges, made.crumbs, made.voids) == (1, 0, 1, 1)
    assert made.crumb_mm3 == pytest.approx(6.0**3)
    assert f"1 crumbs of less than {made.crumb_mm3:.1f} mm3; 1 hollows filled" in "\n".join(report.lines())


def test_all_that_is_small_leaves_the_largest(tmp_path):
    report = export_mesh(blocks(((0.0, 0.0625),) * 3), tmp_path / "m.stl", connect="bridges", min_wall_mm=10.0)
    assert (report.pieces, report.watertight) == (1, True)


def test_it_lies_where_it_lay(tmp_path):
    """A long block off the centre: the file's axes begin in the middle of the volume, connected or not."""
    need(importlib.util.find_spec("trimesh"), "trimesh is not installed: pip install -e '.[export]'")
    trimesh = importlib.import_module("trimesh")
    values = blocks(((0.25, 0.5), (-0.75, 0.25), (-0.5, 0.0)))
    for name, options in (("a", {}), ("b", {"connect": "bridges", "min_wall_mm": 3.0})):
        export_mesh(values, tmp_path / f"{name}.ply", **options)
    plain, made = (trimesh.load(tmp_path / f"{name}.ply").bounds for name in "ab")
    assert made == pytest.approx(plain, abs=60.0 / 16)  # a voxel of the volume


def test_the_match_is_that_of_what_is_written(tmp_path):
    values = blocks(*ROW)
    level, match = best_level(values, "bright")
    assert similarity(values, "bright", level) == pytest.approx(match, rel=1e-5)
    report = export_mesh(values, tmp_path / "m.stl", connect="bridges", min_wall_mm=2.0)
    made = report.connection
    assert made is not None
    assert made.match_before == pytest.approx(match, rel=1e-5)
    assert report.match == made.match_after
    assert 0.8 * match < made.match_after < match  # bridges and round edges are no part of it
    # Mirrored, it is another solid.
    field = np.ascontiguousarray(values[0, :, :, ::-1])
    assert similarity(values, "bright", 1.0, np.roll(field, 6, axis=1)) < 0.8 * match


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"connect": "bridges", "min_wall_mm": 11.0}, ["min_wall_mm=11", "[0.1, 10]", "sixth of size_mm"]),
        ({"connect": "bridges", "min_wall_mm": float("nan")}, ["min_wall_mm=nan"]),
    ],
)
def test_mistakes(tmp_path, options, words):
    with pytest.raises(ExportError) as failed:
        export_mesh(blocks(*ROW), tmp_path / "m.stl", **options)
    assert all(word in str(failed.value) for word in words), failed.value
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("match", "matter", "said"),
    [
        (None, "bright", ""),
        (0.5, "bright", ""),
        (0.49, "bright", "--matter all, or a sculpture with fewer targets"),
        (0.49, "all", "a sculpture with fewer targets"),
    ],
)
def test_a_mesh_that_shows_little_of_the_views_comes_with_advice(match, matter, said):
    told = "".join(in_print(match, matter))
    assert told.partition("few of the views will be recognised; better: ")[2] == said
    assert told.startswith("in print  ") == bool(said)
