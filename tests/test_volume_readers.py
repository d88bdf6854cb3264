"""Volumes come back from other tools' files, whatever their axes, and can be sculpted on."""

import importlib
import importlib.util
import sys

import numpy as np
import pytest
import torch

from mnist3d.errors import VolumeFileError
from mnist3d.export import export_voxels
from mnist3d.formats import read_voxels
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes import VoxelGrid
from tests.conftest import need

SHAPE = (12, 16, 20)
MODULES = {".nrrd": "nrrd", ".nii.gz": "nibabel", ".mrc": "mrcfile", ".vti": "vtkmodules", ".npz": "numpy"}


@pytest.fixture(scope="module")
def array():
    random = np.random.default_rng(0)
    values = random.random((2, *SHAPE)).astype(np.float32)
    values[0] *= 40.0
    return values


def library(module):
    need(importlib.util.find_spec(module), f"{module} is not installed")
    return importlib.import_module(module)


@pytest.mark.parametrize("voxel_size_mm", [None, 0.37])
@pytest.mark.parametrize("suffix", MODULES)
def test_our_own_files_come_back(array, tmp_path, suffix, voxel_size_mm):
    library(MODULES[suffix])
    path = export_voxels(array, tmp_path / f"p{suffix}", voxel_size_mm=voxel_size_mm)
    # attenuation is divided by the unit of length and multiplied with it again, both in fp32
    assert read_voxels(path) == pytest.approx(array, rel=1e-6, abs=0)


def in_patient_space(sitk, path, spacing, directions, place):
    """A small image with one bright voxel, written by ITK with axes of its own; returns the bright voxel's index."""
    image = sitk.Image([6, 6, 6], sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetDirection(directions)
    middle = image.TransformContinuousIndexToPhysicalPoint([2.5] * 3)
    image.SetOrigin([-value for value in middle])
    index = image.TransformPhysicalPointToIndex(place)
    image[index] = 5.0
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
@pytest.mark.parametrize(
    "directions",
    [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), (0, 0, 1, 1, 0, 0, 0, -1, 0)],
    ids=["as ours", "turned", "permuted"],
)
def test_itks_files_of_any_orientation_lie_where_they_should(tmp_path, suffix, directions):
    """A voxel to the left (+x), in front (-y) and above (+z) of the patient is at the right, near and up for us."""
    sitk = library("SimpleITK")
    library(MODULES[suffix])
    place = (2.0 / 6 * 2.5, -2.0 / 6 * 1.5, 2.0 / 6 * 0.5)
    in_patient_space(sitk, tmp_path / f"a{suffix}", [2.0 / 6] * 3, [float(d) for d in directions], place)
    values = read_voxels(tmp_path / f"a{suffix}")
    assert values.shape == (2, 6, 6, 6)
    (k, j, i) = (int(found[0]) for found in np.nonzero(values[0]))
    assert ((2 * i + 1) / 6 - 1, (2 * j + 1) / 6 - 1, (2 * k + 1) / 6 - 1) == pytest.approx(
        (place[0], -place[2], place[1])
    )
    assert values[0].max() == pytest.approx(5.0)
    assert not values[1].any()


def test_mrcs_columns_may_be_any_axis(tmp_path):
    mrcfile = library("mrcfile")
    stored = np.zeros((6, 6, 6), np.float32)
    stored[0, 1, 3] = 5.0  # section, row, column
    with mrcfile.new(str(tmp_path / "a.mrc")) as mrc:
        mrc.set_data(stored)
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = 3, 1, 2  # columns along z (up), rows x, sections y (away)
        mrc.voxel_size = 1.0
    values = read_voxels(tmp_path / "a.mrc")
    assert np.argwhere(values[0]).tolist() == [[0, 6 - 1 - 3, 1]]  # z away, y down, x right


