"""Clouds of points: where the light is, apart as asked for, and read by programs that did not write them."""

import importlib
import importlib.util
import json
import os

import numpy as np
import pytest
import torch

from mnist3d.errors import ExportError
from mnist3d.export import POINT_FORMATS, export_points, light
from mnist3d.export.blue_noise import blue_noise
from mnist3d.export.light import LIGHT_VIEWS, _directions, emitted_light, likeness
from mnist3d.geometry.grids import voxel_centres
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes.wrappers import GridField
from tests.conftest import need


@pytest.fixture(autouse=True)
def trees():
    """Finds nearest points."""
    need(importlib.util.find_spec("scipy"), "scipy is not installed: pip install -e '.[export]'")
    return importlib.import_module("scipy.spatial")


def box(size=24):
    """World coordinates of all voxels, z, y, x."""
    return np.meshgrid(*(voxel_centres(size).numpy() for _ in range(3)), indexing="ij")


@pytest.fixture(scope="module")
def pair():
    """A bright bar at the right whose upper half is thicker, and a black one at the left."""
    z, y, x = box()
    values = np.zeros((2, 24, 24, 24), np.float32)
    values[0][(abs(x - 0.5) < 0.17) & (abs(y) < 0.5) & (abs(z) < np.where(y < 0, 0.25, 0.1))] = 3.0
    values[0][(abs(x + 0.5) < 0.17) & (abs(y) < 0.5) & (abs(z) < 0.1)] = 3.0
    values[1][x < 0] = 1.0
    return values


def ball_of_ones():
    """1 in the unit ball, where points may lie, 0 outside."""
    return (np.square(box(16)).sum(axis=0) < 1.0).astype(np.float32)


