"""Voxel files, each read by a program that had no part in writing it."""

import importlib
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from mnist3d.export import VOXEL_FORMATS, export_voxels, voxel_arrays
from mnist3d.formats import from_upright, upright, world_voxels
from mnist3d.geometry.grids import voxel_centres
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes import Volume, VoxelGrid
from mnist3d.volumes.wrappers import GridField
from tests.conftest import need

SHAPE = (12, 16, 20)  # z, y, x: every axis another length, so another spacing
MM = 0.5
SCALE = MM * 20 / 2.0  # mm in a world unit
SPACING = tuple(2.0 * SCALE / n for n in SHAPE)


@pytest.fixture(scope="module")
def phantom():
    """An L that no rotation or mirroring maps onto itself, and noise that tells every voxel from every other."""
    random = np.random.default_rng(0)
    array = random.random((2, *SHAPE)).astype(np.float32)
    array[0, 2:4, 3:13, 4:6] += 30.0
    array[0, 2:4, 11:13, 4:15] += 30.0
    array[0, 9, 1, 17] = 300.0
    return array


def reader(module, package=None):
    need(importlib.util.find_spec(module), f"{package or module} is not installed")
    return importlib.import_module(module)


def place(k, j, i):
    """Where voxel (k, j, i) of the phantom is in the upright frame (right, away, up), in mm; by hand, not by export."""
    x, y, z = ((2 * i + 1) / 20 - 1, (2 * j + 1) / 16 - 1, (2 * k + 1) / 12 - 1)
    return x * SCALE, z * SCALE, -y * SCALE


def landmarks():
    """Voxels at the corners and within."""
    return [(0, 0, 0), (11, 0, 0), (0, 15, 0), (0, 0, 19), (9, 1, 17), (3, 12, 14), (5, 6, 7)]


def expected(phantom):
    """Both channels in the file's unit, as (up, away, right) by index arithmetic of its own."""
    turned = np.empty((2, SHAPE[1], SHAPE[0], SHAPE[2]), np.float32)
    for k in range(SHAPE[0]):
        for j in range(SHAPE[1]):
            turned[:, SHAPE[1] - 1 - j, k, :] = phantom[:, k, j, :]
    turned[0] /= np.float32(SCALE)
    return turned


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mrc"])
def test_itk_reads_one_channel_files(phantom, tmp_path, suffix):
    sitk = reader("SimpleITK")
    export_voxels(phantom, tmp_path / f"p{suffix}", voxel_size_mm=MM)
    for channel, name in enumerate(("p", "p_absorbance")):
        image = sitk.ReadImage(str(tmp_path / f"{name}{suffix}"))
        assert np.array_equal(sitk.GetArrayFromImage(image), expected(phantom)[channel])
        assert image.GetSpacing() == pytest.approx([SPACING[axis] for axis in (2, 0, 1)], rel=1e-6)
        for k, j, i in landmarks():
            index = image.TransformPhysicalPointToIndex(place(k, j, i))
            value = phantom[channel, k, j, i] / (np.float32(SCALE) if channel == 0 else 1)
            assert image.GetPixel(index) == value


def test_vtk_reads_both_channels_of_vti(phantom, tmp_path):
    pyvista = reader("pyvista")
    mesh = pyvista.read(export_voxels(phantom, tmp_path / "p.vti", voxel_size_mm=MM))
    for channel, name in enumerate(("attenuation", "absorbance")):
        values = mesh.point_data[name].reshape(mesh.dimensions[::-1])
        assert np.array_equal(values, expected(phantom)[channel])
    for k, j, i in landmarks():
        found = mesh.find_closest_point(place(k, j, i))
        assert mesh.points[found] == pytest.approx(place(k, j, i), abs=1e-6)
        assert mesh.point_data["absorbance"][found] == phantom[1, k, j, i]