def test_nifti_of_one_moment_is_a_volume(tmp_path):
    nibabel = library("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4, 1), np.float32), np.eye(4)), str(tmp_path / "a.nii"))
    assert read_voxels(tmp_path / "a.nii").shape == (2, 4, 4, 4)


def test_vtis_arrays_are_found_by_name_or_else_the_first_is_taken(tmp_path):
    pyvista = library("pyvista")
    image = pyvista.ImageData(dimensions=(2, 2, 2))
    image.point_data["heat"], image.point_data["attenuation"] = np.full(8, 2.0), np.full(8, 3.0)
    image.save(tmp_path / "named.vti")
    image.point_data.remove("attenuation")
    image.save(tmp_path / "other.vti")
    assert set(read_voxels(tmp_path / "named.vti")[0].ravel()) == {3.0}  # 2 long, as the world
    assert set(read_voxels(tmp_path / "other.vti")[0].ravel()) == {2.0}
    image.point_data.clear()
    image.save(tmp_path / "none.vti")
    with pytest.raises(VolumeFileError, match="holds no point or cell data"):
        read_voxels(tmp_path / "none.vti")


def test_a_flat_box_keeps_its_proportions(tmp_path):
    nrrd = library("nrrd")
    header = {"space": "LPS", "space directions": np.diag([1.0, 1.0, 2.0]), "space origin": np.zeros(3)}
    nrrd.write(str(tmp_path / "flat.nrrd"), np.ones((8, 6, 2), np.float32), header)  # 8 wide, 6 deep, 4 high
    values = read_voxels(tmp_path / "flat.nrrd")
    assert values.shape == (2, 8, 4, 8)
    filled = np.nonzero(values[0])
    assert [(int(found.min()), int(found.max())) for found in filled] == [(1, 6), (1, 2), (0, 7)]
    assert values[0].max() == pytest.approx(8 / 2)  # 1 per unit of the file, of which the cube is 8 wide


def test_an_edge_of_no_whole_number_of_voxels_keeps_place_and_depth(tmp_path):
    nrrd = library("nrrd")
    header = {"space": "LPS", "space directions": np.diag([1.0, 1.0, 3.0]), "space origin": np.zeros(3)}
    data = np.ones((8, 8, 2), np.float32)
    data[..., 1] = 3.0
    nrrd.write(str(tmp_path / "thick.nrrd"), data, header)  # 8 wide and deep; two slices of 3, so 2.67 fill the cube
    values = read_voxels(tmp_path / "thick.nrrd")
    assert values.shape == (2, 8, 3, 8)
    # The cube's edge of 8 is cut into three; the slices reach from 1 to 4 and 4 to 7, the upper one is the brighter.
    top, middle, bottom = values[0, 4, :, 4] / 4.0  # to attenuation per unit of the file
    assert (bottom, middle, top) == pytest.approx(((8 / 3 - 1) / (8 / 3), 2.0, 3 * (8 / 3 - 1) / (8 / 3)))
    assert (top + middle + bottom) * 8 / 3 == pytest.approx(3.0 + 9.0)  # optical depth
    assert not values[1].any()
    nrrd.write(str(tmp_path / "thick_absorbance.nrrd"), 0.25 * (data == 1.0), header)
    # in the middle a half of 1 with absorbance 1/4 and a half of 3 with 0
    assert read_voxels(tmp_path / "thick.nrrd")[1, 4, :, 4] == pytest.approx([0.0, 0.0625, 0.25])


def test_thick_slices_of_a_thin_box_leave_the_cube_empty_around_it(tmp_path):
    """A coronal scan: its slices are stacked along the line of sight, where the cube is 18 long and the box 6.6."""
    nrrd = library("nrrd")
    header = {"space": "LPS", "space directions": np.diag([1.0, 3.3, 1.0]), "space origin": np.zeros(3)}
    nrrd.write(str(tmp_path / "coronal.nrrd"), np.ones((18, 2, 18), np.float32), header)
    values = read_voxels(tmp_path / "coronal.nrrd")
    assert values.shape == (2, 5, 18, 18)  # 18 / 3.3 = 5.45
    along = values[0].mean(axis=(1, 2)) / 9.0  # to attenuation per unit of the file
    # Parts of 3.6; the slices reach from 5.7 to 12.3.
    assert along == pytest.approx([0.0, 1.5 / 3.6, 1.0, 1.5 / 3.6, 0.0], abs=1e-6)


def test_edges_uneven_along_two_axes_lose_no_matter(tmp_path):
    """5 x 2 x 8 voxels of 1.5 x 3 x 1: the cube's edge of 8 is 5.33 and 2.67 of them long, so 5 and 3 are made."""
    nrrd = library("nrrd")
    data = np.random.default_rng(0).random((5, 2, 8)).astype(np.float32)
    header = {"space": "LPS", "space directions": np.diag([1.5, 3.0, 1.0]), "space origin": np.zeros(3)}
    nrrd.write(str(tmp_path / "a.nrrd"), data, header)
    nrrd.write(str(tmp_path / "a_absorbance.nrrd"), np.full((5, 2, 8), 0.3, np.float32), header)
    values = read_voxels(tmp_path / "a.nrrd")
    assert values.shape == (2, 3, 8, 5)  # z away, y down, x right
    found = values[0].sum(axis=(0, 2)) / 4.0 * (8 / 3) * (8 / 5)  # of each layer, in units of the file: a half is 4
    # float32, sums of some products
    assert found == pytest.approx(data.sum(axis=(0, 1))[::-1] * 1.5 * 3.0, rel=1e-5)
    assert values[1][values[0] > 0] == pytest.approx(0.3, rel=1e-5)


def test_axes_that_run_the_same_way_are_one_line_with_the_files_name(tmp_path):
    nrrd = library("nrrd")
    header = {"space": "LPS", "space directions": np.ones((3, 3)), "space origin": np.zeros(3)}
    nrrd.write(str(tmp_path / "flat.nrrd"), np.zeros((2, 2, 2), np.float32), header)
    with pytest.raises(VolumeFileError, match=r"flat\.nrrd: its axes' directions are degenerate"):
        read_voxels(tmp_path / "flat.nrrd")


def test_a_neighbour_of_another_shape_is_no_absorbance(array, tmp_path):
    nrrd = library("nrrd")
    export_voxels(array, tmp_path / "p.nrrd")
    nrrd.write(str(tmp_path / "p_absorbance.nrrd"), np.zeros((2, 2, 2), np.float32))
    with pytest.raises(VolumeFileError, match=r"absorbance \(2, 2, 2\) does not fit attenuation \(12, 16, 20\)"):
        read_voxels(tmp_path / "p.nrrd")


def test_what_is_too_large_is_refused_by_its_header(tmp_path, monkeypatch):
    """A few kilobytes of zeros, compressed, must not fill the memory first."""
    long = np.zeros((2000, 2, 2), np.float32)
    np.savez_compressed(tmp_path / "a.npz", attenuation=long, absorbance=long, spacing_xyz=np.ones(3))
    np.save(tmp_path / "a.npy", long)
    library("nrrd").write(str(tmp_path / "a.nrrd"), long)
    nibabel = library("nibabel")
    nibabel.save(nibabel.Nifti1Image(long, np.eye(4)), str(tmp_path / "a.nii.gz"))

    with library("mrcfile").new(str(tmp_path / "a.mrc")) as mrc:
        mrc.set_data(long)

    def never(*args, **kwargs):
        raise AssertionError("read the voxels")

    monkeypatch.setattr("numpy.lib.format.read_array", never)
    monkeypatch.setattr("nrrd.read", never)
    monkeypatch.setattr("mrcfile.mrcfile.MrcFile._read_data", never)
    for read in ("__array__", "__getitem__"):
        monkeypatch.setattr(f"nibabel.arrayproxy.ArrayProxy.{read}", never)
    for name in ("a.npz", "a.npy", "a.nrrd", "a.nii.gz", "a.mrc"):
        with pytest.raises(VolumeFileError, match=r"in \[1, 1024\]"):
            read_voxels(tmp_path / name)


def test_a_detached_header_reads_a_file_of_its_own_folder_only(tmp_path):
    """Whoever makes a header must not learn what lies elsewhere on the reader's disk."""
    library("nrrd")
    head = "NRRD0004\ntype: float\ndimension: 3\nsizes: 2 2 2\nendian: little\nencoding: raw\ndata file: "
    inside, outside = tmp_path / "inside", tmp_path / "secret.raw"
    (inside / "below").mkdir(parents=True)
    content = np.arange(8, dtype="<f4").tobytes()
    for file in (outside, inside / "a.raw", inside / "below" / "a.raw"):
        file.write_bytes(content)
    (inside / "link.raw").symlink_to(outside)

    def read(name, suffix=".nhdr"):
        path = inside / f"a{suffix}"
        path.write_text(head + name + "\n")
        return read_voxels(path)

    for name in ("a.raw", "./below/a.raw", str(inside / "a.raw")):
        assert set(read(name)[0].ravel()) == set(range(8))  # 2 long, as the world
    assert set(read("a.raw", ".nrrd")[0].ravel()) == set(range(8))
    for name in ("../secret.raw", str(outside), "link.raw", "below/../../secret.raw"):
        with pytest.raises(VolumeFileError, match=r"its voxels lie in another folder .*; must be in the header's own"):
            read(name)
    for name in ("LIST", "a%d.raw 1 2 1"):
        with pytest.raises(VolumeFileError, match="in several files"):
            read(name)
    with pytest.raises(VolumeFileError, match=r"lie in none\.raw, which is not beside it"):
        read("none.raw")


def test_a_lone_channel_finds_its_absorbance_beside_it(array, tmp_path):
    library("nrrd")
    export_voxels(array, tmp_path / "p.nrrd")
    (tmp_path / "p_absorbance.nrrd").unlink()
    assert not read_voxels(tmp_path / "p.nrrd")[1].any()


def test_a_file_of_both_channels_needs_no_neighbour_and_without_lengths_its_voxels_are_cubes(array, tmp_path):
    channels = dict(zip(("attenuation", "absorbance"), array, strict=True))
    np.savez(tmp_path / "p.npz", **channels, spacing_xyz=np.zeros(3))
    np.savez(tmp_path / "p_absorbance.npz", attenuation=array[0] / 40.0, absorbance=array[1], spacing_xyz=np.ones(3))
    values = read_voxels(tmp_path / "p.npz")
    assert values.shape == (2, 20, 20, 20)
    assert np.array_equal(values[1, 4:16, 2:18], array[1])
    assert values[0, 4:16, 2:18] == pytest.approx(array[0] * 20 / 2, rel=1e-6)  # 20 long, which is 2 in the world


def test_mistakes_are_one_line(array, tmp_path):
    nrrd = library("nrrd")
    (tmp_path / "a.xyz").touch()
    (tmp_path / "a.npz").write_bytes(b"PK damaged")
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\nnonsense")
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(
        tmp_path / "objects.npz", **dict.fromkeys(("attenuation", "absorbance", "spacing_xyz"), np.array([[[{}]]]))
    )
    nrrd.write(str(tmp_path / "ct.nrrd"), np.full((3, 3, 3), -1000.0, np.float32))
    nrrd.write(str(tmp_path / "long.nrrd"), np.zeros((2000, 2, 2), np.uint8))
    nrrd.write(str(tmp_path / "endless.nrrd"), np.full((3, 3, 3), np.inf, np.float32))
    thin = {"space": "LPS", "space directions": np.diag([1.0, 1.0, 1000.0]), "space origin": np.zeros(3)}
    nrrd.write(str(tmp_path / "thin.nrrd"), np.zeros((4, 4, 4), np.float32), thin)
    for name, words in (
        (
            "a.xyz",
            r"unknown suffix; must be one of \.npz, \.npy, \.nrrd, .*\.hdr, \.img, .*\.map\.gz, \.ccp4, \.vti, \.vdb",
        ),
        ("none.npz", "no such file"),
        ("a.npz", "damaged"),
        ("a.nrrd", "damaged"),
        ("a.nii.gz", "damaged"),
        ("other.npz", "holds no absorbance, attenuation, spacing_xyz"),
        ("objects.npz", "holds object values; must be integers or real numbers"),
        ("ct.nrrd", r'27 of 27 voxels are < 0, in \[-1000, -1000\].*negative="clip"'),
        ("long.nrrd", r"in \[1, 1024\]"),
        ("endless.nrrd", r'27 of 27 voxels are not finite.*not_finite="empty"'),
        ("thin.nrrd", "a cube around it has 4000 voxels an edge; it must be <= 1024"),
    ):
        with pytest.raises(VolumeFileError, match=words) as failed:
            VoxelGrid.load(tmp_path / name)
        assert "\n" not in str(failed.value)


def test_a_missing_reader_says_which(array, tmp_path, monkeypatch):
    library("nrrd")
    export_voxels(array, tmp_path / "p.nrrd")
    monkeypatch.setitem(sys.modules, "nrrd", None)
    with pytest.raises(VolumeFileError, match=r"p\.nrrd: reading it needs pynrrd: pip install .*export"):
        VoxelGrid.load(tmp_path / "p.nrrd")


def soft_box():
    values = np.zeros((2, 20, 20, 20), np.float32)
    values[0, 6:14, 4:16, 7:12] = 20.0
    values[1, 6:14, 4:10, 7:12] = 0.8
    return values


def test_the_same_view_of_the_file_and_of_what_it_was_made_from(tmp_path):
    volume = VoxelGrid.from_array(soft_box())
    again = VoxelGrid.load(export_voxels(volume, tmp_path / "p.npz", voxel_size_mm=2.0))
    rotation = torch.tensor([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, -0.6]])
    renderer = AbsorptionRenderer(24)
    # raw values in fp32, twice
    torch.testing.assert_close(renderer(again, rotation), renderer(volume, rotation), rtol=0, atol=2e-5)