def read(path):
    """Points of a file, by what did not write it."""
    if path.suffix == ".ply":
        need(importlib.util.find_spec("trimesh"), "trimesh is not installed: pip install -e '.[export]'")
        return np.asarray(importlib.import_module("trimesh").load(path).vertices)
    if path.suffix == ".xyz":
        return np.loadtxt(path)
    words = path.read_text(encoding="ascii").splitlines()
    groups = list(zip(words[::2], words[1::2], strict=True))  # R12: a code and a value, in turn
    assert groups[-2:] == [("0", "ENDSEC"), ("0", "EOF")]
    assert ("1", "AC1009") in groups
    assert groups.count(("0", "SECTION")) == groups.count(("0", "ENDSEC")) == 2
    number = groups.count(("0", "POINT"))
    columns = [[float(value) for code, value in groups if code == axis] for axis in ("10", "20", "30")]
    assert [len(column) for column in columns] == [number] * 3
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("suffix", POINT_FORMATS)
def test_every_format_comes_back_upright_in_mm_and_apart(trees, pair, tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    report = export_points(pair, path, count=500, min_distance_mm=1.0, size_mm=60.0, description={"run": "x"})
    points = read(path)
    assert len(points) == report.count == 500
    # In float32, as a reader has them: no allowance.
    nearest = trees.cKDTree(points.astype(np.float32)).query(points.astype(np.float32), k=2)[0][:, 1]
    assert nearest.min() >= 1.0
    assert report.least_mm == pytest.approx(nearest.min())
    x, y, z = points.T
    # The voxel beside the bar has a share of its light, and between its centre and the next one that goes to 0.
    voxel = 60.0 / 24
    assert 30.0 * 0.33 - 2 * voxel < x.min() < x.max() < 30.0 * 0.67 + 2 * voxel  # the bright bar alone, at the right
    assert np.ptp(y[z > 3.0]) > np.ptp(y[z < -3.0]) + voxel  # its thick half is up
    told = json.loads((tmp_path / f"p{suffix}.json").read_text())
    assert (told["run"], told["unit"], told["report"]["count"]) == ("x", "mm", 500)


def test_the_light_is_the_same_by_either_implementation(pair, monkeypatch):
    """Few voxels are measured in plain PyTorch, which needs no compiled kernel, more by that."""
    found, asked = emitted_light(pair)[0], []
    monkeypatch.setattr(light, "for_few_views", lambda renderer, *_: asked.append(renderer.impl) or renderer)
    compiled = emitted_light(pair)[0]
    assert asked == ["auto"]
    assert found == pytest.approx(
        compiled, abs=1e-5 * float(compiled.max())
    )  # sums of 64 views in float32, in another order


def test_the_light_of_all_voxels_is_that_of_all_views(pair):
    light, bright = emitted_light(pair)
    views = AbsorptionRenderer(24)(GridField(torch.as_tensor(pair)), _directions(LIGHT_VIEWS, seed=0))
    assert light.sum() == pytest.approx(float(views.sum()), rel=1e-4)  # sums of float32
    assert light[pair[1] == 1.0].max() == 0.0
    assert np.array_equal(bright, 1.0 - pair[1])


def test_what_is_hidden_from_all_sides_gives_no_light():
    z, y, x = box()
    radius = np.sqrt(x * x + y * y + z * z)
    values = np.zeros((2, 24, 24, 24), np.float32)
    values[0][radius < 0.8] = 100.0
    values[1][(radius > 0.4) & (radius < 0.8)] = 0.5
    light, _ = emitted_light(values)
    assert light[radius < 0.4].sum() < 1e-6 * light.sum()  # behind an optical depth of 40


def test_a_fine_grid_is_coarsened_and_black_matter_is_one_line(tmp_path):
    light, bright = emitted_light(np.stack([np.full((4, 8, 120), 0.5, np.float32), np.zeros((4, 8, 120), np.float32)]))
    assert light.shape == bright.shape == (3, 6, 96)
    with pytest.raises(ExportError, match="volume: gives no light back"):
        export_points(np.stack([np.full((4, 4, 4), 9.0), np.ones((4, 4, 4))]), tmp_path / "p.ply")
    with pytest.raises(ExportError, match="volume: gives no light back"):
        export_points(np.zeros((2, 4, 4, 4)), tmp_path / "p.ply")
    assert os.listdir(tmp_path) == []


def test_points_are_as_many_as_the_density_says(trees):
    """One half three times as dense as the other; of 2000 points a random sample would have 1500 +- 19 in it."""
    density = ball_of_ones()
    density[:, :, 8:] *= 3.0
    points = blue_noise(density, 2000, 0.0, seed=0)
    assert len(points) == 2000
    assert np.square(points.astype(np.float64)).sum(axis=1).max() <= 1.0
    # Between the middle voxels' centres the density is linear, so that no share is lost or won there.
    assert (points[:, 0] > 0).mean() == pytest.approx(0.75, abs=0.03)  # three standard deviations


def test_they_are_blue_and_not_white(trees):
    points = blue_noise(ball_of_ones(), 2000, 0.0, seed=0)
    nearest = trees.cKDTree(points).query(points, k=2)[0][:, 1]
    spacing = (4.0 / 3.0 * np.pi / 2000) ** (1 / 3)
    # Of random points (Poisson) the mean is .55 of the spacing and the smallest of 2000 is near 0.05 of it.
    assert nearest.mean() > 0.8 * spacing
    assert np.quantile(nearest, 0.01) > 0.5 * spacing


def test_a_distance_holds_exactly_and_what_does_not_fit_is_left_out(trees, pair, tmp_path):
    report = export_points(pair, tmp_path / "p.xyz", count=20_000, min_distance_mm=2.0)
    points = np.loadtxt(tmp_path / "p.xyz").astype(np.float32)
    assert trees.cKDTree(points).query(points, k=2)[0][:, 1].min() >= 2.0
    assert len(points) == report.count < 5000
    assert "no more fit: a smaller --min_distance_mm" in report.lines()[0]


def test_a_seed_is_always_the_same_and_another_is_not(pair, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        export_points(pair, tmp_path / f"{name}.ply", count=200, seed=seed)
    a, b, c = ((tmp_path / f"{name}.ply").read_bytes() for name in "abc")
    assert a == b != c


def test_brightness_is_that_of_the_matter(tmp_path):
    values = np.zeros((2, 8, 8, 8), np.float32)
    values[0, 2:6, 2:6, 2:6] = 5.0
    values[1] = 0.25
    export_points(values, tmp_path / "p.ply", count=50)
    content = (tmp_path / "p.ply").read_bytes().partition(b"end_header\n")[2]
    table = np.frombuffer(content, np.dtype([("xyz", "<f4", 3), ("brightness", "<f4"), ("rgb", "u1", 3)]))
    assert len(table) == 50
    assert set(table["brightness"]) == {0.75}
    assert set(table["rgb"].ravel()) == {191}


def test_thin_matter_looks_as_its_points_do_and_turned_points_do_not(pair, tmp_path):
    """Of matter that hides next to nothing a view is a sum, as that of points; what is left is noise and their size."""
    thin = pair * np.array([0.05, 1.0], np.float32)[:, None, None, None]
    light, _ = emitted_light(thin)
    points = blue_noise(light, 4000, 0.0, seed=0)
    views = AbsorptionRenderer(64)(GridField(torch.as_tensor(thin)), _directions(10, seed=1))
    usual = -10.0 * np.log10(float(views.square().mean()))  # of a black picture
    assert likeness(thin, points) > usual + 10.0
    assert likeness(thin, -points) < usual + 3.0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("p.stl", {}, [".stl", ".ply, .xyz, .dxf"]),
        ("p.ply", {"count": 1}, ["count=1:", "[2, 1000000]"]),
        ("p.ply", {"min_distance_mm": -1.0}, ["min_distance_mm=-1.0", "[0, 1000]"]),
        ("p.ply", {"min_distance_mm": float("nan")}, ["min_distance_mm=nan"]),
        ("p.ply", {"min_distance_mm": 100.0}, ["min_distance_mm=100.0: must be smaller", "size_mm=60"]),
        ("p.ply", {"size_mm": 0.0}, ["size_mm=0.0", "in [0.1, 10000]"]),
        ("p.ply", {"seed": -1}, ["seed=-1"]),
    ],
)
def test_mistakes(pair, tmp_path, name, options, words):
    with pytest.raises(ExportError) as failed:
        export_points(pair, tmp_path / name, **options)
    assert all(word in str(failed.value) for word in words), failed.value
    assert os.listdir(tmp_path) == []
