"""Values of other tools' files become attenuation: refused in words that work, clipped, thresholded, scaled."""

import importlib
import importlib.util
import re

import numpy as np
import pytest
import torch

from mnist3d.errors import ConfigError, VolumeFileError
from mnist3d.formats import read_voxels
from mnist3d.formats.values import SCALED_ATTENUATION, ValueOptions
from mnist3d.geometry.grids import voxel_centres
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.starting import start_from
from mnist3d.volumes import VoxelGrid
from tests.conftest import need

ROUNDING = 1e-6  # relative; some products and quotients in float32, each of which is off by at most 6e-8
CUBE = np.random.default_rng(0).normal(size=(4, 4, 4)).astype(np.float32)  # 27 of 64 are negative


def library(module):
    need(importlib.util.find_spec(module), f"{module} is not installed")
    return importlib.import_module(module)


@pytest.fixture
def file(tmp_path):
    """Writes a file of our own kind, whose box is a cube of edge 2, so that its unit is the world's."""

    def write(attenuation, absorbance=None, edge=2.0, name="a.npz"):
        attenuation = np.asarray(attenuation)
        absorbance = np.zeros(attenuation.shape) if absorbance is None else absorbance
        spacing = np.full(3, edge / max(attenuation.shape))
        np.savez(tmp_path / name, attenuation=attenuation, absorbance=absorbance, spacing_xyz=spacing)
        return tmp_path / name

    return write


def column(values):
    """Values as the first of a volume of 6^3, the rest 0."""
    cube = np.zeros(216)
    cube[: len(values)] = values
    return cube.reshape(6, 6, 6)


def first(values, count):
    return values[0].ravel()[:count]


def refusal(path, **options):
    with pytest.raises(VolumeFileError) as failed:
        read_voxels(path, **options)
    assert "\n" not in str(failed.value)
    return str(failed.value)


def as_advised(message):
    """What both remedies of a message read, as they are typed."""
    typed = re.search(r'(VoxelGrid\.load\(.*\)), or --start_from "(.*)"$', message)
    assert typed is not None
    python, flag = typed.groups()
    loaded = eval(python, {"VoxelGrid": VoxelGrid}).to_array()
    begun = VoxelGrid(list(loaded.shape[1:]), pyramid=[])
    start_from(begun, flag)
    return loaded, read_voxels(flag), begun.to_array()


# --- what is refused, and its remedies


