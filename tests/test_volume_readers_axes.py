"""Where a file says that its axes run, in each format's own words; what they span is never dropped."""

import importlib
import importlib.util

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mnist3d.errors import VolumeFileError
from mnist3d.formats import READERS, read_voxels
from mnist3d.formats.orientation import oriented_voxels, straightened
from mnist3d.formats.picking import Pick
from tests.conftest import need

DATA = np.zeros((4, 4, 4), np.float32)
DATA[3, 1, 0] = 5.0  # by the file's axes


def library(module):
    need(importlib.util.find_spec(module), f"{module} is not installed")
    return importlib.import_module(module)


def place(path):
    """(right, away, up) of the bright voxel, from 0."""
    values = read_voxels(path)[0]
    assert values.shape == (4, 4, 4)
    ((away, down, right),) = np.argwhere(values)
    return right, away, 3 - down


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ({}, (3, 1, 0)),
        ({"spacings": [1.0, 1.0, 1.0]}, (3, 1, 0)),
        ({"spacings": [-1.0, 1.0, 1.0]}, (0, 1, 0)),
        ({"spacings": [np.nan, 1.0, 1.0]}, (3, 1, 0)),
        ({"axis mins": [4.0, 0.0, 0.0], "axis maxs": [0.0, 4.0, 4.0]}, (0, 1, 0)),
        ({"space": "LPS", "space directions": np.eye(3)}, (3, 1, 0)),
        ({"space": "RAS", "space directions": np.eye(3)}, (0, 2, 0)),
        ({"space": "left-anterior-superior", "space directions": np.eye(3)}, (3, 2, 0)),
        ({"space": "3D-right-handed", "space directions": np.eye(3)}, (3, 1, 0)),
        ({"space": "3D-left-handed", "space directions": np.eye(3)}, (3, 2, 0)),
        ({"space": "scanner-xyz", "space directions": np.eye(3)[[1, 2, 0]]}, (0, 3, 1)),
        ({"space dimension": 3, "space directions": -np.eye(3)}, (0, 2, 3)),
    ],
)
def test_each_way_in_which_nrrd_tells_its_axes(tmp_path, header, found):
    library("nrrd").write(str(tmp_path / "a.nrrd"), DATA, header)
    assert place(tmp_path / "a.nrrd") == found


@pytest.mark.parametrize(("centers", "edge"), [(["cell"] * 3, 2.0), (["node"] * 3, 8.0 / 3.0)])
def test_nrrds_ends_of_axes_tell_its_lengths(tmp_path, centers, edge):
    header = {"axis mins": [0.0] * 3, "axis maxs": [8.0] * 3, "centerings": centers}
    library("nrrd").write(str(tmp_path / "a.nrrd"), DATA, header)
    assert READERS[".nrrd"](tmp_path / "a.nrrd", Pick()).spacing == pytest.approx([edge] * 3)


def test_a_space_of_nrrd_that_is_no_place_is_refused(tmp_path):
    header = {"space": "right-anterior-superior-time", "space directions": np.eye(3)}
    library("nrrd").write(str(tmp_path / "a.nrrd"), DATA, header)
    with pytest.raises(VolumeFileError, match=r"its space is right-anterior-superior-time; must be one of left-post"):
        read_voxels(tmp_path / "a.nrrd")


def test_niftis_sform_goes_before_its_qform_where_both_are_told(tmp_path):
    """In its standard's words, method 3 before method 2; a form of code 0 is not told."""
    nibabel = library("nibabel")
    to_the_left, mirrored = np.diag([-1.0, -1.0, 1.0, 1.0]), np.diag([1.0, -1.0, 1.0, 1.0])  # of RAS
    for sform, qform, found in ((1, 1, (3, 1, 0)), (0, 1, (0, 1, 0)), (2, 0, (3, 1, 0)), (0, 0, (3, 2, 0))):
        image = nibabel.Nifti1Image(DATA, np.eye(4))
        image.set_sform(to_the_left, sform)
        image.set_qform(mirrored, qform)
        nibabel.save(image, tmp_path / "a.nii")
        assert place(tmp_path / "a.nii") == found


def test_a_nifti_without_lengths_is_made_of_cubes(tmp_path):
    nibabel = library("nibabel")
    image = nibabel.Nifti1Image(DATA, None)
    content = bytearray(image.to_bytes())
    content[80:92] = bytes(12)  # pixdim
    (tmp_path / "a.nii").write_bytes(content)
    assert READERS[".nii"](tmp_path / "a.nii", Pick()).spacing == (1.0, 1.0, 1.0)


