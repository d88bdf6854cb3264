"""Stacks and poses in files: read back by others and by ourselves, and every bad input in one line."""

import math
import struct
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mnist3d.errors import DataError, RunError
from mnist3d.geometry.rotations import PoseOptions, sample_rotations
from mnist3d.reconstruction.images import InputKind, Observed, guess_kind, likely_shifts, moved_by, observe
from mnist3d.reconstruction.pose_search import Poses
from mnist3d.reconstruction.poses import UPRIGHT, csv_text, read_poses, star_tables, star_text
from mnist3d.reconstruction.report import map_bytes, report_text, shown_factor
from mnist3d.reconstruction.stack_files import Stack, read_stack, write_mrcs
from mnist3d.reconstruction.state_file import fingerprint, read_state, state_bytes
from mnist3d.reconstruction.unknown_views import Stages

SIZE, COUNT = 8, 5


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((COUNT, SIZE, SIZE), np.float32)


@pytest.fixture
def poses() -> Poses:
    generator = torch.Generator().manual_seed(0)
    rotations = sample_rotations(COUNT, generator, PoseOptions("so3"))
    return Poses(rotations, torch.rand(COUNT, 2, generator=generator), torch.rand(COUNT, generator=generator))


def test_a_stack_that_is_written_is_read_by_us_and_by_mrcfile(images: np.ndarray, tmp_path: Path):
    path = tmp_path / "stack.mrcs"
    write_mrcs(path, images, 1.25)
    found = read_stack(path)
    np.testing.assert_array_equal(found.values, images)
    assert found.pixel_size == pytest.approx(1.25)
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        np.testing.assert_array_equal(mrc.data, images)
        assert float(mrc.voxel_size.x) == pytest.approx(1.25)
    assert mrcfile.validate(path)


def test_every_kind_of_stack_is_read(images: np.ndarray, tmp_path: Path):
    bits = np.rint(images * 65535).astype(np.uint16)
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(images.astype(">f8")))
    np.save(tmp_path / "bits.npy", bits)
    tifffile.imwrite(tmp_path / "a.tif", images, photometric="minisblack")
    tifffile.imwrite(tmp_path / "bits.tiff", bits, photometric="minisblack")
    for folder, suffix in (("png", ".png"), ("deep", ".png"), ("tif", ".tif")):
        (tmp_path / folder).mkdir()
        for number in range(COUNT):
            path = tmp_path / folder / f"{number}{suffix}"
            if folder == "deep":
                Image.fromarray(bits[number]).save(path)
            elif suffix == ".png":
                Image.fromarray(np.rint(images[number] * 255).astype(np.uint8)).save(path)
            else:
                tifffile.imwrite(path, images[number])
    (tmp_path / "png" / ".hidden.png").write_bytes(b"")
    (tmp_path / "png" / "notes.txt").write_text("not an image")
    # rounding to 8 or 16 bits
    for name, tolerance in (("a.npy", 0), ("fortran.npy", 0), ("a.tif", 0), ("tif", 0), ("bits.npy", 1e-5),
                            ("bits.tiff", 1e-5), ("deep", 1e-5), ("png", 2.1e-3)):  # fmt: skip
        np.testing.assert_allclose(read_stack(tmp_path / name).values, images, atol=tolerance, rtol=0, err_msg=name)


def test_a_stack_of_the_other_byte_order_and_of_a_volume(images: np.ndarray, tmp_path: Path):
    with mrcfile.new(tmp_path / "volume.mrc") as mrc:
        mrc.set_data(images)
        mrc.set_volume()
    np.testing.assert_array_equal(read_stack(tmp_path / "volume.mrc").values, images)
    content = bytearray((tmp_path / "volume.mrc").read_bytes())
    words = np.frombuffer(bytes(content), "<u4").byteswap().tobytes()
    content[:208], content[216:224], content[1024:] = words[:208], words[216:224], words[1024:]
    content[212:216] = b"\x11\x11\x00\x00"
    (tmp_path / "other.mrc").write_bytes(bytes(content))
    np.testing.assert_array_equal(read_stack(tmp_path / "other.mrc").values, images)


