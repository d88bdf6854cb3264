"""Stacks of images as strangers write them: bytes without a sign, white as zero, the wrong sign, too large a stack."""

import struct
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mnist3d.cli import reconstruct
from mnist3d.errors import DataError
from mnist3d.reconstruction import fourier, images, judging
from mnist3d.reconstruction.images import guess_kind, observe
from mnist3d.reconstruction.stack_files import Stack, read_stack
from mnist3d.storage import memory

SIZE, COUNT = 16, 8
STACK = Path("stack.npy")


@pytest.fixture
def depth() -> np.ndarray:
    """Line integrals of a ball beside the middle, each image of another one."""
    axis = (2.0 * np.arange(SIZE) + 1.0) / SIZE - 1.0
    places = np.random.default_rng(0).uniform(-0.2, 0.2, (COUNT, 2, 1, 1))
    squares = (axis - places[:, 0]) ** 2 + (axis[:, None] - places[:, 1]) ** 2
    return (1.5 * np.exp(-squares / 0.1)).astype(np.float32)


def mrc_of_bytes(path: Path, values: np.ndarray, imod: int | None) -> None:
    """A stack of mode 0; with IMOD's stamp and flags, or with the statistics of the values alone."""
    with mrcfile.new(path) as mrc:
        mrc.set_data(values.view(np.int8))
        mrc.set_image_stack()
    content = bytearray(path.read_bytes())
    if imod is None:
        content[76:84] = struct.pack("<2f", values.min(), values.max())
    else:
        content[152:160] = struct.pack("<2i", 1146047817, imod)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(("imod", "signed"), [(None, False), (0, False), (1, True)])
def test_bytes_of_an_mrc_stack_have_a_sign_only_where_the_header_says_so(imod, signed: bool, tmp_path: Path):
    values = np.arange(COUNT * SIZE * SIZE).reshape(COUNT, SIZE, SIZE).astype(np.uint8)
    mrc_of_bytes(tmp_path / "a.mrcs", values, imod)
    wanted = values.view(np.int8) if signed else values
    np.testing.assert_array_equal(read_stack(tmp_path / "a.mrcs").values, wanted)


def white_is_zero(path: Path, values: np.ndarray) -> Path:
    tifffile.imwrite(path, values, photometric="miniswhite")
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_stack_whose_white_is_zero_is_turned(dtype: type, depth: np.ndarray, tmp_path: Path):
    most = np.iinfo(dtype).max
    values = np.rint(most * np.exp(-depth)).astype(dtype)
    found = read_stack(white_is_zero(tmp_path / "a.tif", most - values)).values
    np.testing.assert_allclose(found, values / most, atol=1e-6)
    (tmp_path / "folder").mkdir()
    for number, image in enumerate(values):
        white_is_zero(tmp_path / "folder" / f"{number}.tif", most - image)
    np.testing.assert_allclose(read_stack(tmp_path / "folder").values, values / most, atol=1e-6)
    real = read_stack(white_is_zero(tmp_path / "real.tif", depth)).values  # numbers without a white
    np.testing.assert_array_equal(real, depth)


def test_a_tiff_stack_of_one_bit(tmp_path: Path):
    values = np.random.default_rng(0).random((COUNT, SIZE, SIZE)) < 0.5
    tifffile.imwrite(tmp_path / "bits.tif", values, photometric="minisblack")
    np.testing.assert_array_equal(read_stack(tmp_path / "bits.tif").values, values)
    np.testing.assert_array_equal(read_stack(white_is_zero(tmp_path / "white.tif", values)).values, ~values)


@pytest.mark.parametrize(("suffix", "said"), [(".tif", "1.tif holds 8 pages"), (".gif", "1.gif holds several images")])
def test_a_file_of_several_images_in_a_folder_is_refused(suffix: str, said: str, depth: np.ndarray, tmp_path: Path):
    values = np.rint(100.0 * depth).astype(np.uint8)
    pictures = [Image.fromarray(each) for each in values]
    pictures[0].save(tmp_path / f"0{suffix}")
    if suffix == ".tif":
        tifffile.imwrite(tmp_path / "1.tif", values, photometric="minisblack")
    else:
        pictures[0].save(tmp_path / "1.gif", save_all=True, append_images=pictures[1:])
    with pytest.raises(DataError, match=said) as refused:
        read_stack(tmp_path)
    assert "a file of a folder must be one image: save each" in str(refused.value)


