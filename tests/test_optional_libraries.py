"""Each library of the extra `export`, missing: the commands that need it say so in one line, before they work."""

import sys

import pytest
import trimesh.smoothing  # noqa: F401 - it looks for other libraries when it is first imported

from mnist3d.cli import mesh, orbit, plot, points, voxels
from mnist3d.cli.doctor import EXPORT
from mnist3d.cli.program import run_command_line
from mnist3d.errors import ExportError
from mnist3d.storage import optional
from mnist3d.volumes import VoxelGrid

NEEDED = [
    ("scipy", "scipy", mesh, ["--output", "a.stl"]),
    ("scipy", "scipy", mesh, ["--output", "a.stl", "--connect", "bridges"]),
    ("scipy", "scipy", points, ["--output", "a.ply"]),
    ("skimage", "scikit-image", mesh, ["--output", "a.obj"]),
    ("trimesh", "trimesh", mesh, ["--output", "a.glb"]),
    ("trimesh", "trimesh", mesh, ["--output", "a.stl", "--smoothing", "2"]),
    ("lxml", "lxml", mesh, ["--output", "a.3mf"]),
    ("networkx", "networkx", mesh, ["--output", "a.3mf"]),
    ("nrrd", "pynrrd", voxels, ["--output", "a.nrrd"]),
    ("nibabel", "nibabel", voxels, ["--output", "a.nii.gz"]),
    ("mrcfile", "mrcfile", voxels, ["--output", "a.mrc"]),
    ("tifffile", "tifffile", voxels, ["--output", "a.tif"]),
    ("matplotlib", "matplotlib", plot, ["--output", "a.png"]),
    ("matplotlib", "matplotlib", orbit, ["--output", "a.png", "--colormap", "inferno"]),
]


@pytest.fixture
def hidden(monkeypatch):
    """Makes a library one that is not installed, with all its parts that were imported before."""

    def hide(name):
        for module in [name, *(each for each in sys.modules if each.startswith(f"{name}."))]:
            monkeypatch.setitem(sys.modules, module, None)

    return hide


def ending(command, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command_line(command.main, arguments, "mnist3d")
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("module", "package", "command", "arguments"), NEEDED)
def test_one_line_says_what_to_install(tmp_path, monkeypatch, capsys, hidden, module, package, command, arguments):
    monkeypatch.chdir(tmp_path)
    VoxelGrid(4).save(tmp_path / "volume.safetensors")
    hidden(module)
    code, said = ending(command, ["volume.safetensors", *arguments], capsys)
    assert (code, said.count("\n")) == (2, 1), said
    assert f' needs {package}: pip install -e ".[export]"' in said
    assert [path.name for path in tmp_path.iterdir()] == ["volume.safetensors"]


def test_all_that_doctor_knows_of_is_tried():
    """numcodecs unpacks what some .vdb and .vti files hold; it is no part of a command."""
    assert {module for module, *_ in NEEDED} == EXPORT.keys() - {"numcodecs"}


def test_a_video_without_its_encoder(tmp_path, monkeypatch, capsys, hidden):
    monkeypatch.chdir(tmp_path)
    hidden("imageio_ffmpeg")
    code, said = ending(orbit, ["nowhere", "--output", "a.mp4"], capsys)
    assert (code, said) == (2, "mnist3d: error: a .mp4 video needs imageio-ffmpeg: pip install imageio-ffmpeg\n")


def test_an_installed_package_names_itself_and_no_folder(tmp_path, monkeypatch, hidden):
    monkeypatch.setattr(optional, "CLONE", tmp_path)
    hidden("nrrd")
    with pytest.raises(ExportError, match=r'^a file needs pynrrd: pip install "mnist3d\[export\]"$'):
        optional.require("nrrd", "a file", "pynrrd")