def test_negative_voxels_are_counted_and_both_remedies_work(file):
    path = file(CUBE)
    message = refusal(path)
    low, high = CUBE.min(), CUBE.max()
    assert message.startswith(
        f"{path}: {(CUBE < 0).sum()} of 64 voxels are < 0, in [{low:g}, {high:g}]; make them empty:"
    )
    assert f'VoxelGrid.load("{path}", negative="clip")' in message
    assert message.endswith(f'--start_from "{path}#negative=clip"')
    loaded, read, begun = as_advised(message)
    assert np.array_equal(read[0], np.maximum(CUBE, 0.0))
    # there and back through softplus, whose inverse loses digits near 0
    assert loaded[0] == pytest.approx(np.maximum(CUBE, 0.0), rel=1e-4, abs=1e-6)
    # as loaded, apart from raw values below -8, which a run would never lift: softplus(-8) per voxel step of .5
    assert begun[0] == pytest.approx(np.maximum(CUBE, 0.0), rel=1e-3, abs=np.exp(-8) / 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_counted_and_both_remedies_work(file, value):
    cube = np.abs(CUBE)
    cube[0] = value
    path = file(cube)
    message = refusal(path)
    kinds = "16 NaN, 0 infinite" if np.isnan(value) else "0 NaN, 16 infinite"
    assert message.startswith(f"{path}: 16 of 64 voxels are not finite ({kinds}); make them empty:")
    assert "subtract" not in message
    for values in as_advised(message):
        assert values[0, 0] == pytest.approx(np.zeros((4, 4)), abs=1e-3)  # softplus(-8) / .5, see above
        assert values[0, 1:] == pytest.approx(cube[1:], rel=1e-3, abs=1e-3)


def test_a_remedy_joins_what_stands_behind_the_name_already(file):
    """NaN outside a mask and noise within: two steps, each of them told, and both are needed."""
    cube = CUBE.copy()
    cube[0] = np.nan
    path = file(cube)
    message = refusal(f"{path}#not_finite=empty")
    assert message.endswith(f'--start_from "{path}#not_finite=empty,negative=clip"')
    loaded, read, _ = as_advised(message)
    assert np.array_equal(read[0, 1:], np.maximum(CUBE, 0.0)[1:])
    assert not read[0, 0].any()
    assert not loaded[0, 0].any()


def test_absorbance_beside_a_file_is_treated_likewise(tmp_path):
    nrrd = library("nrrd")
    path, beside = tmp_path / "a.nrrd", tmp_path / "a_absorbance.nrrd"
    nrrd.write(str(path), np.ones((4, 4, 4), np.float32))
    absorbance = np.full((4, 4, 4), 0.5, np.float32)
    absorbance[0] = -0.25
    nrrd.write(str(beside), absorbance)
    assert "16 of 64 voxels of its absorbance are < 0, in [-0.25, 0.5]; make them empty:" in refusal(path)
    assert set(read_voxels(path, negative="clip")[1].ravel()) == {0.0, 0.5}
    absorbance[0] = np.nan
    nrrd.write(str(beside), absorbance)
    assert "16 of 64 voxels of its absorbance are not finite (16 NaN, 0 infinite)" in refusal(path)
    assert set(read_voxels(path, not_finite="empty")[1].ravel()) == {0.0, 0.5}
    absorbance[0] = 255.0
    nrrd.write(str(beside), absorbance)
    assert "16 of 64 voxels of its absorbance are > 1, up to 255; it must be in [0, 1]" in refusal(path)
    absorbance[0] = -0.25  # a threshold is none of the absorbance's
    nrrd.write(str(beside), absorbance)
    assert "of its absorbance are < 0" in refusal(path, threshold=0.75)
    absorbance[0] = 0.0
    nrrd.write(str(beside), absorbance)
    assert set(read_voxels(path, threshold=0.75, percentile=50.0)[1].ravel()) == {0.0, 0.5}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"negative": "cut"}, "negative=cut: must be refuse or clip"),
        ({"not_finite": "clip"}, "not_finite=clip: must be refuse or empty"),
        ({"threshold": -1.0}, "threshold=-1.0: must be finite and >= 0"),
        ({"threshold": float("nan")}, "threshold=nan: must be finite and >= 0"),
        ({"percentile": 0.0}, "percentile=0.0: must be > 0 and <= 100"),
        ({"percentile": 101.0}, "percentile=101.0: must be > 0 and <= 100"),
        ({"percentile": float("nan")}, "percentile=nan: must be > 0 and <= 100"),
    ],
)
def test_options_are_checked_in_python_and_behind_the_name(file, options, words):
    path = file(np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        VoxelGrid.load(path, **options)
    ((name, value),) = options.items()
    assert words in refusal(f"{path}#{name}={value}")
    with pytest.raises(ConfigError, match=f"^start_from={re.escape(str(path))}.*{re.escape(words)}"):
        start_from(VoxelGrid(2, pyramid=[]), f"{path}#{name}={value}")


def test_what_is_no_number_unknown_or_given_twice_is_one_line(file):
    path = file(np.ones((2, 2, 2)))
    assert "threshold=high: must be a number" in refusal(f"{path}#threshold=high")
    assert "percentil=99: must be one of array=NAME" in refusal(f"{path}#negative=clip,percentil=99")
    twice = refusal(f"{path}#percentile=99", percentile=50.0)
    assert "percentile=99: is given twice, also as percentile=50.0; must be given once" in twice


def test_options_that_leave_nothing_are_refused(file):
    path = file(np.full((2, 2, 2), 3.0))
    assert "threshold=3.5: every voxel is below it; must be <= 3" in refusal(path, threshold=3.5)
    assert "percentile=99: no voxel is > 0" in refusal(file(np.zeros((2, 2, 2))), percentile=99.0)


def test_no_attenuation_is_infinite(file):
    """Beyond float32 in the file, and beyond it in world units only."""
    huge = np.full((2, 2, 2), 1e300)
    huge[0] = 1.0
    assert "4 of 8 voxels are not finite (0 NaN, 4 infinite)" in refusal(file(huge))
    assert set(read_voxels(file(huge), not_finite="empty")[0].ravel()) == {0.0, 1.0}
    far = file(np.full((2, 2, 2), 3e38), edge=20.0)
    assert "largest value, 3e+38, is 3e+39 per world unit, more than float32 holds" in refusal(far)
    assert read_voxels(far, percentile=100.0)[0] == pytest.approx(SCALED_ATTENUATION, rel=ROUNDING)


# --- the order: finite, clip, threshold, scale


def test_below_the_threshold_is_empty_and_the_rest_stays(file):
    path = file(column([0.5, 1.0, 1.5, 3.0]))
    assert first(read_voxels(path, threshold=1.0), 5).tolist() == [0.0, 1.0, 1.5, 3.0, 0.0]


def test_a_threshold_makes_negative_voxels_empty_by_itself(file):
    path = file(column([-2.0, 0.5, 1.5]))
    assert first(read_voxels(path, threshold=1.0), 3).tolist() == [0.0, 0.0, 1.5]
    assert first(read_voxels(path, threshold=0.0), 3).tolist() == [0.0, 0.5, 1.5]


def test_the_value_at_the_percentile_becomes_the_stated_attenuation(file):
    """Of 1, 2, ..., 101 the 50th percentile is 51 and the 100th 101; the 115 zeros and negatives do not count."""
    values = np.concatenate([np.arange(1.0, 102.0), np.arange(-20.0, 0.0)])
    path = file(column(values))
    for percentile, at in ((50.0, 51.0), (100.0, 101.0), (99.5, 100.5)):
        scaled = read_voxels(path, negative="clip", percentile=percentile)
        assert first(scaled, 101) == pytest.approx(2.0 * np.arange(1.0, 102.0) / at, rel=ROUNDING)
        assert not scaled[0].ravel()[101:].any()
    assert SCALED_ATTENUATION == 2.0


def test_the_percentile_is_taken_after_the_threshold(file):
    """Of 51, ..., 101, which the threshold leaves, the 50th percentile is 76."""
    path = file(column(np.arange(1.0, 102.0)))
    scaled = read_voxels(path, threshold=51.0, percentile=50.0)
    assert first(scaled, 101) == pytest.approx(np.r_[np.zeros(50), 2.0 * np.arange(51.0, 102.0) / 76.0], rel=ROUNDING)


def test_infinity_counts_in_no_percentile(file):
    path = file(column([1.0, 2.0, 3.0, np.inf, np.nan, -np.inf]))
    scaled = read_voxels(path, not_finite="empty", percentile=50.0)
    assert first(scaled, 6) == pytest.approx([1.0, 2.0, 3.0, 0.0, 0.0, 0.0], rel=ROUNDING)


def test_options_typed_and_in_python_are_the_same(file):
    path = file(CUBE)
    typed = read_voxels(f"{path}#negative=clip,threshold=0.25,percentile=90")
    given = read_voxels(path, negative="clip", threshold=0.25, percentile=90.0)
    assert np.array_equal(typed, given)
    assert np.array_equal(read_voxels(f"{path}#negative=clip,threshold=0.25", percentile=90.0), given)
    assert ValueOptions().told({"percentile": "90"}) == ValueOptions(percentile=90.0)


# --- what files hold


@pytest.mark.parametrize("edge", [0.02, 2.0, 512.0])
def test_a_mask_of_ones_gets_the_stated_attenuation_in_any_unit(file, edge):
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1:3, 1:3, 1:3] = 1
    path = file(mask, edge=edge)
    assert np.array_equal(read_voxels(path, percentile=50.0)[0], 2.0 * mask)
    assert read_voxels(path)[0] == pytest.approx(mask * edge / 2.0, rel=ROUNDING)  # else 1 per unit of the file