def test_vtk_reads_nrrd(phantom, tmp_path):
    pyvista = reader("pyvista")
    mesh = pyvista.read(export_voxels(phantom, tmp_path / "p.nrrd", voxel_size_mm=MM))
    for k, j, i in landmarks():
        found = mesh.find_closest_point(place(k, j, i))
        assert mesh.points[found] == pytest.approx(place(k, j, i), abs=1e-6)
        assert mesh.active_scalars[found] == phantom[0, k, j, i] / np.float32(SCALE)


OPENVDB = """
import json, sys, numpy
try:
    import openvdb
except ImportError:
    import pyopenvdb as openvdb
grids, metadata = openvdb.readAll(sys.argv[1])
shape, found = json.loads(sys.argv[2]), {}
for grid in grids:
    array = numpy.zeros(shape, numpy.float32)
    grid.copyToArray(array)
    found[grid.name] = array
    first, last = (grid.transform.indexToWorld(corner) for corner in ((0, 0, 0), tuple(n - 1 for n in shape)))
    found[grid.name + "_corners"] = numpy.array([first, last])
    found[grid.name + "_background"] = numpy.array(grid.background)
    found[grid.name + "_active"] = numpy.array(grid.activeVoxelCount())
numpy.savez(sys.argv[3], metadata=json.dumps(metadata), **found)
"""


