"""`mnist3d fsc` on files that know their voxels, and the axes that its rotation is about."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from mnist3d.cli import fsc
from mnist3d.errors import UserError
from mnist3d.formats.voxel_array import from_upright
from mnist3d.reconstruction.alignment import Alignment

SIZE = 16


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def a_map() -> np.ndarray:
    """Smooth, of no symmetry, empty near its border."""
    axis = (2.0 * np.arange(SIZE) + 1.0) / SIZE - 1.0
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    balls = ((0.2, 0.1, -0.2, 3.0), (-0.25, 0.2, 0.1, 2.0), (0.1, -0.25, 0.25, 1.0))
    made = sum(h * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 0.04) for a, b, c, h in balls)
    return np.asarray(made, np.float32)


def write(name: str, values: np.ndarray, edge: float, label: str | None = None) -> str:
    """As other programs do; edge: of a voxel, 0 for not told."""
    with mrcfile.new(name) as mrc:
        mrc.set_data(np.ascontiguousarray(values, np.float32))
        mrc.set_volume()
        mrc.voxel_size = edge
        if label is not None:
            mrc.add_label(label)
    return name


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    fsc.main(arguments)
    return capsys.readouterr().out


def test_a_padded_map_is_the_same_map(capsys):
    small = write("small.mrc", a_map(), 1.5)
    large = write("large.mrc", np.pad(a_map(), 4), 1.5)
    for pair, padded in (((small, large), small), ((large, small), small)):
        said = said_by(capsys, *pair)
        assert f"{padded}: padded from 16 to 24 voxels" in said
        assert "correlation 1.0000" in said
        assert "FSC 0.5: shell 12.0 of 12, 100% of Nyquist, 2.00 voxels = 3 angstrom" in said
    assert "2.00 voxels = 8\n" in said_by(capsys, small, large, "--pixel_size", "4")


def test_maps_of_other_widths_are_refused_unless_a_header_is_said_to_be_wrong(capsys):
    one, other = write("one.mrc", a_map(), 1.0), write("other.mrc", a_map(), 1.5)
    with pytest.raises(UserError) as refused:
        fsc.main([one, other])
    assert str(refused.value).startswith(
        "one.mrc: is 16 angstrom wide, other.mrc 24, by their headers; must be as wide"
    )
    assert "\n" not in str(refused.value)
    assert "correlation 1.0000" in said_by(capsys, one, other, "--pixel_size", "1.5")
    odd = write("odd.mrc", np.pad(a_map(), ((0, 1),) * 3), 1.0)  # the middle would move
    with pytest.raises(UserError, match=r"one\.mrc: is 16 angstrom wide, odd\.mrc 17"):
        fsc.main([one, odd])


def test_what_tells_no_width_or_another_unit_is_taken_as_as_wide(capsys):
    one = write("one.mrc", a_map(), 1.5)
    assert "correlation 1.0000" in said_by(capsys, one, write("untold.mrc", a_map(), 0.0))
    ours = write("ours.mrc", a_map(), 0.125, "mnist3d attenuation; 1 angstrom stands for 1 world unit; x right")
    assert "correlation 1.0000" in said_by(capsys, one, ours)
    assert "voxels = 0.25 world unit" in said_by(capsys, one, ours)
    np.save("plain.npy", from_upright(a_map()))
    said = said_by(capsys, one, "plain.npy")
    assert "2.00 voxels\n" in said  # of no length


def test_the_curve_is_in_the_unit_of_the_file():
    one = write("one.mrc", a_map(), 1.5)
    fsc.main([one, one, "--output", "curve.csv"])
    rows = [line.split(",") for line in Path("curve.csv").read_text().splitlines()]
    assert rows[0][1] == "cycles_per_unit"
    assert float(rows[-1][1]) == pytest.approx(1.0 / 3.0, abs=1e-5)  # Nyquist's


def test_rotation_and_shift_are_about_the_axes_of_a_file(capsys):
    values = a_map()
    turned = np.roll(np.rot90(values, 1, (1, 2)), 1, 0)  # (z, y, x): about the file's z by 90 degrees, and up by one
    said = said_by(capsys, write("a.mrc", values, 1.0), write("b.mrc", turned, 1.0), "--align")
    words = said.splitlines()[0].replace(",", "").split()
    rot, tilt, psi = (float(words[words.index(name) + 1]) for name in ("rot", "tilt", "psi"))
    assert tilt == pytest.approx(0.0, abs=2.0)
    assert (rot + psi) % 360.0 == pytest.approx(90.0, abs=2.0)  # y of the file becomes x
    place = words.index("shift")
    assert [float(word) for word in words[place + 1 : place + 4]] == pytest.approx([0.0, 0.0, 1.0], abs=0.2)
    assert said.splitlines()[0].endswith("about x right, y away, z up")


def test_an_alignment_in_the_world_is_told_in_the_file(capsys, monkeypatch):
    down = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # about the world's y
    found = Alignment(down, torch.tensor([0.0, -0.5, 0.25]), False, 1.0)  # up by 4 voxels, away by 2
    monkeypatch.setattr(fsc, "align", lambda *_, **__: found)
    one = write("one.mrc", a_map(), 1.0)
    assert "rot 0.0, tilt 0.0, psi" in (said := said_by(capsys, one, one, "--align"))
    assert "90.0 degrees, shift 0.00, 2.00, 4.00 voxels" in said


def test_values_beyond_single_precision_are_refused_without_a_warning_of_numpys():
    values = a_map()
    values[0, 0, 0] = -1.0
    write("huge.mrc", values, 5.0)
    content = bytearray(Path("huge.mrc").read_bytes())
    content[-4:] = np.float32(3e38).tobytes()
    Path("huge.mrc").write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"^huge\.mrc: "):
        fsc.main(["huge.mrc", write("map.mrc", a_map(), 5.0)])
