"""Meshes: closed, right side out, upright, of the asked size, and read by programs that did not write them."""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from mnist3d.errors import ExportError
from mnist3d.export import MESH_FORMATS, export_mesh
from mnist3d.export.solid import best_level
from mnist3d.geometry.grids import voxel_centres
from tests.conftest import need


@pytest.fixture(autouse=True)
def trimesh():
    """Writes all meshes and reads most of them."""
    need(importlib.util.find_spec("trimesh"), "trimesh is not installed: pip install -e '.[export]'")
    return importlib.import_module("trimesh")


def box(shape=(24, 24, 24)):
    """World coordinates of all voxels, z, y, x."""
    return np.meshgrid(*(voxel_centres(n).numpy() for n in shape), indexing="ij")


@pytest.fixture(scope="module")
def letter():
    """An L 1 wide and 1.5 high whose foot points to the right, thicker towards the viewer's side."""
    z, y, x = box()
    values = np.zeros((2, 24, 24, 24), np.float32)
    stem = (abs(x + 0.375) < 0.125) & (abs(y) < 0.75)
    foot = (abs(x) < 0.5) & (y > 0.5) & (y < 0.75)
    values[0] = 60.0 * ((stem & (abs(z) < 0.125)) | (foot & (z < 0.125) & (z > -0.375)))
    values[1] = np.where(stem, 0.25, 0.75)
    return values


@pytest.mark.parametrize("suffix", MESH_FORMATS)
def test_every_format_comes_back_closed_upright_and_in_its_unit(trimesh, letter, tmp_path, suffix):
    report = export_mesh(letter, tmp_path / f"m{suffix}", matter="all", size_mm=75.0, description={"run": "x"})
    mesh = trimesh.load(tmp_path / f"m{suffix}", force="mesh")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    unit = 1e-3 if suffix == ".glb" else 1.0
    assert mesh.volume == pytest.approx(report.volume_mm3 * unit**3, rel=1e-4)
    assert mesh.volume > 0
    assert max(mesh.extents) == pytest.approx(75.0 * unit, rel=1e-5)
    up, front = (1, 2) if suffix in (".obj", ".glb") else (2, 1)
    towards = 1.0 if front == 2 else -1.0
    assert mesh.extents.argmax() == up
    foot = mesh.vertices[mesh.vertices[:, 0] > 0.1 * 75.0 / 1.5 * unit]
    assert foot[:, up].max() < 0  # the foot is below,
    assert (towards * foot[:, front]).max() > -(towards * foot[:, front]).min()  # and reaches out to the viewer
    told = json.loads((tmp_path / f"m{suffix}.json").read_text())
    assert told["run"] == "x"
    assert told["report"]["watertight"] is True
    assert told["unit"] == ("m" if suffix == ".glb" else "mm")


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".obj", ".glb"])
def test_vtk_reads_the_same_solid(letter, tmp_path, suffix):
    need(importlib.util.find_spec("pyvista"), "pyvista is not installed")
    pyvista = importlib.import_module("pyvista")
    report = export_mesh(letter, tmp_path / f"m{suffix}", matter="all")
    mesh = pyvista.read(tmp_path / f"m{suffix}")
    if isinstance(mesh, pyvista.MultiBlock):
        mesh = mesh.combine().extract_surface(algorithm="dataset_surface")
    mesh = mesh.clean()
    assert mesh.n_open_edges == 0
    unit = 1e-3 if suffix == ".glb" else 1.0
    assert mesh.volume == pytest.approx(report.volume_mm3 * unit**3, rel=1e-4)


def test_the_khronos_validator_finds_nothing(letter, tmp_path):
    program = (
        "const v = require('gltf-validator'), f = require('fs');"
        "v.validateBytes(new Uint8Array(f.readFileSync(process.argv[1]))).then(r => console.log(JSON.stringify(r)))"
    )
    node = shutil.which("node")
    known = node and subprocess.run([node, "-e", "require('gltf-validator')"], capture_output=True).returncode == 0
    need(known, "gltf-validator is not installed (npm install gltf-validator, NODE_PATH)")
    export_mesh(letter, tmp_path / "m.glb")
    said = subprocess.run([str(node), "-e", program, str(tmp_path / "m.glb")], capture_output=True, text=True)
    issues = json.loads(said.stdout)["issues"]
    assert issues["numErrors"] == 0, issues
    assert issues["numWarnings"] == 0, issues


def test_a_ball_has_a_balls_volume_and_size(tmp_path):
    z, y, x = box((40, 40, 40))
    values = np.zeros((2, 40, 40, 40), np.float32)
    values[0] = 40.0 / (1.0 + np.exp(40.0 * (np.sqrt(x * x + y * y + z * z) - 0.6)))
    report = export_mesh(values, tmp_path / "m.ply", level=20.0, size_mm=60.0)
    assert report.volume_mm3 == pytest.approx(4 / 3 * np.pi * 30.0**3, rel=0.02)  # opacity's level is not its half
    assert report.bounding_box_mm == pytest.approx((60.0, 60.0, 60.0), rel=0.01)
    assert (report.pieces, report.largest_share, report.watertight) == (1, 1.0, True)
    assert report.match is None