def test_an_mrc_of_a_slanted_cell_is_resampled(tmp_path):
    """Of a crystal: a along x, b at 60 degrees to it, so that rows move by half a voxel each."""
    mrcfile = library("mrcfile")
    data = np.zeros((8, 8, 8), np.float32)  # sections, rows, columns
    data[2:6, 1, 3], data[2:6, 5, 3] = 1.0, 1.0
    with mrcfile.new(str(tmp_path / "a.mrc")) as mrc:
        mrc.set_data(data)
        mrc.voxel_size = 1.0
        mrc.header.cellb.gamma = 60.0
    voxels = straightened(tmp_path / "a.mrc", READERS[".mrc"](tmp_path / "a.mrc", Pick()))
    assert voxels.extent == pytest.approx((12.0, 8.0, 7.0))  # 8 + 8 cos 60, z, 8 sin 60 in whole steps
    along_y = voxels.attenuation.sum(axis=(1, 2))
    near, far = along_y[:3], along_y[4:]
    assert near.sum() == pytest.approx(far.sum(), rel=1e-3)
    right = (voxels.attenuation.sum(axis=1) @ np.arange(12)) / np.maximum(along_y, 1e-6)
    middle = [float((right * along_y)[part].sum() / along_y[part].sum()) for part in (slice(0, 3), slice(4, 7))]
    # four rows further is 2 to the right; linear interpolation keeps middles up to its steps of one voxel
    assert middle[1] - middle[0] == pytest.approx(2.0, abs=0.15)


def test_the_axes_of_an_mrc_stand_at_the_angles_of_its_cell(tmp_path):
    """alpha is between b and c, beta between a and c, gamma between a and b; all in steps of their own."""
    mrcfile = library("mrcfile")
    angles = {"alpha": 80.0, "beta": 105.0, "gamma": 70.0}
    with mrcfile.new(str(tmp_path / "a.mrc")) as mrc:
        mrc.set_data(np.ones((8, 8, 8), np.float32))
        mrc.voxel_size = (1.0, 2.0, 3.0)
        for name, angle in angles.items():
            mrc.header.cellb[name] = angle
    axes = READERS[".mrc"](tmp_path / "a.mrc", Pick()).oblique
    assert axes is not None
    lengths = np.linalg.norm(axes, axis=0)
    assert lengths == pytest.approx([1.0, 2.0, 3.0])
    cosines = (axes.T @ axes) / np.outer(lengths, lengths)
    found = np.degrees(np.arccos([cosines[1, 2], cosines[0, 2], cosines[0, 1]]))
    assert found == pytest.approx(list(angles.values()))
    assert np.linalg.det(axes) > 0.0  # right-handed
    assert axes[1:, 0] == pytest.approx([0.0, 0.0])  # a along x


@pytest.mark.parametrize("axes", [(1, 1, 2), (0, 1, 2), (1, 2, 4)])
def test_axes_of_an_mrc_that_are_none_are_refused(tmp_path, axes):
    mrcfile = library("mrcfile")
    with mrcfile.new(str(tmp_path / "a.mrc")) as mrc:
        mrc.set_data(DATA)
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = axes
    with pytest.raises(VolumeFileError, match=r"mapc, mapr, maps\) are .*; must be 1, 2, 3 in any order"):
        read_voxels(tmp_path / "a.mrc")


def test_no_orthonormal_directions_are_degenerate(tmp_path):
    """One in seven was refused, as two axes may run along the same one most; none of them is thrown away."""
    matter = []
    smooth = np.exp(-((np.indices((9, 9, 9)) - 4.0) ** 2).sum(axis=0) / 4.0).astype(np.float32)
    for quaternion in np.random.default_rng(0).normal(size=(100, 4)):
        matrix = Rotation.from_quat(quaternion).as_matrix()
        voxels = straightened(tmp_path, oriented_voxels(tmp_path, [smooth], matrix))
        assert voxels.spacing == pytest.approx((1.0, 1.0, 1.0))
        matter.append(voxels.values.sum())
    # what linear interpolation does to the sum of a bell of deviation 1.4 voxels that is cut off at 3e-2 of its height
    assert np.array(matter) == pytest.approx(smooth.sum(), rel=0.01)


