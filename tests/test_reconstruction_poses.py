"""Poses in files of other programs: which image each row is of, in which pixels its shift is, and few digits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mnist3d.errors import DataError
from mnist3d.geometry.rotations import PoseOptions, sample_rotations
from mnist3d.reconstruction.pose_search import Poses
from mnist3d.reconstruction.poses import csv_text, read_poses, star_text

COUNT = 5
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")


@pytest.fixture
def poses() -> Poses:
    generator = torch.Generator().manual_seed(0)
    rotations = sample_rotations(COUNT, generator, PoseOptions("so3"))
    return Poses(rotations, torch.rand(COUNT, 2, generator=generator), torch.zeros(COUNT))


def star(names: list[str], rows: list[str], optics: list[str] | None = None) -> str:
    """A .star file; optics: rows of group and pixel size."""
    lines = [] if optics is None else ["data_optics", "loop_", "_rlnOpticsGroup", "_rlnImagePixelSize", *optics]
    return "\n".join([*lines, "data_particles", "loop_", *(f"_{name}" for name in names), *rows, ""])


def named(*names: str) -> str:
    """A .star file of images of these names; the first is seen with rot 0, the next 10 degrees more."""
    rows = [f"{name} {10.0 * number} 20.0 30.0" for number, name in enumerate(names)]
    return star(["rlnImageName", *ANGLES], rows)


def test_rows_in_another_order_are_brought_to_that_of_the_stack(poses: Poses, tmp_path: Path):
    lines = star_text(poses, "stack.mrcs", 8, 1.5).splitlines()
    rows = [line for line in lines if "@" in line]
    shuffled = [*(line for line in lines if "@" not in line), *(rows[place] for place in (3, 0, 4, 2, 1))]
    (tmp_path / "p.star").write_text("\n".join(shuffled))
    found = read_poses(tmp_path / "p.star", COUNT, 8)
    torch.testing.assert_close(found.rotations, poses.rotations, rtol=0, atol=1e-6)  # 6 digits of degrees
    torch.testing.assert_close(found.shifts, poses.shifts, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("1@a.mrcs", "1@a.mrcs", "2@a.mrcs"), "none of them is of image 3 by its rlnImageName"),
        (("1@a.mrcs", "2@a.mrcs", "7@a.mrcs"), "none of them is of image 3 by its rlnImageName"),
        (("0@a.mrcs", "1@a.mrcs", "2@a.mrcs"), "the numbers before the @ must be 1 to 3, each once"),
        (("1@a.mrcs", "2@b.mrcs", "3@a.mrcs"), "tells of 2 stacks, a.mrcs and b.mrcs among them; must be one"),
        (("a.mrc", "b.mrc", "a.mrc"), "its rlnImageName holds a.mrc more than once"),
    ],
)
def test_images_that_cannot_be_told_are_refused(names: tuple[str, ...], said: str, tmp_path: Path):
    path = tmp_path / "p.star"
    path.write_text(named(*names))
    with pytest.raises(DataError) as refused:
        read_poses(path, 3, 8)
    assert said in str(refused.value)
    assert "take out the column rlnImageName" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_without_numbers_are_taken_in_the_order_of_the_rows(tmp_path: Path):
    for number, names in enumerate((("b.mrc", "a.mrc", "c.mrc"), ("1@s.mrcs", "2@s.mrcs", "3@s.mrcs"))):
        (tmp_path / f"{number}.star").write_text(named(*names))
    one, other = (read_poses(tmp_path / f"{number}.star", 3, 8) for number in range(2))
    torch.testing.assert_close(one.rotations, other.rotations)


def test_each_image_has_the_pixel_size_of_its_optics_group(tmp_path: Path):
    path = tmp_path / "p.star"
    rows = ["0 0 0 3.0 6.0 1", "0 0 0 3.0 6.0 2", "0 0 0 3.0 6.0 1"]
    names = [*ANGLES, *ORIGINS, "rlnOpticsGroup"]
    path.write_text(star(names, rows, ["2 3.0", "1 1.5"]))
    found = read_poses(path, 3, 9, 100.0)  # an odd size has its middle on a pixel; the file's own size counts
    torch.testing.assert_close(found.shifts, torch.tensor([[-2.0, -4.0], [-1.0, -2.0], [-2.0, -4.0]]))
    path.write_text(star(names, rows, ["1 1.5"]))
    with pytest.raises(DataError, match=r"has an image of optics group 2; its data_optics holds 1$"):
        read_poses(path, 3, 9)
    without = star(names[:-1], [row[:-2] for row in rows], ["1 1.5", "2 3.0"])
    path.write_text(without)
    with pytest.raises(DataError, match="has 2 optics groups, and no rlnOpticsGroup"):
        read_poses(path, 3, 9)
    path.write_text(without.replace("\n2 3.0", ""))
    torch.testing.assert_close(read_poses(path, 3, 9).shifts, torch.tensor([[-2.0, -4.0]] * 3))


@pytest.mark.parametrize("value", ["0", "-1.5", "nan", "inf"])
def test_a_pixel_size_that_is_none_is_refused(value: str, tmp_path: Path):
    path = tmp_path / "p.star"
    path.write_text(star([*ANGLES, *ORIGINS], ["0 0 0 3.0 6.0"], [f"1 {value}"]))
    with pytest.raises(DataError, match=f"its rlnImagePixelSize is {value}; must be > 0"):
        read_poses(path, 1, 9)


def test_origins_in_angstrom_need_a_pixel_size(tmp_path: Path):
    path = tmp_path / "p.star"
    path.write_text(star([*ANGLES, *ORIGINS], ["0 0 0 3.0 6.0"]))
    torch.testing.assert_close(read_poses(path, 1, 9, 3.0).shifts, torch.tensor([[-1.0, -2.0]]))
    with pytest.raises(DataError, match="no rlnImagePixelSize; give --pixel_size, in angstrom"):
        read_poses(path, 1, 9)


def test_a_table_as_excel_writes_it_is_read(poses: Poses, tmp_path: Path):
    text = csv_text(poses)
    for name, content in (
        ("bom.csv", b"\xef\xbb\xbf" + text.encode()),
        ("windows.csv", text.replace("\n", "\r\n").encode()),
        ("old_mac.csv", text.replace("\n", "\r").encode()),
        ("bom.star", b"\xef\xbb\xbf" + star_text(poses, "stack.mrcs", 8, 1.5).encode()),
    ):
        (tmp_path / name).write_bytes(content)
        found = read_poses(tmp_path / name, COUNT, 8)
        torch.testing.assert_close(found.shifts, poses.shifts, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [">f8", ">f4", "<f2"])
def test_arrays_of_any_byte_order_are_read(kind: str, poses: Poses, tmp_path: Path):
    np.save(tmp_path / "p.npy", poses.rotations.numpy().astype(kind))
    found = read_poses(tmp_path / "p.npy", COUNT, 8)
    torch.testing.assert_close(found.rotations, poses.rotations, rtol=0, atol=1e-3)  # of 16 bits


@pytest.mark.parametrize("digits", [2, 3])
def test_matrices_with_few_digits_become_rotations(digits: int, poses: Poses, tmp_path: Path):
    np.save(tmp_path / "p.npy", poses.rotations.double().numpy().round(digits))
    found = read_poses(tmp_path / "p.npy", COUNT, 8).rotations
    torch.testing.assert_close(found, poses.rotations, rtol=0, atol=2.0 * 10.0**-digits)
    torch.testing.assert_close(found @ found.mT, torch.eye(3).expand(COUNT, 3, 3), rtol=0, atol=1e-6)
    np.save(tmp_path / "p.npy", 1.05 * poses.rotations.numpy())
    with pytest.raises(DataError, match=r"5 of 5 matrices are no rotations, the first is 0; .* to within 0\.02"):
        read_poses(tmp_path / "p.npy", COUNT, 8)


def test_damaged_and_other_files_are_refused_in_one_line(poses: Poses, tmp_path: Path):
    np.savez(tmp_path / "whole.npz", poses.rotations.numpy())
    archive = (tmp_path / "whole.npz").read_bytes()
    files = {
        "archive.npy": (archive, "is an archive (.npz), must be one array"),
        "cut.npy": (archive[:-30], "cannot be read ("),
        "field.csv": (b"r00," + b"x" * 200_000 + b"\n1,2\n", "cannot be read (field larger than field limit"),
        "semicolons.csv": (csv_text(poses).replace(",", ";").encode(), "separated by commas"),
    }
    np.save(tmp_path / "complex.npy", poses.rotations.numpy() * 1j)
    files["complex.npy"] = ((tmp_path / "complex.npy").read_bytes(), "holds complex64 values; must be real numbers")
    for name, (content, said) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as refused:
            read_poses(tmp_path / name, COUNT, 8)
        assert said in str(refused.value), name
        assert "\n" not in str(refused.value)