def test_a_wall_is_as_thick_as_it_is_and_pieces_are_counted(tmp_path):
    z, _, x = box((40, 40, 40))
    values = np.zeros((2, 40, 40, 40), np.float32)
    values[0][(abs(x) < 0.9) & (abs(z + 0.5) < 0.1)] = 200.0  # a wall of 0.2, 4 voxels
    values[0, 30:36, 10:30, 10:30] = 200.0  # a block of 0.3
    report = export_mesh(values, tmp_path / "m.stl", size_mm=100.0)
    mm_per_unit = 100.0 / 2.0  # along y the wall reaches from -1 to 1
    assert report.pieces == 2
    assert report.thinnest_wall_mm == pytest.approx(0.2 * mm_per_unit, abs=0.5 * 2 / 40 * mm_per_unit)
    alone = export_mesh(values, tmp_path / "m.stl", largest_only=True)
    assert alone.pieces == 1
    assert alone.faces < report.faces


def test_what_touches_the_border_is_closed(tmp_path):
    report = export_mesh(np.stack([np.full((4, 5, 6), 9.0), np.zeros((4, 5, 6))]), tmp_path / "m.stl")
    assert report.watertight
    assert report.volume_mm3 > 0


def test_only_bright_matter_unless_all_is_asked_for(trimesh, tmp_path):
    z, y, x = box()
    values = np.zeros((2, 24, 24, 24), np.float32)
    values[0][(x > 0.1) & (x < 0.6) & (abs(y) < 0.3) & (abs(z) < 0.3)] = 50.0
    values[0][(x < -0.1) & (x > -0.6) & (abs(y) < 0.3) & (abs(z) < 0.3)] = 50.0
    values[1][x < 0] = 1.0
    assert export_mesh(values, tmp_path / "m.ply").pieces == 1
    assert export_mesh(values, tmp_path / "m.ply", matter="all").pieces == 2
    mesh = trimesh.load(tmp_path / "m.ply")
    colours = np.asarray(mesh.visual.vertex_colors)[:, 0]
    assert set(colours[mesh.vertices[:, 0] > 0]) == {255}
    assert set(colours[mesh.vertices[:, 0] < 0]) == {0}


def test_the_level_is_the_one_that_looks_like_the_images():
    """A body of 40 in fog of 2 that hides nothing: every level between the two shows the body alone."""
    z, y, x = box()
    values = np.zeros((2, 24, 24, 24), np.float32)
    values[0][(x * x + y * y + z * z) < 0.8] = 0.02
    values[0][(abs(x) < 0.25) & (abs(y) < 0.6) & (abs(z) < 0.25)] = 40.0
    for matter in ("bright", "all"):
        level, match = best_level(values, matter)
        assert 0.05 < level < 40.0
        assert match > 0.8
    assert best_level(np.zeros((2, 4, 4, 4), np.float32), "all") == (0.0, 0.0)


@pytest.mark.parametrize("matter", ["bright", "all"])
def test_a_finer_grid_is_compared_as_a_coarser_one(matter):
    random = np.random.default_rng(0)
    values = np.repeat(np.repeat(np.repeat(random.random((2, 8, 8, 8)), 8, 1), 8, 2), 8, 3).astype(np.float32)
    values[0] = 40.0 * values[0] ** 4
    fine = values.repeat(2, 1).repeat(2, 2).repeat(2, 3)
    assert best_level(fine, matter) == pytest.approx(best_level(values, matter), rel=1e-5)  # means in float32


def test_smoothing_keeps_it_closed_and_shrinks_its_area(trimesh, letter, tmp_path):
    export_mesh(letter, tmp_path / "rough.stl", matter="all", size_mm=10.0)
    smooth = export_mesh(letter, tmp_path / "smooth.stl", matter="all", size_mm=10.0, smoothing=10)
    assert smooth.watertight
    assert trimesh.load(tmp_path / "smooth.stl").area < trimesh.load(tmp_path / "rough.stl").area


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("m.fbx", {}, [".fbx", ".ply, .stl, .obj, .glb, .3mf"]),
        ("m.stl", {"level": 1e5}, ["nothing is solid there", "<= 45"]),
        ("m.stl", {"level": 0.0}, ["must be > 0 and <="]),
        ("m.stl", {"size_mm": 0.0}, ["size_mm=0.0", "in [0.1, 10000]"]),
        ("m.stl", {"smoothing": -1}, ["smoothing=-1"]),
    ],
)
def test_mistakes(letter, tmp_path, name, options, words):
    with pytest.raises(ExportError) as failed:
        export_mesh(letter, tmp_path / name, **options)
    assert all(word in str(failed.value) for word in words), failed.value
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("options", [{}, {"largest_only": True}])
def test_a_level_that_leaves_no_surface_is_one_line(tmp_path, options):
    values = np.zeros((2, 8, 8, 8), np.float32)
    values[0, 3, 3, 3] = 7.0
    with pytest.raises(ExportError, match="level=7: no surface is left there") as failed:
        export_mesh(values, tmp_path / "m.stl", level=7.0, **options)
    assert "\n" not in str(failed.value)
    assert os.listdir(tmp_path) == []
    assert export_mesh(values, tmp_path / "m.stl", level=6.9).faces == 8


def test_an_empty_volume_is_one_line(tmp_path):
    with pytest.raises(ExportError, match="the volume is empty"):
        export_mesh(np.zeros((2, 4, 4, 4)), tmp_path / "m.stl")
    assert os.listdir(tmp_path) == []
