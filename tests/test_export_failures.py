"""What goes wrong with an export is one line, and leaves what was there."""

import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from mnist3d.errors import ExportError, WriteError
from mnist3d.export import VOXEL_FORMATS, export_voxels
from mnist3d.volumes import VMGrid

ARRAY = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("p.stl", {}, [".stl", ".npz, .nrrd, .nii.gz, .mrc, .vti, .vdb, .vox, .raw, .tif"]),
        ("p", {}, ["(none)", ".npz"]),
        (".vdb", {}, ["must be one of"]),
        ("no/p.vdb", {}, ["does not exist"]),
        ("p.vdb", {"voxel_size_mm": 0.0}, ["voxel_size_mm=0.0", "must be > 0"]),
        ("p.vdb", {"voxel_size_mm": float("nan")}, ["voxel_size_mm=nan"]),
        ("p.vdb", {"resolution": 4}, ["an array is written as it is"]),
    ],
)
def test_mistakes(tmp_path, name, options, words):
    with pytest.raises(ExportError) as failed:
        export_voxels(ARRAY, tmp_path / name, **options)
    assert all(word in str(failed.value) for word in words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resolution", [0, -3, 1025])
def test_resolution_out_of_range(tmp_path, resolution):
    with pytest.raises(ExportError, match=r"must be in \[1, 1024\]"):
        export_voxels(VMGrid(4), tmp_path / "p.npz", resolution=resolution)


def test_bad_values_and_too_many_cubes(tmp_path):
    for value in (-1.0, np.nan, np.inf):
        with pytest.raises(ExportError, match="finite"):
            export_voxels(np.full((2, 2, 2, 2), value), tmp_path / "p.npz")
    with pytest.raises(ExportError, match=r"at most 256.*--resolution 256"):
        export_voxels(np.zeros((2, 1, 1, 257)), tmp_path / "p.vox")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nrrd", None)
    with pytest.raises(ExportError, match=r"pynrrd: pip install -e"):
        export_voxels(ARRAY, tmp_path / "p.nrrd")
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_says_what_was_replaced(tmp_path, monkeypatch):
    names, replace = [], os.replace

    def second_fails(source, target):
        names.append(Path(target).name)
        if len(names) == 2:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(WriteError, match=r"Permission denied\); of its files only p\.npz is new"):
        export_voxels(ARRAY, tmp_path / "p.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["p.npz"]


# mrcfile and pyevtk leave the file that failed to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", VOXEL_FORMATS)
def test_a_full_disk_leaves_nothing_and_what_was_there_stays(tmp_path, suffix):
    """No file may grow beyond 2 KiB: the system's own error, in the middle of a write."""
    (tmp_path / f"p{suffix}").write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    values = np.random.default_rng(0).random((2, 16, 16, 16))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(WriteError, match=r"cannot be written \(.+\); what was there before is unchanged"):
            export_voxels(values, tmp_path / f"p{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == [f"p{suffix}"]
    assert (tmp_path / f"p{suffix}").read_bytes() == b"before"