def spoilt(images: np.ndarray, folder: Path, kind: str) -> Path:
    """A stack with something wrong."""
    path = folder / "stack.npy"
    if kind == "nan":
        images[3, 0, 0] = math.nan
    elif kind == "constant":
        images[2] = 0.5
    elif kind == "oblong":
        images = images[:, :, :-1]
    elif kind == "flat":
        images = images[0]
    elif kind == "small":
        images = images[:, :4, :4]
    elif kind == "empty":
        images = images[:0]
    elif kind == "complex":
        images = images + 1j
    elif kind == "objects":
        images = np.array([{}], dtype=object)
    elif kind in ("suffix", "missing"):
        return folder / f"stack.{'jpeg2000' if kind == 'suffix' else 'mrcs'}"
    elif kind in ("several sizes", "no images"):
        for number, size in enumerate((8, 9) if kind == "several sizes" else ()):
            Image.fromarray(np.arange(size * size, dtype=np.uint8).reshape(size, size)).save(folder / f"{number}.png")
        return folder
    elif kind == "pages":
        with tifffile.TiffWriter(folder / "stack.tif") as file:
            for size in (8, 9):
                file.write(np.zeros((size, size), np.uint8), photometric="minisblack")
        return folder / "stack.tif"
    elif kind == "no tiff":
        (folder / "stack.tif").write_bytes(b"II*\0 nothing")
        return folder / "stack.tif"
    elif kind in ("short", "mode"):
        write_mrcs(folder / "stack.mrcs", images, 1.0)
        content = bytearray((folder / "stack.mrcs").read_bytes())
        if kind == "mode":
            content[12:16] = struct.pack("<i", 4)
        (folder / "stack.mrcs").write_bytes(bytes(content if kind == "mode" else content[:-9]))
        return folder / "stack.mrcs"
    np.save(path, images, allow_pickle=True)
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nan", "1 of 5 images hold NaN or infinity, the first is image 3"),
        ("constant", "1 of 5 images are constant, the first is image 2"),
        ("oblong", "its shape is (5, 8, 7); must be (images, N, N)"),
        ("flat", "its shape is (8, 8)"),
        ("small", "its shape is (5, 4, 4)"),
        ("empty", "its shape is (0, 8, 8)"),
        ("complex", "holds complex64 values; must be integers or real numbers"),
        ("objects", "holds object values"),
        ("suffix", "suffix .jpeg2000; must be one of .mrcs, .mrc, .tif, .tiff, .npy, or a folder"),
        ("missing", "No such file"),
        ("several sizes", "1.png has shape (9, 9), 0.png (8, 8); all must be of one size"),
        ("no images", "holds no images; must be one or more of .png"),
        ("pages", "its pages are of 2 kinds"),
        ("no tiff", "damaged, or no TIFF file"),
        ("short", "its header claims 1,280 bytes of voxels, 1,271 are there"),
        ("mode", "is of mode 4; must be one of 0, 1, 2, 6, 12"),
    ],
)
def test_a_bad_stack_is_refused_in_one_line(kind: str, said: str, images: np.ndarray, tmp_path: Path):
    with pytest.raises(DataError) as refused:
        read_stack(spoilt(images, tmp_path, kind))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def border(values: np.ndarray, level: float) -> np.ndarray:
    """The images with a border of one brightness."""
    framed = np.full((len(values), 16, 16), level, np.float32)
    framed[:, 4:12, 4:12] = values
    return framed


def test_what_the_values_are_is_seen_by_the_border_and_the_range(images: np.ndarray):
    assert guess_kind(border(0.1 + 0.5 * images, 1.0))[0] == "transmission"
    assert guess_kind(border(0.9 * images, 0.0))[0] == "absorption"
    assert guess_kind(border(3.0 * images, 0.0))[0] == "line_integral"
    assert guess_kind(border(images - 0.5, 0.0))[0] == "line_integral"


def test_all_kinds_become_line_integrals(images: np.ndarray):
    depth = border(3.0 * images, 0.0)
    kinds: dict[InputKind, np.ndarray] = {"line_integral": depth, "transmission": np.exp(-depth)}
    kinds["absorption"] = 1 - np.exp(-depth)
    for kind, values in kinds.items():
        found = observe(Path("stack"), Stack(values, 2.0), kind=kind)
        np.testing.assert_allclose(found.lines.numpy(), depth, atol=1e-5)  # float32, depth up to 3
        assert (found.kind, found.pixel_size, found.unit) == (kind, 2.0, "angstrom")
    smaller = observe(Path("stack"), Stack(depth), size=8)
    assert smaller.lines.shape == (COUNT, 8, 8)
    assert (smaller.pixel_size, smaller.unit) == (2.0, "pixel")
    assert "input=line_integral, by the values from 0 to" in smaller.said
    dark = np.exp(-depth)
    dark[:, 8, 8] = 0.0
    found = observe(Path("stack"), Stack(dark), kind="transmission")
    assert float(found.lines.max()) == pytest.approx(-math.log(1e-3))
    assert "0.39% of the pixels let less than a thousandth pass" in found.said  # one of 256


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        ("transmission", None, "5 of 5 images of stack hold values < 0, which must be >= 0"),
        ("absorption", None, "1 of 5 images of stack hold values > 1, which must be <= 1"),
        ("line_integral", 17, "size=17: must be in [8, 8]"),
    ],
)
def test_values_that_cannot_be_are_refused(kind, size, said: str, images: np.ndarray):
    values = images - 0.5
    values[2, 0, 0] = 1.5
    with pytest.raises(DataError) as refused:
        observe(Path("stack"), Stack(values), kind=kind, size=size)
    assert said in str(refused.value)