def read_vdb(path, shape):
    """All grids of a file as OpenVDB reads them, by the system's Python, which Debian's python3-openvdb serves."""
    python = "/usr/bin/python3"
    probe = "try:\n import openvdb\nexcept ImportError:\n import pyopenvdb"
    found = Path(python).exists() and subprocess.run([python, "-c", probe], capture_output=True).returncode == 0
    need(found, "OpenVDB's Python module is not installed (apt-get install python3-openvdb)")
    out = path.with_suffix(".npz")
    command = [python, "-c", OPENVDB, str(path), json.dumps(shape), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(out)


def test_openvdb_reads_three_grids(phantom, tmp_path):
    path = export_voxels(phantom, tmp_path / "p.vdb", voxel_size_mm=MM, description={"run": "of seven"})
    read = read_vdb(path, (20, 12, 16))
    attenuation, absorbance = (channel.transpose(2, 1, 0) for channel in expected(phantom))
    wanted = {"attenuation": attenuation, "absorbance": absorbance, "density": attenuation * (1 - absorbance)}
    for name, array in wanted.items():
        assert np.array_equal(read[name], array), name
        corners = [place(0, 15, 0), place(11, 0, 19)]
        assert read[f"{name}_corners"] == pytest.approx(np.array(corners), abs=1e-6)
    assert json.loads(json.loads(str(read["metadata"]))["mnist3d"])["run"] == "of seven"


def test_openvdb_reads_sparse_grids_of_many_nodes(tmp_path):
    """More than one node of 128^3, an edge that no leaf divides, and empty leaves left out."""
    array = np.zeros((2, 9, 20, 300), np.float32)
    random = np.random.default_rng(1)
    array[0, 3, :5, 120:140] = 1.0 + random.random((5, 20))
    array[0, 8, 19, 299] = 7.0
    read = read_vdb(export_voxels(array, tmp_path / "p.vdb"), (300, 9, 20))
    assert np.array_equal(read["attenuation"], array[0, :, ::-1].transpose(2, 0, 1))
    assert read["attenuation_active"] == 101
    assert not read["absorbance"].any()


def test_vdb_print_reads_the_file(phantom, tmp_path):
    need(shutil.which("vdb_print"), "vdb_print is not installed (apt-get install libopenvdb-tools)")
    path = export_voxels(phantom, tmp_path / "p.vdb", voxel_size_mm=MM)
    said = subprocess.run(["vdb_print", "-l", str(path)], capture_output=True, text=True, check=True)
    assert said.stdout.count("class: fog volume") == 3
    assert said.stdout.count("voxel dimensions: [0.5, 0.833, 0.625]") == 3
    assert "rror" not in said.stdout + said.stderr


def test_magicavoxels_file_holds_the_solid_in_greys(tmp_path):
    models = reader("voxypy.models", "voxypy")
    array = np.zeros((2, *SHAPE), np.float32)
    array[0, 2:4, 3:13, 4:6] = array[0, 2:4, 11:13, 4:15] = 40.0
    array[1, 2:4, 3:13, 4:6] = 0.25
    array[1, 2:4, 11:13, 6:15] = 1.0
    dense = models.Entity().from_file(str(export_voxels(array, tmp_path / "p.vox"))).get_dense()
    colours = np.where(array[0] > 0, 1 + np.rint(254 * (1 - array[1])), 0)[:, ::-1].transpose(2, 0, 1)
    assert np.array_equal(dense, colours)
    palette = (tmp_path / "p.vox").read_bytes()[-1024:]
    assert palette[:4] == bytes([0, 0, 0, 255])
    assert palette[254 * 4 : 255 * 4] == bytes([255, 255, 255, 255])


def test_magicavoxels_file_leaves_the_fog_out(tmp_path):
    """Its cubes are the solid at the level that its .json names."""
    array = np.zeros((2, *SHAPE), np.float32)
    array[0] = 0.1
    array[0, 4:8, 6:10, 6:14] = 40.0
    export_voxels(array, tmp_path / "p.vox")
    told = json.loads((tmp_path / "p.vox.json").read_text())
    assert 0.1 < told["level"] < 40.0
    assert 0.5 < told["match"] <= 1.0
    assert told["cubes"] == 4 * 4 * 8
    export_voxels(np.zeros((2, 3, 3, 3)), tmp_path / "empty.vox")
    assert json.loads((tmp_path / "empty.vox.json").read_text())["cubes"] == 0


def test_raw_is_what_its_json_says(phantom, tmp_path):
    path = export_voxels(phantom, tmp_path / "p.raw", voxel_size_mm=MM)
    told = json.loads((tmp_path / "p.raw.json").read_text())
    assert told["dtype"] == "float16, little-endian"
    assert told["order"] == "x fastest, then y, then z"
    texture = np.fromfile(path, "<f2").reshape(told["depth"], told["height"], told["width"], len(told["texel"]))
    for k, j, i in landmarks():
        texel = texture[k, SHAPE[1] - 1 - j, i]  # y up
        assert texel[0] == np.float16(phantom[0, k, j, i] / np.float32(SCALE))
        assert texel[1] == np.float16(phantom[1, k, j, i])


def test_tif_is_read_page_by_page_and_carries_its_scale(phantom, tmp_path):
    from PIL import Image

    with Image.open(export_voxels(phantom, tmp_path / "p.tif", voxel_size_mm=MM)) as image:
        said = str(image.tag_v2[270])
        assert [1 / float(image.tag_v2[tag]) for tag in (282, 283)] == pytest.approx([SPACING[2], SPACING[1]], rel=1e-5)
        assert f"spacing={SPACING[0]}" in said
        for line in ("unit=mm", "channels=2", "slices=12", "hyperstack=true"):
            assert line in said
        for k in range(SHAPE[0]):
            for channel, factor in ((0, np.float32(SCALE)), (1, np.float32(1))):
                image.seek(2 * k + channel)
                assert np.array_equal(np.asarray(image), phantom[channel, k] / factor)


def test_itk_reads_tif(phantom, tmp_path):
    sitk = reader("SimpleITK")
    pages = sitk.GetArrayFromImage(sitk.ReadImage(str(export_voxels(phantom, tmp_path / "p.tif"))))
    assert np.array_equal(pages[1::2], phantom[1])


def test_npz_says_its_axes_and_units(phantom, tmp_path):
    with np.load(export_voxels(phantom, tmp_path / "p.npz", voxel_size_mm=MM)) as file:
        assert np.array_equal(file["attenuation"], phantom[0] / np.float32(SCALE))
        assert np.array_equal(file["absorbance"], phantom[1])
        assert file["spacing_xyz"] == pytest.approx(SPACING[::-1])
        assert file["origin_xyz"] == pytest.approx([step / 2 - SCALE for step in SPACING[::-1]])
        assert [str(file[key]) for key in ("axes", "unit", "attenuation_unit")] == ["ZYX", "mm", "1 / mm"]


@pytest.mark.parametrize("suffix", VOXEL_FORMATS)
def test_every_format_has_its_description_beside_it(phantom, tmp_path, suffix):
    description = {"run": "of seven", "step": 12, "config": {"seed": 3}, "mnist3d": "0", "command": ["x"]}
    path = export_voxels(phantom, tmp_path / f"p{suffix}", description=description)
    told = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert {key: told[key] for key in description} == description
    assert told["resolution_zyx"] == list(SHAPE)
    assert told["unit"] == "world unit"
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


class Ball(Volume):
    """A field, as small as one can be."""

    def forward(self, points):
        return 3.0 * (points.norm(dim=-1) < 0.7), 0.5 + 0.4 * points[..., 0].clamp(-1, 1)


def test_a_field_is_sampled_at_voxel_centres_in_the_worlds_axes():
    values = voxel_arrays(Ball(), 10)
    z, y, x = np.meshgrid(*[voxel_centres(10).numpy()] * 3, indexing="ij")
    assert np.array_equal(values[0] > 0, np.sqrt(x * x + y * y + z * z) < 0.7)
    assert values[1] == pytest.approx(0.5 + 0.4 * x, abs=1e-6)


def test_voxels_that_no_ray_meets_are_emptied_and_the_image_stays():
    volume = VoxelGrid(16, initial_opacity=0.2)
    values = voxel_arrays(volume)
    assert values[0, 0, 0, 0] == 0.0
    assert values[0, 8, 8, 8] > 0.0
    assert volume.to_array()[0, 0, 0, 0] > 0.0
    given = torch.ones(2, 16, 16, 16)  # a field that hands out its own array, which is not touched
    assert voxel_arrays(GridField(given))[0, 0, 0, 0] == 0.0
    assert bool((given == 1.0).all())
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    rotation = rotation * torch.linalg.det(rotation)
    renderer = AbsorptionRenderer(20)
    before, after = renderer(volume, rotation), renderer(VoxelGrid.from_array(values), rotation)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)  # from_array keeps raw values in fp32


