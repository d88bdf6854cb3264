"""Shaded views against what is known of balls, of nothing and of turning; sheets and frames of them."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from mnist3d.cli.program import run_command
from mnist3d.errors import ConfigError, ExportError
from mnist3d.export.frames import FrameStyle, orbit_frames
from mnist3d.export.video import write_orbit
from mnist3d.geometry.grids import voxel_centres
from mnist3d.geometry.rotations import euler_matrix, turntable
from mnist3d.rendering import shading as module
from mnist3d.rendering.pictures import BACKGROUND, contact_sheet, sheet_views
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.rendering.shading import DARK, DARKEST, MOST_VOXELS, Shading, shaded_view
from mnist3d.volumes.base import Field
from mnist3d.volumes.voxel_grid import VoxelGrid
from mnist3d.volumes.wrappers import GridField

N, SIZE = 32, 48
FRONT = torch.eye(3)
# Sums of products of float32 in another order: some 1e-6 of a brightness up to 1.
ROUNDING = 2e-5


def places(n=N):
    """x, y and z of the voxels, world units."""
    z, y, x = torch.meshgrid(*3 * [voxel_centres(n).float()], indexing="ij")
    return x, y, z


def ball(radius=0.6, attenuation=60.0, absorbance=0.0, centre=(0.0, 0.0, 0.0), n=N):
    """Uniform, its border a voxel soft."""
    x, y, z = (axis - shift for axis, shift in zip(places(n), centre, strict=True))
    share = ((radius - (x * x + y * y + z * z).sqrt()) * (n / 2) + 0.5).clamp(0.0, 1.0)
    return GridField(torch.stack([attenuation * share, torch.full_like(share, absorbance)]))


def lopsided():
    """Two balls of two kinds and a haze; nothing in it is symmetric."""
    one, two = ball(0.3, centre=(0.4, -0.2, 0.1)).values, ball(0.25, 90.0, centre=(-0.3, 0.3, -0.35)).values
    attenuation = one[0] + two[0] + 0.5
    return GridField(torch.stack([attenuation, (two[0] > 0.0).float()]))


def view(field, rotation=FRONT, **options):
    return shaded_view(Shading(field), AbsorptionRenderer(SIZE), rotation, **options)


def test_nothing_is_the_background():
    empty = GridField(torch.zeros(2, 8, 8, 8))
    assert torch.equal(view(empty), torch.zeros(SIZE, SIZE, 3))
    red = torch.tensor([1.0, 0.25, 0.0])
    assert torch.equal(view(empty, background=(1.0, 0.25, 0.0)), red.expand(SIZE, SIZE, 3))
    assert torch.equal(view(empty, background=None)[..., 3], torch.zeros(SIZE, SIZE))


def test_the_normals_of_a_ball_are_radial():
    shading = Shading(ball())
    x, y, z = places()
    radius = (x * x + y * y + z * z).sqrt()
    shell = (radius > 0.5) & (radius < 0.7)
    cosine = (shading.normal * torch.stack([x, y, z]) / radius).sum(0) / shading.normal.norm(dim=0)
    # Differences over two voxels of a border one voxel soft: within 5 degrees.
    assert cosine[shell].min() > math.cos(math.radians(5.0))
    assert (shading.normal.norm(dim=0)[shell] > 0.8).all()
    assert shading.normal.norm(dim=0).max() <= 1.0
    assert shading.normal.norm(dim=0)[radius < 0.1].max() < 0.2  # inside, nothing faces anywhere


def test_what_fills_the_cube_has_the_ball_as_its_border():
    """Where views cut it off; else its front would have no side that faces the eye."""
    full = torch.stack([torch.full((N, N, N), 60.0), torch.zeros(N, N, N)])
    normal = Shading(GridField(full)).normal[:, N // 2, N // 2]
    assert normal[0, 0] < -0.8
    assert normal[0, -1] > 0.8
    assert normal[:, N // 2].norm() < 0.2


def test_a_ball_is_brightest_above_left_and_the_same_on_both_sides_of_the_light():
    shown = view(ball())[..., 0]
    row, column = divmod(int(shown.argmax()), SIZE)
    assert row < SIZE / 2 - 2
    assert column < SIZE / 2 - 2
    torch.testing.assert_close(shown, shown.mT, rtol=0, atol=ROUNDING)  # the light lies on the image's diagonal
    falling = shown.diagonal()[int(shown.diagonal().argmax()) : 3 * SIZE // 4 - 2]  # away from the light, to the border
    assert len(falling) > SIZE // 4
    assert (falling.diff() < 0.01).all()  # the voxels show, but nothing shines a second time
    assert falling[-1] < 0.5 * falling[0]


@pytest.mark.parametrize("angles", [(0.0, 0.7, 0.0), (-0.5, 2.0, 1.0)])
def test_the_light_stays_with_the_eye(angles):
    """A ball looks the same from everywhere: a light that turned with it would move over it."""
    turned = view(ball(), euler_matrix(torch.tensor(angles)))
    # Its voxels show, as in its exact views, which differ by a mean of 6e-3 and 8e-3.
    assert (turned - view(ball())).abs().mean() < 1e-2
    assert (turned - view(ball()).flip(1)).abs().mean() > 4e-2  # the light from below


def test_turning_the_volume_and_the_camera_together_changes_nothing():
    values = lopsided().values
    quarter = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # x to -z, z to x
    # The array in (C, Z, Y, X): new(x, y, z) = old(quarter^T (x, y, z)) = old(-z, y, x).
    turned = GridField(values.permute(0, 3, 2, 1).flip(1))
    rotation = euler_matrix(torch.tensor([0.3, 0.5, 0.2]))
    together = view(turned, rotation @ quarter.mT)
    torch.testing.assert_close(together, view(lopsided(), rotation), rtol=0, atol=5 * ROUNDING)
    assert (together - view(lopsided(), rotation @ quarter.mT)).abs().max() > 0.2


def test_bright_and_black_matter_are_told_apart_by_colour():
    middle = SIZE // 2
    bright, black = (view(ball(absorbance=share))[middle, middle] for share in (0.0, 1.0))
    assert bright[0] > bright[2] > 0.3
    assert black[2] > black[0] > 0.05
    # Black is lit as bright matter is: the same shading in another colour, and the exact view of it is nothing.
    torch.testing.assert_close(black / torch.tensor(DARK), bright / torch.tensor(module.BRIGHT), rtol=0, atol=1e-4)


def test_the_nearer_of_two_balls_is_brighter_and_a_hollow_is_darker():
    shading = Shading(ball(0.2, centre=(0.0, 0.0, 0.0)))
    near, far = (float(shading.brightness(FRONT)[k, N // 2, N // 2]) for k in (2, -3))  # the same normal: none
    assert near > 1.2 * far
    outside, inside = (float(Shading(ball()).bright[N // 2, N // 2, k]) for k in (1, N // 2))
    assert outside == pytest.approx(1.0)
    assert DARKEST <= inside < 0.3


def test_haze_beside_solid_matter_is_left_out_and_haze_alone_is_not():
    fog = torch.full((N, N, N), 0.3)
    alone = Shading(GridField(torch.stack([fog, torch.zeros_like(fog)])))
    beside = Shading(GridField(torch.stack([fog + ball(0.3).values[0], torch.zeros_like(fog)])))
    assert alone.attenuation[N // 2, N // 2, N // 2] > 0.9 * 0.3
    assert beside.attenuation[N // 2, N // 2, 2] < 0.1 * 0.3
    assert beside.attenuation[N // 2, N // 2, N // 2] > 0.9 * 60.0


def test_a_transparent_view_over_a_colour_is_the_view_on_that_colour():
    clear, ground = view(lopsided(), background=None), torch.tensor([0.2, 0.5, 0.9])
    over = clear[..., 3:] * clear[..., :3] + (1.0 - clear[..., 3:]) * ground
    torch.testing.assert_close(over, view(lopsided(), background=(0.2, 0.5, 0.9)), rtol=0, atol=ROUNDING)
    assert clear[..., 3].max() > 0.99


def test_infinite_attenuation_is_opaque_and_finite():
    values = ball().values
    values[0] = torch.where(values[0] > 30.0, math.inf, 0.0)
    shown = view(GridField(values), background=(1.0, 0.0, 0.0))
    assert shown.isfinite().all()
    assert shown[SIZE // 2, SIZE // 2, 1] > 0.3
    everywhere = GridField(torch.stack([torch.full((4, 4, 4), math.inf), torch.zeros(4, 4, 4)]))
    assert view(everywhere).isfinite().all()


class Formula(Field):
    """A ball as a field without a grid."""

    def __call__(self, points):
        return 60.0 * (points.norm(dim=-1) < 0.6), torch.zeros_like(points[..., 0])


def test_a_field_is_sampled_and_a_fine_grid_is_averaged():
    assert Shading(Formula()).attenuation.shape == (64, 64, 64)
    assert Shading(Formula(), resolution=N).attenuation.shape == (N, N, N)
    # A border of one voxel is all that they differ by.
    assert (view(Formula()) - view(ball(n=64))).abs().mean() < 0.01
    long = GridField(torch.ones(2, 3 * MOST_VOXELS // 2, 6, 3))
    assert Shading(long).attenuation.shape == (MOST_VOXELS, 4, 2)


def test_nothing_is_changed_and_no_gradient_is_kept():
    volume = VoxelGrid.from_array(lopsided().values.numpy())
    before = volume.dense().detach().clone()
    assert not view(volume).requires_grad
    assert torch.equal(volume.dense(), before)


def test_what_cannot_be_is_refused_in_one_line(monkeypatch):
    with pytest.raises(ValueError, match="one rotation"):
        view(ball(), turntable(2))
    with pytest.raises(ValueError, match="resolution"):
        Shading(Formula(), resolution=0)
    monkeypatch.setattr("mnist3d.storage.memory.free_memory", lambda device: 2**20)
    with pytest.raises(ConfigError, match=r"style=shaded: the shading of 2,097,152 voxels takes"):
        Shading(Formula(), resolution=128)


def test_a_sheet_of_shaded_views_is_in_colour():
    views = sheet_views(lopsided(), AbsorptionRenderer(12), style="shaded")
    assert views.shape == (40, 3, 12, 12)
    sheet = contact_sheet(views, columns=8, magnify=2, gap=1)
    assert sheet.shape == (5 * 25 + 1, 8 * 25 + 1, 3)
    assert (sheet[0] == BACKGROUND).all()
    first = np.rint(255.0 * views[0, :, 5, 7].numpy())
    assert np.array_equal(sheet[1 + 2 * 5, 1 + 2 * 7], first)


def frame(**style):
    return next(orbit_frames(lopsided(), AbsorptionRenderer(8), FRONT[None], FrameStyle(SIZE, style="shaded", **style)))


def test_shaded_frames_have_their_background_and_their_supersampling():
    plain, white, clear = frame(), frame(background="white"), frame(background="transparent")
    assert plain.shape == white.shape == (SIZE, SIZE, 3)
    assert clear.shape == (SIZE, SIZE, 4)
    expected = view(lopsided())
    assert np.abs(plain / 255.0 - expected.numpy()).max() <= 0.5 / 255.0 + 1e-6  # rounded once
    assert white[0, 0].tolist() == [255, 255, 255]
    assert clear[0, 0, 3] == 0
    twice = frame(supersample=2, background="transparent").astype(float) / 255.0
    over = twice[..., 3:] * twice[..., :3]
    fine = shaded_view(Shading(lopsided()), AbsorptionRenderer(2 * SIZE), FRONT).reshape(SIZE, 2, SIZE, 2, 3)
    assert np.abs(over - fine.mean(dim=(1, 3)).numpy()).max() < 2.0 / 255.0  # colour and coverage are each rounded


def test_a_gif_has_one_palette_for_all_its_frames_and_few_colours_stay_exact(tmp_path):
    style, renderer = FrameStyle(SIZE, style="shaded"), AbsorptionRenderer(8)
    frames = list(orbit_frames(lopsided(), renderer, turntable(5), style))
    assert all(len(np.unique(frame.reshape(-1, 3), axis=0)) > 256 for frame in frames)
    few = [np.minimum(frame // 64 * 64, 192) for frame in frames]
    for name, shown, off in (("many", frames, 3.0), ("few", few, 0.0)):
        write_orbit(tmp_path / f"{name}.gif", shown, 10)
        colours = set()
        with Image.open(tmp_path / f"{name}.gif") as image:
            for k, frame in enumerate(shown):
                image.seek(k)
                found = np.asarray(image.convert("RGB"))
                colours |= {*map(tuple, found.reshape(-1, 3).tolist())}
                # 256 colours of the thousands that two hues have: a few levels off on average
                assert np.abs(found.astype(float) - frame).mean() <= off
        assert 8 < len(colours) <= 256  # of all frames together


def test_styles_that_cannot_be_are_refused():
    style = FrameStyle(colormap="inferno", style="shaded")
    with pytest.raises(ExportError, match="colormap=inferno: must be gray"):
        style.check()
    setattr(style, "style", "matt")  # noqa: B010 - types are checked at run time here, and an assignment's by pyright
    with pytest.raises(ExportError, match="style=matt: must be one of exact, shaded"):
        style.check()


def test_the_commands_write_shaded_pictures(tmp_path, capsys):
    volume = str(VoxelGrid.from_array(lopsided().values.numpy()).save(tmp_path / "v.safetensors"))
    for command in (
        ["orbit", volume, "--style", "shaded", "--frames", "2", "--size", "16", "--output", str(tmp_path / "o.png")],
        ["view", volume, "--style", "shaded", "--snapshot", str(tmp_path / "s.png")],
    ):
        with pytest.raises(SystemExit) as ended:
            run_command(command[0], command[1:])
        assert ended.value.code == 0
    strip, sheet = (np.asarray(Image.open(tmp_path / name)) for name in ("o.png", "s.png"))
    assert strip.shape == (16, 32, 3)
    assert sheet.shape == (5 * 86 + 2, 8 * 86 + 2, 3)
    for image in (strip, sheet):
        assert (image[..., 0] != image[..., 2]).any()
    assert "s.png" in capsys.readouterr().out