def test_hounsfield_units_of_16_bits(file):
    """Air -1024, water 0, muscle 50, bone 1000, metal 3071."""
    path = file(column([-1024, 0, 50, 1000, 1000, 1000, 3071]).astype(np.int16), edge=256.0)
    assert "1 of 216 voxels are < 0, in [-1024, 3071]" in refusal(path)
    soft = first(read_voxels(path, negative="clip", percentile=50.0), 7)  # of 50, 1000 x 3, 3071
    assert soft == pytest.approx([0.0, 0.0, 0.1, 2.0, 2.0, 2.0, 6.142], rel=ROUNDING)
    bone = first(read_voxels(path, threshold=200.0, percentile=25.0), 7)  # of 1000 x 3, 3071
    assert bone == pytest.approx([0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 6.142], rel=ROUNDING)


def write_nrrd(path, data):
    library("nrrd").write(str(path), data)


def write_nifti(path, data):
    nibabel = library("nibabel")
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), str(path))


def write_mrc(path, data):
    library("mrcfile").write(str(path), data, voxel_size=1.0)


def write_vti(path, data):
    image = library("pyvista").ImageData(dimensions=data.shape[::-1])
    image.point_data["heat"] = data.ravel()
    image.save(path)


def write_npz(path, data):
    np.savez(path, attenuation=data, absorbance=np.zeros(data.shape), spacing_xyz=np.ones(3))