def test_coarser_grids_lose_no_light_and_finer_ones_interpolate():
    values = np.zeros((2, 8, 8, 8), np.float32)
    values[0, 3:5, 3:5, 2:6] = 10.0
    values[1, 3:5, 3:5, 2:6] = 0.25
    volume = VoxelGrid.from_array(values)
    coarse = voxel_arrays(volume, 4)
    assert coarse[0].mean() == pytest.approx(values[0].mean(), rel=1e-5)
    assert coarse[1][coarse[0] > 0.1] == pytest.approx(0.25, abs=1e-6)  # what is empty dilutes no absorbance
    fine = voxel_arrays(volume, 16)
    points = torch.stack(torch.meshgrid(*[voxel_centres(16)] * 3, indexing="ij")[::-1], -1).float()
    assert fine == pytest.approx(torch.stack(volume(points)).detach().numpy(), abs=1e-5)


def test_upright_is_a_rotation_and_lengths_follow():
    values = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    voxels = world_voxels(values, MM)
    assert voxels.spacing == pytest.approx(SPACING[::-1])
    assert min(voxels.spacing) == pytest.approx(MM)
    assert upright(voxels.attenuation).shape == (16, 12, 20)
    assert np.array_equal(from_upright(upright(values[1])), values[1])
    assert np.linalg.det([place(0, 0, 10), place(0, 8, 0), place(6, 0, 0)]) != 0