def test_signal_noise_and_the_middle_of_the_mass():
    generator = torch.Generator().manual_seed(0)
    lines = torch.zeros(50, 16, 16)
    lines[:, 6:10, 6:10] = 1.0
    moved = moved_by(lines, torch.tensor([[2.0, -1.0]]).expand(50, 2))
    there = torch.tensor([[2.0, -1.0]]).expand(50, 2)
    torch.testing.assert_close(likely_shifts(moved, 0.0, 3.0), there, rtol=0, atol=1e-4)
    torch.testing.assert_close(likely_shifts(moved, 0.0, 1.0), there.clamp(-1.0, 1.0))
    noisy = lines + 0.1 * torch.randn(lines.shape, generator=generator)
    observed = observe(Path("stack"), Stack(noisy.numpy()))
    assert observed.noise == pytest.approx(0.1, rel=0.05)  # of 50 * 40 values
    inside = 16 / 208  # of the disc's pixels are 1, all else is 0
    assert observed.signal_to_noise == pytest.approx(inside * (1 - inside) / 0.01, rel=0.15)
    assert Observed(lines, "", "", 1.0, "", 0.0).signal_to_noise == math.inf


def test_poses_come_back_from_every_kind_of_file(poses: Poses, tmp_path: Path):
    (tmp_path / "p.csv").write_text(csv_text(poses))
    (tmp_path / "p.star").write_text(star_text(poses, "my stack.mrcs", 8, 1.5))
    np.save(tmp_path / "p.npy", poses.rotations.numpy())
    for name in ("p.csv", "p.star", "p.npy"):
        found = read_poses(tmp_path / name, COUNT, 8)
        torch.testing.assert_close(found.rotations, poses.rotations, rtol=0, atol=1e-6)  # 6 digits of degrees
        if name != "p.npy":
            torch.testing.assert_close(found.shifts, poses.shifts, rtol=0, atol=1e-5)


def test_the_star_file_is_read_by_gemmi_and_means_what_relion_means(poses: Poses, tmp_path: Path):
    path = tmp_path / "p.star"
    path.write_text(star_text(poses, "my stack.mrcs", 8, 1.5))
    document = gemmi.cif.read(str(path))
    assert [block.name for block in document] == ["optics", "particles"]
    table = document[1].find("_rln", ["ImageName", "AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst"])
    assert [row[0] for row in table] == [f"{number:06d}@my_stack.mrcs" for number in range(1, COUNT + 1)]
    # A point of the object, in voxels of the upright file about voxel N / 2, as RELION has it, and where it is seen.
    world = torch.tensor([0.2, -0.3, 0.4], dtype=torch.float64)
    seen = (poses.rotations.double() @ world)[:, :2] * 4.0 + 3.5 + poses.shifts  # pixel index: middle (8 - 1) / 2
    file = UPRIGHT @ world * 4.0 - 0.5
    for row, wanted in zip(table, seen, strict=True):
        rot, tilt, psi = np.radians([float(row[k]) for k in (1, 2, 3)])
        turn = np.array([[np.cos(psi), np.sin(psi), 0], [-np.sin(psi), np.cos(psi), 0], [0, 0, 1]])
        turn = turn @ [[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]]
        turn = turn @ [[np.cos(rot), np.sin(rot), 0], [-np.sin(rot), np.cos(rot), 0], [0, 0, 1]]
        origin = np.array([float(row[4]), float(row[5])]) / 1.5
        np.testing.assert_allclose((turn @ file.numpy())[:2] + 4.0 - origin, wanted.numpy(), atol=1e-5)