@pytest.mark.parametrize("light", [0.79, 0.6, 30_000.0])
def test_light_that_was_not_divided_by_the_empty_beam_is_not_guessed(light: float, depth: np.ndarray):
    shown = light * np.exp(-depth)
    assert guess_kind(shown)[0] is None
    with pytest.raises(DataError, match=r"divide the images by the light of the empty beam, or say with --input"):
        observe(STACK, Stack(shown))
    assert guess_kind(shown / light)[0] == "transmission"
    if light < 1.0:
        (hint,) = observe(STACK, Stack(shown), kind="transmission").hints
        assert f"a share of {light:.2g} of the light passes and not 1; divide" in hint


def test_what_is_dark_at_the_border_is_guessed_as_before(depth: np.ndarray):
    noise = np.random.default_rng(0).random((200, SIZE, SIZE), np.float32)  # brighter inside in half of the images
    assert guess_kind(1.0 - np.exp(-depth))[0] == "absorption"
    assert guess_kind(depth + 3.0)[0] == "line_integral"
    assert guess_kind(noise)[0] == "absorption"
    for values in (1.0 - np.exp(-depth), np.exp(-depth), depth):
        assert observe(STACK, Stack(values)).hints == ()


def test_dark_matter_is_told_and_can_be_turned(depth: np.ndarray):
    noisy = depth + np.random.default_rng(0).normal(0.0, 0.5, depth.shape).astype(np.float32)
    right = observe(STACK, Stack(noisy))
    wrong = observe(STACK, Stack(-noisy))
    assert right.hints == ()
    assert "matter must be positive in line integrals; --invert turns the sign" in wrong.hints[0]
    turned = observe(STACK, Stack(-noisy), invert=True)
    np.testing.assert_array_equal(turned.lines, right.lines)
    assert turned.hints == ()
    assert turned.said.endswith("; inverted")
    assert turned.noise == right.noise
    with pytest.raises(DataError, match=r"^invert: only with line integrals, and input=transmission, by the values"):
        observe(STACK, Stack(np.exp(-depth)), invert=True)


def test_a_volume_that_explains_little_has_the_sign_doubted():
    (warning,) = judging.warnings_of([], 0.97, 0.0)
    assert "--invert" in warning


@pytest.mark.parametrize("flags", [[], ["--invert"]])
def test_the_command_turns_the_sign_or_tells_how(flags: list[str], depth: np.ndarray, tmp_path, capsys, monkeypatch):
    seen, warned = [], []

    def look(options, observed, *rest):
        seen.append(observed.lines)
        return SimpleNamespace(report={}, lines=[], warnings=["another"], attenuation=torch.zeros(SIZE, SIZE, SIZE))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reconstruct, "from_unknown", look)
    monkeypatch.setattr(reconstruct, "write_result", lambda run, result, *rest: warned.append(result.warnings) or [])
    np.save("stack.npy", -depth)
    reconstruct.main(["stack.npy", "--viewer.enabled", "false", *flags])
    said = capsys.readouterr().out
    assert said.count("WARNING: most images are darker") == (0 if flags else 2)  # at once, and at the end
    assert len(warned[0]) == (1 if flags else 2)  # in the report too
    np.testing.assert_array_equal(seen[0], depth if flags else -depth)


