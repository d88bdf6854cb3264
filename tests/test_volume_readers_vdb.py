"""OpenVDB files come back, ours and those that OpenVDB itself wrote; what it reads in them is the right value."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from mnist3d.errors import VolumeFileError
from mnist3d.export import export_voxels
from mnist3d.formats import READERS, from_upright, read_voxels
from mnist3d.formats.picking import Pick
from tests.conftest import need

PYTHON = "/usr/bin/python3"  # Debian's OpenVDB is built for Debian's Python and NumPy
IMPORT = """
import sys, numpy
try:
    import openvdb
except ImportError:
    import pyopenvdb as openvdb
"""


@pytest.fixture(scope="module")
def openvdb():
    found = Path(PYTHON).exists() and subprocess.run([PYTHON, "-c", IMPORT], capture_output=True).returncode == 0
    need(found, "OpenVDB's Python module is not installed (apt-get install python3-openvdb)")

    def run(script, *arguments):
        subprocess.run([PYTHON, "-c", IMPORT + script, *map(str, arguments)], check=True)

    return run


@pytest.mark.parametrize("voxel_size_mm", [None, 0.5])
def test_our_own_vdb_comes_back(tmp_path, voxel_size_mm):
    values = np.random.default_rng(0).random((2, 12, 16, 20)).astype(np.float32)
    values[:, :3] = 0.0  # empty at one side: nothing is stored there
    path = export_voxels(values, tmp_path / "p.vdb", voxel_size_mm=voxel_size_mm)
    assert read_voxels(path) == pytest.approx(values, rel=1e-6, abs=0)


def test_it_is_read_where_openvdbs_module_would_end_the_process(tmp_path, monkeypatch):
    """Beside a NumPy that they were not built for, their first array is a segmentation fault: they are not loaded."""
    for name in ("openvdb", "pyopenvdb"):
        (tmp_path / f"{name}.py").write_text("import os; os.abort()")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = export_voxels(np.full((2, 4, 4, 4), 0.5, np.float32), tmp_path / "p.vdb")
    assert set(read_voxels(path).ravel()) == {0.5}


MADE_BY_OPENVDB = """
def grid(name, array, ijk=(0, 0, 0), background=0.0, transform=None, half=False):
    made = openvdb.FloatGrid(background)
    made.copyFromArray(array, ijk=ijk)
    made.name, made.saveFloatAsHalf = name, half
    if transform is not None:
        made.transform = openvdb.createLinearTransform(transform)
    return made

random = numpy.random.default_rng(0)
noise = random.random((20, 9, 13)).astype(numpy.float32)
noise[noise < 0.5] = 0.0
solid = numpy.zeros((40, 40, 40), numpy.float32)
solid[3:37, 3:37, 3:37] = 2.5
solid[8, 8, 8] = 1.0
pruned = grid("tiles", solid)
pruned.prune()
filled = openvdb.FloatGrid()
filled.name = "filled"
filled.fill((-4, 0, 0), (260, 2, 2), 3.0)
turned = [[0, 2, 0, 0], [-1, 0, 0, 0], [0, 0, 3, 0], [5, 6, 7, 1]]
sheared = openvdb.createLinearTransform(0.5)
sheared.shear(0.3, openvdb.Axis.X, openvdb.Axis.Y)
slanted = grid("sheared", solid)
slanted.transform = sheared
surface = openvdb.createLevelSetSphere(5.0)
surface.name = "surface"
flag = openvdb.BoolGrid()
flag.copyFromArray(solid > 0)
flag.name = "mask"
flow = openvdb.Vec3SGrid()
flow.copyFromArray(numpy.stack([noise, 2 * noise, 3 * noise], axis=-1))
flow.name = "flow"
empty = openvdb.FloatGrid()
empty.name = "empty"
packings = grid("packings", random.random((56, 8, 8)).astype(numpy.float32) + 2.0, background=1.5)  # seven leaves
off = packings.getAccessor()
for leaf, values in enumerate([(), (-1.5,), (7.0,), (1.5, -1.5), (1.5, 7.0), (7.0, 9.0), (7.0, 8.0, 9.0)]):
    for place, value in enumerate(values):
        off.setValueOff((8 * leaf + 3, 2, place), value)
widening = grid("widening", noise)
widening.transform = openvdb.createFrustumTransform((0, 0, 0), (20, 9, 13), 0.5, 10.0, 1.0)
grids = [
    grid("noise", noise, (-7, 3, 9)), pruned, filled, grid("turned", noise, transform=turned), slanted,
    grid("half", noise, half=True), grid("background", noise, background=1.5), surface, flag, flow, empty,
    widening, packings, grid("noise", 9 * noise),
]
openvdb.write(sys.argv[1], grids=grids)
found = {}
for made in [each for each in grids[:-1] if each.valueTypeName == "float" and not each.empty()]:
    first, last = made.evalActiveVoxelBoundingBox()
    array = numpy.zeros([b - a + 1 for a, b in zip(first, last)], numpy.float32)
    made.copyToArray(array, ijk=first)
    found[made.name] = array
found["flow"] = numpy.zeros((20, 9, 13, 3), numpy.float32)
flow.copyToArray(found["flow"])
numpy.savez(sys.argv[2], **found)
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, openvdb):
    folder = tmp_path_factory.mktemp("openvdb")
    openvdb(MADE_BY_OPENVDB, folder / "a.vdb", folder / "a.npz")
    with np.load(folder / "a.npz") as arrays:
        return folder / "a.vdb", dict(arrays)


