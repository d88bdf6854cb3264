"""OpenVDB files come back, ours and those that OpenVDB itself wrote."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

import mnist3d
from mnist3d.errors import VolumeFileError
from mnist3d.export import export_voxels
from mnist3d.formats import READERS, Voxels, read_voxels
from tests.conftest import need

SHAPE = (12, 16, 20)
READ_BY_OPENVDB = """
import sys, types, numpy
package, source, path, out = sys.argv[1:]
sys.path.insert(0, source)
for name in (package, package + ".formats", package + ".storage"):  # without what their __init__ would bring
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [source + "/" + name.replace(".", "/")]
class Shape:
    def __class_getitem__(cls, item): return cls
sys.modules["jaxtyping"] = types.SimpleNamespace(Float=Shape, Bool=Shape)
sys.modules[package + ".geometry.grids"] = types.SimpleNamespace(MAX_RESOLUTION=1024, WORLD_EXTENT=2.0)
sys.modules[package + ".geometry"] = types.ModuleType(package + ".geometry")
vdb = __import__(package + ".formats.vdb", fromlist=["read_vdb"])
import pathlib
found = vdb.read_vdb(pathlib.Path(path))
numpy.savez(out, values=found.values, extent=found.extent)
"""


def read_by_openvdb(path):
    """`read_vdb` in the Python that has OpenVDB, which need not have torch."""
    out = path.with_suffix(".found.npz")
    source = str(Path(mnist3d.__file__).parent.parent)
    command = ["/usr/bin/python3", "-c", READ_BY_OPENVDB, "mnist3d", source, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise VolumeFileError(done.stderr.strip().splitlines()[-1])  # as it was raised over there
    with np.load(out) as found:
        x, y, z = map(float, found["extent"])
        return Voxels(found["values"], (x, y, z))


@pytest.fixture
def openvdb(monkeypatch):
    python, probe = "/usr/bin/python3", "try:\n import openvdb\nexcept ImportError:\n import pyopenvdb"
    found = Path(python).exists() and subprocess.run([python, "-c", probe], capture_output=True).returncode == 0
    need(found, "OpenVDB's Python module is not installed (apt-get install python3-openvdb)")
    monkeypatch.setitem(READERS, ".vdb", read_by_openvdb)


@pytest.mark.parametrize("voxel_size_mm", [None, 0.5])
def test_vdb_comes_back_where_openvdb_is(tmp_path, openvdb, voxel_size_mm):
    values = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    values[:, :3] = 0.0  # empty at one side: OpenVDB stores nothing there
    path = export_voxels(values, tmp_path / "p.vdb", voxel_size_mm=voxel_size_mm)
    assert read_voxels(path) == pytest.approx(values, rel=1e-6, abs=0)


MADE_BY_OPENVDB = """
import sys, numpy
try:
    import openvdb
except ImportError:
    import pyopenvdb as openvdb
grid = openvdb.FloatGrid()
grid.copyFromArray(numpy.full((2, 3, 4), 5.0, numpy.float32), ijk=(7, -2, 1))
grid.name = "density"
grid.transform = openvdb.createLinearTransform(voxelSize=0.5)
empty = openvdb.FloatGrid()
empty.name = "density"
heat = openvdb.FloatGrid()
heat.name = "burning"  # before the other by name
openvdb.write(sys.argv[1], grids=[heat, grid])
openvdb.write(sys.argv[2], grids=[empty])
"""


def test_another_tools_vdb_is_its_density_in_the_box_of_what_is_not_empty(tmp_path, openvdb):
    paths = [tmp_path / "a.vdb", tmp_path / "empty.vdb"]
    subprocess.run(["/usr/bin/python3", "-c", MADE_BY_OPENVDB, *map(str, paths)], check=True)
    values = read_voxels(paths[0])
    assert values.shape == (2, 4, 4, 4)  # 2 right, 3 away, 4 up, in a cube of 4
    assert np.argwhere(values[0] > 0).tolist() == [[k, j, i] for k in range(3) for j in range(4) for i in (1, 2)]
    assert values[0].max() == pytest.approx(5.0 * (4 * 0.5) / 2.0)  # per half of the cube's edge
    assert not values[1].any()
    with pytest.raises(VolumeFileError, match="its shape is"):
        read_voxels(paths[1])