WRITERS = {
    ".npz": write_npz,
    ".nrrd": write_nrrd,
    ".nii": write_nifti,
    ".nii.gz": write_nifti,
    ".mrc": write_mrc,
    ".vti": write_vti,
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.filterwarnings("ignore:Data array contains:RuntimeWarning")  # mrcfile, of NaN that it is to write
def test_every_reader_counts_clips_and_scales(tmp_path, suffix):
    data = CUBE.copy()
    data.flat[:3] = np.nan, np.inf, 7.0
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, data)
    assert "2 of 64 voxels are not finite (1 NaN, 1 infinite)" in refusal(path)
    negative = int((data < 0).sum())
    assert f"{negative} of 64 voxels are < 0, in [{CUBE.min():g}, 7]" in refusal(path, not_finite="empty")
    values = read_voxels(f"{path}#not_finite=empty,negative=clip,threshold=0.5,percentile=100")
    kept = np.nan_to_num(data, nan=0.0, posinf=0.0)
    kept = np.where(kept < 0.5, 0.0, kept)
    # whichever way its axes run
    assert np.sort(values[0].ravel()) == pytest.approx(np.sort(kept.ravel()) * 2.0 / 7.0, rel=ROUNDING)


def test_oblique_voxels_are_made_usable_before_they_are_interpolated(tmp_path):
    """Else what is empty would eat from its neighbours: NaN all around it, negative noise by its share."""
    nibabel = library("nibabel")
    turned = np.eye(4)
    turned[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    data = CUBE.copy()
    data[0, 1] = np.nan

    def read(name, array, **options):
        nibabel.save(nibabel.Nifti1Image(array, turned), str(tmp_path / name))
        return read_voxels(tmp_path / name, **options)

    kept = np.maximum(np.nan_to_num(data), 0.0)
    found = read("a.nii", data, negative="clip", not_finite="empty")
    assert max(found.shape[1:]) > 4  # it was resampled
    assert np.array_equal(found, read("b.nii", kept))
    assert "4 of 64 voxels are not finite" in refusal(tmp_path / "a.nii")


def test_a_run_that_would_begin_opaque_says_how_to_scale(file):
    """Of 4 per voxel more than half; a voxel of 4^3 is half a world unit long."""
    path = file(np.arange(1.0, 65.0).reshape(4, 4, 4))
    (said,) = start_from(VoxelGrid(4, pyramid=[]), str(path))
    assert said.startswith("start_from: 56 of its 64 voxels > 0 are opaque")
    advised = said.strip().partition('--start_from "')[2].rstrip('"')
    assert advised == f"{path}#percentile=99"
    volume = VoxelGrid(4, pyramid=[])
    assert start_from(volume, advised) == []
    wanted = 2.0 * np.arange(1.0, 65.0) / np.percentile(np.arange(1.0, 65.0), 99)
    assert volume.to_array()[0].ravel() == pytest.approx(wanted, rel=1e-4)  # there and back through softplus
    assert start_from(VoxelGrid(4, pyramid=[]), str(file(np.arange(64.0).reshape(4, 4, 4) / 4.0))) == []  # 31 of 63


def test_the_stated_attenuation_shows_a_body_half_as_thick_as_the_world(file):
    """Through the middle of a ball 1 thick the optical depth is 2, so the view is 1 - exp(-2) there."""
    resolution = 64
    centre = voxel_centres(resolution)
    radius = (centre[:, None, None] ** 2 + centre[:, None] ** 2 + centre**2).sqrt()
    path = file((radius < 0.5).numpy() * 100.0 + (radius < 0.5).numpy(), edge=300.0)
    volume = VoxelGrid.load(path, percentile=99.9)
    with torch.no_grad():
        view = AbsorptionRenderer(image_size=33)(volume, torch.eye(3))[0, 0]
    # a voxel is 1/32 long, and an edge lies at most half of one beside its place, at both ends: 2 * 1/32 * exp(-2)
    assert float(view[16, 16]) == pytest.approx(1.0 - np.exp(-2.0), abs=2.0 / 32 * np.exp(-2.0))
