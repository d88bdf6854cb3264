"""Voxel files that other packages ship are read as another program reads them: `benchmarks/real_files.py` compares.

Those of packages that the tests need anyway; the benchmark takes more, and the largest, of 32 million voxels.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from conftest import need

MODULES = ("nibabel", "SimpleITK", "pyvista", "scipy")
FILES = {
    "nibabel/tests/data/standard.nii.gz": "4 x 5 x 7",
    "nibabel/tests/data/anatomical.nii": "33 x 41 x 25",  # big-endian, negative values
    "nibabel/tests/data/reoriented_anat_moved.nii": "21 x 26 x 22",
    "nibabel/tests/data/resampled_anat_moved.nii": "17 x 21 x 3",  # NaN outside
    "nibabel/tests/data/functional.nii": "17 x 21 x 3",  # of 20 moments, scaled integers
    "nibabel/tests/data/example_nifti2.nii.gz": "32 x 20 x 12",  # oblique; ITK refuses it
    "pyvista/examples/channels.vti": "250 x 250 x 100",  # values of cells
}
OBLIQUE = "nibabel/tests/data/example_nifti2.nii.gz"


@pytest.fixture(scope="module")
def real_files():
    for module in MODULES:
        need(importlib.util.find_spec(module), f"{module} is not installed: pip install -e '.[test]'")
    from benchmarks import real_files

    return real_files


def shipped(name: str) -> Path:
    """A file of an installed package."""
    package, _, rest = name.partition("/")
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / rest if spec and spec.origin else Path(rest)
    need(path.is_file(), f"{package} is installed without {rest}")
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_is_read_as_another_program_reads_it(real_files, name):
    pick, reader, verdict = real_files.verdict(shipped(name))
    assert verdict.startswith(f"same: {FILES[name]} voxels"), (reader, verdict)
    assert reader in ("ITK", "VTK", "nibabel")
    assert bool(pick) == (name in ("nibabel/tests/data/functional.nii", OBLIQUE))  # of several moments


def test_a_real_file_that_is_no_volume_is_refused(real_files):
    _, _, verdict = real_files.verdict(shipped("nibabel/tests/data/row_major.dconn.nii"))
    assert verdict.startswith("refused: row_major.dconn.nii: its shape is (10, 10): 2D data")


@pytest.mark.parametrize("name", ["nibabel/tests/data/anatomical.nii", OBLIQUE])
@pytest.mark.parametrize(
    "mistake",
    [
        lambda values: np.flip(values, 1),
        lambda values: np.flip(values, 2),
        lambda values: np.flip(values, 3),
        lambda values: values.swapaxes(1, 2),
        lambda values: np.roll(values, 1, axis=3),
        lambda values: values * 1.001,
    ],
    ids=["mirrored z", "mirrored y", "mirrored x", "permuted", "shifted", "scaled"],
)
def test_the_comparison_notices(real_files, monkeypatch, name, mistake):
    right = real_files.read_voxels
    monkeypatch.setattr(real_files, "read_voxels", lambda *args, **kwargs: mistake(right(*args, **kwargs)))
    assert real_files.verdict(shipped(name))[2].startswith("differs")