def test_a_small_tilt_leaves_the_values_alone_and_a_large_one_moves_them(tmp_path):
    """Half a voxel at the corner decides: 0.5 / (7 / 2 * sqrt(2)) of a radian about z, for 8 voxels."""
    data = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    limit = 2.0 * np.arcsin(0.5 / (3.5 * np.sqrt(2.0)) / 2.0)
    for angle, kept in ((0.99 * limit, True), (1.01 * limit, False)):
        matrix = Rotation.from_euler("z", angle).as_matrix()
        voxels = oriented_voxels(tmp_path, [data], matrix)
        assert (voxels.oblique is None) == kept
        assert (straightened(tmp_path, voxels).values.size == data.size) == kept


def test_the_box_of_an_oblique_volume_is_made_coarser_rather_than_too_large(tmp_path):
    thin = np.ones((1, 1, 1024), np.float32)
    matrix = Rotation.from_euler("x", 45, degrees=True).as_matrix() @ np.diag([1.0, 1.0, 2.0])
    voxels = straightened(tmp_path, oriented_voxels(tmp_path, [thin], matrix))
    assert max(voxels.shape) == 1024
    assert max(voxels.extent) == pytest.approx(2048 / np.sqrt(2.0), rel=2e-3)


def test_absorbance_is_weighted_by_attenuation_where_an_oblique_volume_is_resampled(tmp_path):
    """A thin black wall in empty space, which is bright, is black and not grey."""
    wall, bright = np.zeros((8, 8, 8), np.float32), np.zeros((8, 8, 8), np.float32)
    wall[:, 4], bright[:, 4] = 3.0, 0.75
    matrix = Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix()
    voxels = straightened(tmp_path, oriented_voxels(tmp_path, [wall, bright], matrix))
    assert voxels.tells_absorbance
    matter = voxels.attenuation > 1e-3
    assert matter.sum() > 64
    assert voxels.absorbance[matter] == pytest.approx(0.75, rel=1e-3)  # float32, of products down to 1e-3


def test_the_absorbance_beside_an_oblique_volume_must_lie_as_it_does(tmp_path):
    nrrd = library("nrrd")
    matrix = Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix()
    header = {"space": "LPS", "space directions": matrix}
    nrrd.write(str(tmp_path / "a.nrrd"), np.full((6, 6, 6), 3.0, np.float32), header)
    nrrd.write(str(tmp_path / "a_absorbance.nrrd"), np.full((6, 6, 6), 0.25, np.float32), header)
    attenuation, absorbance = read_voxels(tmp_path / "a.nrrd")
    assert attenuation.shape[0] > 6
    assert absorbance[attenuation > 0.01] == pytest.approx(0.25, rel=1e-3)  # float32, of quotients of small numbers
    for directions in (np.eye(3), matrix.T):
        nrrd.write(
            str(tmp_path / "a_absorbance.nrrd"),
            np.full((6, 6, 6), 0.25, np.float32),
            {"space": "LPS", "space directions": directions},
        )
        with pytest.raises(VolumeFileError, match=r"a_absorbance\.nrrd: its axes must run as those of a\.nrrd"):
            read_voxels(tmp_path / "a.nrrd")


@pytest.mark.parametrize("length", [0.0, np.nan])
def test_an_analyze_file_that_tells_no_lengths_has_cubes_and_the_axes_of_its_kind(tmp_path, length):
    nibabel = library("nibabel")
    data = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    nibabel.save(nibabel.AnalyzeImage(data, None), str(tmp_path / "a.img"))
    wanted = read_voxels(tmp_path / "a.hdr")
    header = bytearray((tmp_path / "a.hdr").read_bytes())
    assert np.frombuffer(header[80:92], np.float32).tolist() == [1.0] * 3  # pixdim
    header[80:92] = np.full(3, length, "<f4").tobytes()
    (tmp_path / "a.hdr").write_bytes(header)
    assert np.array_equal(read_voxels(tmp_path / "a.hdr"), wanted)


def test_a_volume_of_one_section_is_none_of_micrographs(tmp_path):
    mrcfile = library("mrcfile")
    with mrcfile.new(str(tmp_path / "a.mrc")) as mrc:
        mrc.set_data(np.ones((1, 4, 4), np.float32))
        mrc.set_volume()
        assert mrc.header.ispg == 1
    assert np.count_nonzero(read_voxels(tmp_path / "a.mrc")[0]) == 16
    with mrcfile.mmap(str(tmp_path / "a.mrc"), mode="r+") as mrc:
        mrc.header.ispg = 0
    with pytest.raises(VolumeFileError, match="2D data"):
        read_voxels(tmp_path / "a.mrc")