def test_star_files_of_others(tmp_path: Path):
    path = tmp_path / "old.star"
    path.write_text(
        "# version 30001\n\ndata_\n\nloop_ \n_rlnAngleRot #1 \n_rlnAngleTilt #2\n_rlnAnglePsi #3\n_rlnOriginX #4\n"
        "_rlnOriginY #5\n 10.0 20.0 30.0 1.0 -2.0\n\n"
    )
    found = read_poses(path, 1, 9)  # an odd size has its middle on a pixel
    torch.testing.assert_close(found.shifts, torch.tensor([[-1.0, 2.0]]))
    assert star_tables(path.read_text())[""]["rlnAngleTilt"] == ["20.0"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.txt", "", "suffix .txt; must be one of .csv, .star, .npy"),
        ("none.csv", None, "no such file"),
        ("p.csv", "a,b\n1,2\n", "must have a first line with the columns r00"),
        (
            "p.csv",
            ",".join(f"r{k}{j}" for k in range(3) for j in range(3)) + "\n" + ",".join("x" * 9),
            "cannot be read",
        ),
        ("p.star", "data_particles\nloop_\n_rlnFoo\n1\n", "holds no loop with rlnAngleRot"),
        ("p.star", "data_\nloop_\n_a\n_b\n1\n", "has 1 values for 2 labels"),
        ("p.npy", "", "cannot be read"),
    ],
)
def test_bad_poses_are_refused_in_one_line(name: str, content: str | None, said: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as refused:
        read_poses(tmp_path / name, 2, 8)
    assert str(refused.value).startswith(f"poses={tmp_path / name}: ")
    assert said in str(refused.value)


def test_another_number_of_poses_and_matrices_that_are_no_rotations(poses: Poses, tmp_path: Path):
    path = tmp_path / "p.npy"
    np.save(path, poses.rotations.numpy())
    with pytest.raises(DataError, match=r"must be \(6, 3, 3\), one for each image"):
        read_poses(path, 6, 8)
    for flaw in (2.0 * torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, -1.0])), torch.full((3, 3), math.nan)):
        spoilt = poses.rotations.clone()
        spoilt[1] = flaw
        np.save(path, spoilt.numpy())
        with pytest.raises(DataError, match=r"1 of 5 matrices are no rotations, the first is 1;"):
            read_poses(path, COUNT, 8)


def test_a_map_is_upright_and_knows_its_pixel(tmp_path: Path):
    volume = torch.zeros(8, 8, 8)
    volume[1, 2, 5] = 1.0  # z away, y down, x right
    (tmp_path / "v.mrc").write_bytes(map_bytes(volume, 1.5, tmp_path, "a label"))
    with mrcfile.open(tmp_path / "v.mrc") as mrc:
        assert mrc.data is not None
        assert np.argwhere(mrc.data).tolist() == [[7 - 2, 1, 5]]  # up, away, right
        assert float(mrc.voxel_size.x) == pytest.approx(1.5)
        assert float(mrc.data.max()) == pytest.approx(2.0 / (8 * 1.5))  # per unit of length
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.mrc"]


def test_a_volume_of_a_strange_scale_is_shown_scaled():
    assert shown_factor(torch.ones(8, 8, 8)) == 1.0
    assert shown_factor(1e-6 * torch.ones(8, 8, 8)) == pytest.approx(1.5e6)  # its rays are 2e-6 deep; 3 is shown
    assert '"a": null' in report_text({"a": math.nan, "b": [1.0]})


def test_a_state_belongs_to_its_images_and_options(tmp_path: Path):
    images = torch.zeros(2, 8, 8)
    mark = fingerprint({"seeds": 3}, images)
    assert mark != fingerprint({"seeds": 2}, images)
    assert mark != fingerprint({"seeds": 3}, images + 1.0)
    path = tmp_path / "state.safetensors"
    assert read_state(path, mark, 2, 8) == Stages()
    path.write_bytes(state_bytes(Stages([torch.ones(16, 16, 16)], [0.5]), mark))
    assert read_state(path, mark, 2, 8).left == [0.5]
    with pytest.raises(RunError, match="of other images or with other options"):
        read_state(path, "another", 2, 8)
    path.write_bytes(state_bytes(Stages([torch.ones(2, 2, 2)], [0.5]), mark))
    with pytest.raises(RunError, match="other shapes than they should"):
        read_state(path, mark, 2, 8)
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(RunError, match="damaged"):
        read_state(path, mark, 2, 8)