def filled(values):
    """What is not the empty border of the cube around a box."""
    ends = [(found.min(), found.max() + 1) for found in np.nonzero(values)]
    return values[tuple(slice(*each) for each in ends)]


def same(found, wanted):
    """Equal up to a factor: attenuation is per half of the longest edge."""
    found, wanted = filled(found), filled(wanted)
    assert found.shape == wanted.shape
    # float32, multiplied once
    assert found / found.max() == pytest.approx(wanted / wanted.max(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ["noise", "tiles", "filled", "half", "background"])
def test_openvdbs_own_grids_have_openvdbs_own_values(theirs, name):
    path, arrays = theirs
    stored = arrays[name].astype(np.float16 if name == "half" else np.float32).astype(np.float32)
    same(read_voxels(f"{path}#array={name}")[0], from_upright(stored.transpose(2, 1, 0)))


def test_each_way_in_which_openvdb_packs_inactive_values(theirs):
    """None, -background, another one, both backgrounds, background and another, two others, three."""
    path, arrays = theirs
    found = READERS[".vdb"](path, Pick(array="packings")).attenuation
    assert len(np.unique(found[found < 2.0])) == 2  # 1.5 and -1.5
    assert np.array_equal(found, from_upright(arrays["packings"].transpose(2, 1, 0)))


def test_a_component_of_a_vector_grid_is_picked(theirs):
    path, arrays = theirs
    with pytest.raises(VolumeFileError, match=r"holds 3 numbers a voxel .*#array=flow,component=0 to component=2"):
        read_voxels(f"{path}#array=flow")
    values = read_voxels(f"{path}#array=flow,component=1")[0]
    same(values, from_upright(arrays["flow"][..., 1].transpose(2, 1, 0)))
    assert values.max() == pytest.approx(2.0 * read_voxels(f"{path}#array=flow,component=0")[0].max())


def test_a_vdbs_axes_lie_where_its_matrix_says(theirs):
    """Rows (0, 2, 0), (-1, 0, 0), (0, 0, 3): the first axis runs along y in steps of 2, the second to the left."""
    path, arrays = theirs
    found = read_voxels(f"{path}#array=turned")[0]
    wanted = from_upright(arrays["turned"].transpose(1, 0, 2)[::-1].transpose(2, 1, 0))  # x: -second, y: first, z
    # y is 40 long, z 39 in 13, x 9 in 9: cubes of 40 edges hold 40 of x, 20 of y and 13.33 of z
    assert wanted.shape == (20, 13, 9)
    # each column keeps its matter, though voxels of the world are 40 / 13 high instead of 3
    same(found.sum(axis=1), wanted.sum(axis=1))


def test_a_sheared_vdb_is_resampled(theirs):
    """Each step of the second axis, away, goes to the right by 0.3 of a voxel too."""
    path, _ = theirs
    found = read_voxels(f"{path}#array=sheared")[0].astype(np.float64)
    matter = found.sum(axis=(1, 2))  # of each layer away
    layers = np.flatnonzero(matter > 0.99 * matter.max())  # the first and the last fade out
    middles = (found.sum(axis=1) @ np.arange(found.shape[2]))[layers] / matter[layers]
    assert len(layers) >= 30
    # linear interpolation keeps the middle of what it moves; float32
    assert np.diff(middles) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("surface", "is a level set .*; must be a fog volume"),
        ("mask", "is a grid of type Tree_bool_5_4_3; must be one of float, double"),
        ("empty", "holds no active voxel"),
        ("widening", "its transform is a NonlinearFrustumMap; must be linear"),
        ("none", "must be one of noise, tiles, filled"),
    ],
)
def test_what_is_no_volume_is_refused_by_what_it_is(theirs, name, words):
    with pytest.raises(VolumeFileError, match=words):
        read_voxels(f"{theirs[0]}#array={name}")


def test_another_tools_vdb_is_its_density_in_the_box_of_what_is_not_empty(tmp_path, openvdb):
    openvdb(
        """
grid = openvdb.FloatGrid()
grid.copyFromArray(numpy.full((2, 3, 4), 5.0, numpy.float32), ijk=(7, -2, 1))
grid.name = "density"
grid.transform = openvdb.createLinearTransform(voxelSize=0.5)
heat = openvdb.FloatGrid()
heat.name = "burning"  # before the other by name
openvdb.write(sys.argv[1], grids=[heat, grid])
""",
        tmp_path / "a.vdb",
    )
    values = read_voxels(tmp_path / "a.vdb")
    assert values.shape == (2, 4, 4, 4)  # 2 right, 3 away, 4 up, in a cube of 4
    assert np.argwhere(values[0] > 0).tolist() == [[k, j, i] for k in range(3) for j in range(4) for i in (1, 2)]
    assert values[0].max() == pytest.approx(5.0 * (4 * 0.5) / 2.0)  # per half of the cube's edge
    assert not values[1].any()


def test_another_version_of_the_format_is_one_line(tmp_path):
    path = export_voxels(np.full((2, 4, 4, 4), 0.5, np.float32), tmp_path / "p.vdb")
    content = bytearray(path.read_bytes())
    content[8:12] = (221).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(VolumeFileError, match="file format 221; must be 222 to 224"):
        read_voxels(path)
