"""What `reconstruct` and `project` write: it replaces nothing of others, and poses are of the file's images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mnist3d.cli import project, reconstruct, reconstruct_files
from mnist3d.errors import UserError
from mnist3d.reconstruction.poses import read_poses, star_tables
from mnist3d.reconstruction.stack_files import read_stack
from mnist3d.volumes import VoxelGrid

SIZE, COUNT = 16, 12


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reconstruct_files, "figure_bytes", lambda drawn: None)


def make_stack(*flags: str) -> None:
    """stack.mrcs and its poses, of an object that fills an octant."""
    values = torch.zeros(SIZE, SIZE, SIZE)
    values[5:8, 8:11, 8:11] = 1.0
    VoxelGrid.from_array(values).save("true.safetensors")
    project.main(["true.safetensors", "--views", str(COUNT), "--output", "stack.mrcs", "--max_shift", "2", *flags])


def fit(stack: str, output: str, poses: str, *flags: str) -> None:
    """One step from known directions."""
    page = ["--viewer.enabled", "false"]
    reconstruct.main([stack, "--poses", poses, "--output", output, "--steps", "1", *page, *flags])


def test_resume_does_not_begin_anew_over_something_else():
    for name in ("volume.safetensors", "poses.csv"):  # of a training run, or of known directions
        folder = Path(name).with_suffix("")
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(UserError) as refused:
            reconstruct.main(["none.mrcs", "--output", str(folder), "--resume"])
        assert str(refused.value).startswith(f"output={folder}: holds no state.safetensors, so there is nothing to go")
        assert [path.read_text() for path in folder.iterdir()] == ["mine"]
    Path("file").touch()
    with pytest.raises(UserError, match="output=file: holds no state"):
        reconstruct.main(["none.mrcs", "--output", "file", "--resume"])
    Path("empty").mkdir()
    (Path("empty") / ".lock").touch()
    for folder in ("empty", "new"):  # nothing is lost there: it goes on to read the images
        with pytest.raises(UserError, match=r"stack=none\.mrcs: cannot be read"):
            reconstruct.main(["none.mrcs", "--output", folder, "--resume"])


@pytest.mark.parametrize("suffix", [".star", ".csv"])
def test_project_does_not_replace_poses(suffix: str):
    beside = Path(f"p{suffix}")
    beside.write_text("refined")
    with pytest.raises(
        UserError, match=rf"output=p\.mrcs: the true poses would replace p{suffix}, which may hold others"
    ):
        project.main(["none.safetensors", "--output", "p.mrcs"])
    assert [path.read_text() for path in Path().iterdir()] == ["refined"]


def test_shifts_are_written_in_the_pixels_of_the_file(capsys):
    make_stack("--pixel_size", "1.5")
    true = read_poses(Path("stack.csv"), COUNT, SIZE)
    assert float(true.shifts.abs().max()) > 0.5
    for suffix in ("csv", "star"):
        fit("stack.mrcs", f"by_{suffix}", f"stack.{suffix}", "--size", "8")
        for written in ("csv", "star"):
            found = read_poses(Path(f"by_{suffix}/poses.{written}"), COUNT, SIZE)
            torch.testing.assert_close(found.shifts, true.shifts, rtol=0, atol=1e-5)
            torch.testing.assert_close(found.rotations, true.rotations, rtol=0, atol=1e-5)
    tables = star_tables(Path("by_csv/poses.star").read_text())
    assert tables["optics"]["rlnImageSize"] == [str(SIZE)]
    assert float(tables["optics"]["rlnImagePixelSize"][0]) == pytest.approx(1.5)
    assert tables["particles"]["rlnImageName"][-1] == f"{COUNT:06d}@stack.mrcs"
    assert "poses.star names" not in capsys.readouterr().out


def test_a_star_file_names_the_stack_or_says_what_is_to_be_done(capsys):
    make_stack()
    Path("folder").mkdir()
    values = read_stack(Path("stack.mrcs")).values
    np.save("images.npy", values)
    np.save("folder/two words.npy", values)
    Path("folder/two words.mrcs").write_bytes(Path("stack.mrcs").read_bytes())
    cases = [
        (
            "images.npy",
            "images.mrcs",
            "as RELION takes no .npy file for a stack: write the images of images.npy there as",
        ),
        ("folder/two words.mrcs", "folder/two_words.mrcs", "as a name in it holds no spaces: give the stack that name"),
    ]
    for number, (stack, named, said) in enumerate(cases):
        fit(stack, f"found{number}", "stack.csv")
        names = star_tables(Path(f"found{number}/poses.star").read_text())["particles"]["rlnImageName"]
        assert names == [f"{image:06d}@{named}" for image in range(1, COUNT + 1)]
        assert f"poses.star names {named}, {said}" in capsys.readouterr().out
    assert reconstruct_files._star_stack(Path("folder")) == "folder.mrcs"
    assert reconstruct_files._star_stack(Path()) == "stack.mrcs"
    assert "takes no folder for a stack" in reconstruct_files._star_words(Path("folder"), "transmission")[0]
    assert "each value is a transmission" in reconstruct_files._star_words(Path("stack.mrcs"), "transmission")[0]
    assert reconstruct_files._star_words(Path("stack.mrcs"), "line_integral") == []


def test_a_unit_needs_its_pixel_size():
    with pytest.raises(UserError, match="unit=nm: needs --pixel_size"):
        reconstruct.main(["none.mrcs", "--unit", "nm"])


def test_origins_in_angstrom_are_not_taken_for_pixels():
    make_stack("--pixel_size", "1.5")
    star = Path("stack.star").read_text()
    Path("no_optics.star").write_text(star[star.index("data_particles") :])
    np.save("images.npy", read_stack(Path("stack.mrcs")).values)
    for number, flags in enumerate(([], ["--pixel_size", "0.15", "--unit", "nm"])):
        with pytest.raises(UserError, match="no rlnImagePixelSize; give --pixel_size, in angstrom"):
            fit("images.npy", f"refused{number}", "no_optics.star", *flags)
    fit("images.npy", "found", "no_optics.star", "--pixel_size", "1.5", "--size", "8")
    found, true = (read_poses(Path(path), COUNT, SIZE) for path in ("found/poses.csv", "stack.csv"))
    torch.testing.assert_close(found.shifts, true.shifts, rtol=0, atol=1e-5)