def test_images_are_resized_in_parts_with_the_same_result(depth: np.ndarray, monkeypatch):
    values = torch.from_numpy(depth).reshape(2, COUNT // 2, SIZE, SIZE)
    whole = fourier.resized(values, 8, 2)
    sizes, transform = [], torch.fft.fftn
    monkeypatch.setattr(torch.fft, "fftn", lambda some, **given: sizes.append(len(some)) or transform(some, **given))
    monkeypatch.setattr(fourier, "PIXELS_AT_ONCE", 3 * SIZE**2)
    parts = fourier.resized(values, 8, 2)
    assert sizes == [3, 3, 2]
    assert parts.shape == (2, COUNT // 2, 8, 8)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_what_hardly_absorbs_is_not_nothing(depth: np.ndarray):
    values = (1e-9 * depth).astype(np.float32)  # below what a share of 1 tells apart
    lines = observe(STACK, Stack(values), kind="absorption").lines
    np.testing.assert_allclose(lines, values, rtol=1e-6)


@pytest.mark.parametrize("kind", ["transmission", "absorption", "line_integral"])
def test_a_stack_is_brought_to_its_size_in_parts(kind: images.InputKind, depth: np.ndarray, monkeypatch):
    values = {"transmission": np.exp(-depth), "absorption": 1.0 - np.exp(-depth), "line_integral": depth}[kind]
    values[[0, -1], 8, 8] = 0.0 if kind == "transmission" else 1.0  # in the first part and in the last
    whole = observe(STACK, Stack(values), kind=kind, size=8)
    taken, lines_of = [], images._lines
    monkeypatch.setattr(images, "PIXELS_AT_ONCE", 3 * SIZE**2)
    monkeypatch.setattr(images, "NOISE_PIXELS", 2 * SIZE**2)
    monkeypatch.setattr(images, "_lines", lambda some, *given: taken.append(len(some)) or lines_of(some, *given))
    parts = observe(STACK, Stack(values), kind=kind, size=8)
    assert taken[:3] == [3, 3, 2]
    assert taken[3:] == [2]  # of which the noise is measured
    np.testing.assert_allclose(parts.lines, whole.lines, atol=1e-6)
    assert parts.said == whole.said
    if kind != "line_integral":
        assert "0.10% of the pixels let less than a thousandth pass" in parts.said  # two of 8 * 256


@pytest.mark.parametrize(("flags", "bytes_a_sample"), [([], 70), (["--poses", "p.npy"], 30)])
def test_memory_is_asked_for_the_volume_too(flags, bytes_a_sample: int, depth, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "NEVER_ASKED", 0)
    monkeypatch.setattr(reconstruct, "from_unknown", lambda *given: [][0])
    np.save("stack.npy", depth)
    needed = 40 * depth.size + bytes_a_sample * (2 * SIZE) ** 3
    arguments = ["stack.npy", "--output", "out", "--viewer.enabled", "false", *flags]
    monkeypatch.setattr(memory, "free_memory", lambda device="cpu": needed - 1)
    with pytest.raises(DataError, match=r"^size=16: 8 images and the volume take about .* are free here; lower --size"):
        reconstruct.main(arguments)
    assert not Path("out").exists()
    monkeypatch.setattr(memory, "free_memory", lambda device="cpu": needed)
    with pytest.raises((IndexError, DataError), match=r"list index|p\.npy: no such file"):  # it went on
        reconstruct.main(arguments)


def test_a_value_too_large_to_be_squared_is_refused(depth: np.ndarray, tmp_path: Path):
    depth[3, 5, 5] = -3e30
    np.save(tmp_path / "stack.npy", depth)
    with pytest.raises(DataError, match=r"image 3 holds a value of 3e\+30; must be at most 1e\+12"):
        read_stack(tmp_path / "stack.npy")


def test_what_a_library_logs_of_a_damaged_file_is_not_said(depth: np.ndarray, tmp_path: Path, caplog):
    """Of a tag of an unknown type tifffile logs and goes on."""
    tifffile.imwrite(tmp_path / "stack.tif", depth[:1], metadata=None)
    content = bytearray((tmp_path / "stack.tif").read_bytes())
    first = struct.unpack("<I", content[4:8])[0] + 2
    for tag in range(struct.unpack("<H", content[first - 2 : first])[0]):
        place = first + 12 * tag
        if struct.unpack("<H", content[place : place + 2])[0] == 305:  # the program's name
            content[place + 2 : place + 4] = b"\0\0"
    (tmp_path / "stack.tif").write_bytes(bytes(content))
    assert read_stack(tmp_path / "stack.tif").values.shape == (1, SIZE, SIZE)
    assert caplog.records == []
