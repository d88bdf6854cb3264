"""The shareable page: one file whose image is the renderer's."""

import base64
import io
import math
import os
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist3d.errors import ExportError
from mnist3d.export.page import page_html
from mnist3d.geometry.grids import voxel_centres
from mnist3d.geometry.rotations import upright_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer, RendererOptions
from mnist3d.rendering.shading import MOST_VOXELS, Shading, shaded_view
from mnist3d.storage.atomic import write_atomically
from mnist3d.volumes import volume_bytes
from mnist3d.volumes.base import Volume
from mnist3d.volumes.voxel_grid import VoxelGrid
from mnist3d.volumes.wrappers import GridField

ROOT = Path(__file__).parent.parent
SIZE = 96
VIEWS = [(0.0, 0.0), (1.1, 0.4), (-2.0, -0.7)]


def grid():
    """Soft and solid parts, another size along each axis, no symmetry."""
    generator = torch.Generator().manual_seed(5)
    values = torch.rand(2, 20, 22, 24, generator=generator)
    values[0] = (values[0] ** 4) * 30.0
    values[0, 3:12, 5:9, 8:20] += 40.0
    values[1, 3:12, 5:9, 8:20] = 0.1
    return values


class Egg(Volume):
    """A field that is no grid."""

    def forward(self, points):
        inside = torch.sigmoid(12.0 * (0.6 - (points * torch.tensor([1.0, 1.4, 0.8])).norm(dim=-1)))
        return 4.0 * inside, torch.sigmoid(3.0 * points[..., 0])


def psnr(first, second):
    return 10.0 * math.log10(1.0 / max(float(np.mean((first - second) ** 2)), 1e-12))


def opened(chromium, path, address="", motion="reduce"):
    """A page that does not sway unless it is told to: what it shows is then what it was asked for."""
    page = chromium.new_page(viewport={"width": 300, "height": 420}, reduced_motion=motion)
    page.errors, page.requests = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(path.as_uri() + address)
    page.locator("#view[data-azimuth]").wait_for(timeout=30_000)
    return page


def until(page, condition):
    """By hand: the page's own policy keeps Playwright from asking in it."""
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def shown(page, azimuth, elevation, mode="L"):
    script = f"fixed = {SIZE}; look.azimuth = {azimuth}; look.elevation = {elevation}; look.zoom = 1; dirty = true;"
    data = page.evaluate(f"(() => {{ {script} frame(performance.now()); return canvas.toDataURL(); }})()")
    image = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert(mode)
    return np.asarray(image) / 255.0


def rendered(volume, azimuth, elevation, samples):
    rotation = upright_matrix(torch.tensor(azimuth), torch.tensor(elevation))
    with torch.no_grad():
        return AbsorptionRenderer(SIZE, samples)(volume, rotation)[0, 0].numpy()


@pytest.mark.parametrize(("kind", "samples"), [("grid", None), ("grid", 41), ("field", 48)])
def test_its_image_is_the_renderers(kind, samples, chromium, tmp_path):
    volume = VoxelGrid.from_array(grid()) if kind == "grid" else Egg()
    path = tmp_path / "page.html"
    path.write_text(page_html(volume, RendererOptions(28, samples), "a title"), encoding="utf-8")
    page = opened(chromium, path)
    for azimuth, elevation in VIEWS:
        image = shown(page, azimuth, elevation)
        assert psnr(image, rendered(volume, azimuth, elevation, samples)) >= 35.0
        assert psnr(image, rendered(volume, azimuth + 0.6, elevation, samples)) < 35.0
    assert page.errors == []
    assert page.requests == [path.as_uri()]  # nothing else, from anywhere
    page.close()


SHADED_VIEWS = [(0.0, 0.0), (0.7, 0.2), (1.4, -0.3), (2.1, 0.5), (2.8, 0.0)]
SHADED_VIEWS += [(-2.6, -0.6), (-1.9, 0.9), (-1.2, 0.1), (-0.5, -0.2), (0.3, 1.4)]


@pytest.mark.parametrize("kind", ["grid", "solid"])
def test_its_shaded_view_is_the_renderers(kind, chromium, tmp_path):
    values = grid()
    if kind == "solid":  # with a part that infinite attenuation makes opaque, and haze around
        values[0] = torch.where(values[0] > 20.0, math.inf, 0.5)
        values[1, :, :, :8] = 1.0
    path = tmp_path / "page.html"
    path.write_text(page_html(GridField(values), RendererOptions(), "t"), encoding="utf-8")
    page = opened(chromium, path)
    exact = shown(page, 0.7, 0.2, "RGB")
    page.keyboard.press("s")
    assert page.locator("#shaded").get_attribute("aria-pressed") == "true"
    shading, renderer = Shading(GridField(values)), AbsorptionRenderer(SIZE)
    for azimuth, elevation in SHADED_VIEWS:
        rotation = upright_matrix(torch.tensor(azimuth), torch.tensor(elevation))
        ours = shaded_view(shading, renderer, rotation).numpy()
        image = shown(page, azimuth, elevation, "RGB")
        assert psnr(image, ours) >= 35.0
        assert psnr(image[:, ::-1], ours) < 30.0
    page.locator("#shaded").click()
    assert np.array_equal(shown(page, 0.7, 0.2, "RGB"), exact)
    assert page.errors == []
    page.close()


def test_it_turns_by_mouse_keys_map_and_orbit_and_comes_nearer(chromium, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_html(VoxelGrid.from_array(grid()), RendererOptions(), "t"), encoding="utf-8")
    page = opened(chromium, path)

    def pose():
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        values = page.locator("#view").evaluate("v => [v.dataset.azimuth, v.dataset.elevation, v.dataset.zoom]")
        return [float(value) for value in values]

    box = page.locator("#view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] / 4, y + box["width"] / 8, steps=3)
    page.mouse.up()
    assert pose() == pytest.approx([-0.5, 0.25, 1.0], abs=0.01)
    page.keyboard.press("ArrowLeft")
    assert pose()[0] == pytest.approx(-0.5 + math.pi / 36, abs=0.01)
    page.mouse.dblclick(x, y)
    assert pose() == [0.0, 0.0, 1.0]
    page.mouse.wheel(0, -400)
    assert pose()[2] == pytest.approx(2.0, abs=0.01)
    page.locator("#map").click(position={"x": 2, "y": 2})
    assert pose()[:2] == pytest.approx([-math.pi + math.pi / 24, math.pi / 2 - math.pi / 24], abs=1e-6)
    page.locator("#front").click()
    assert pose() == [0.0, 0.0, 1.0]
    page.locator("#orbit").click()
    for _ in range(600):
        if pose()[0] > 0.02:
            break
        page.wait_for_timeout(100)
    assert pose()[0] > 0.02
    touch = page.context.new_cdp_session(page)
    page.locator("#front").click()
    for kind, apart in (("touchStart", 20), ("touchMove", 40)):
        points = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert pose()[2] == pytest.approx(2.0, abs=0.1)
    assert page.errors == []
    page.close()


def test_in_perspective_a_ball_of_one_attenuation_is_its_chords(chromium, tmp_path):
    """From an eye three radii away, whose rays touch the ball where the orthographic ones do."""
    path = tmp_path / "page.html"
    values = torch.stack([torch.full((32, 32, 32), 1.5), torch.zeros(32, 32, 32)])
    path.write_text(page_html(GridField(values), RendererOptions(28, 64), "t"), encoding="utf-8")
    page = opened(chromium, path)
    page.keyboard.press("p")
    assert page.locator("#perspective").get_attribute("aria-pressed") == "true"
    axis = (2.0 * np.arange(SIZE) + 1.0) / SIZE - 1.0
    radius = np.hypot(axis[:, None], axis) / math.sqrt(1.0 - 1.0 / 9.0)
    nearest = 3.0 * np.sin(np.arctan(radius / 3.0))  # of a ray to the middle
    exact = 1.0 - np.exp(-2.0 * 1.5 * np.sqrt(np.maximum(1.0 - nearest**2, 0.0)))
    image = shown(page, 0.4, -0.2)
    assert psnr(image, exact) >= 40.0  # 8 bits of opacity and of the image are 50 dB and better
    page.keyboard.press("p")
    assert psnr(shown(page, 0.4, -0.2), exact) < 40.0
    page.close()


@pytest.mark.parametrize("depth", [-0.5, 0.5])
def test_in_perspective_what_is_nearer_is_further_out(depth, chromium, tmp_path):
    path = tmp_path / "page.html"
    z, y, x = torch.meshgrid(*[voxel_centres(n).float() for n in (30, 32, 34)], indexing="ij")
    spot = 20.0 * torch.exp(-120.0 * ((x - 0.5) ** 2 + (y + 0.25) ** 2 + (z - depth) ** 2))
    path.write_text(page_html(GridField(torch.stack([spot, 0.0 * spot])), RendererOptions(), "t"), encoding="utf-8")
    page = opened(chromium, path)
    axis = (2.0 * np.arange(SIZE) + 1.0) / SIZE - 1.0

    def middle():
        image = shown(page, 0.0, 0.0)
        return [float((image.sum(axis=side) * axis).sum() / image.sum()) for side in (0, 1)]

    assert middle() == pytest.approx([0.5, -0.25], abs=0.004)  # a fifth of a pixel
    page.locator("#perspective").click()
    grown = math.sqrt(1.0 - 1.0 / 9.0) * 3.0 / (3.0 + depth)
    # Parts of the spot that are nearer are further out: by its variance, 1/240, over the eye's distance squared.
    assert middle() == pytest.approx([0.5 * grown, -0.25 * grown], abs=0.004)
    page.close()


def test_what_is_looked_at_stands_in_the_address(chromium, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_html(VoxelGrid.from_array(grid()), RendererOptions(), "t"), encoding="utf-8")
    page = opened(chromium, path, "#az=-90&el=200&zoom=3&style=shaded&perspective=on&sway=on")
    state = "() => [look.azimuth, look.elevation, look.zoom, shaded, perspective, swung.wanted]"
    assert page.evaluate(state) == [pytest.approx(-math.pi / 2), pytest.approx(math.pi / 2), 3, True, True, True]
    page.evaluate("location.hash = '#az=x&el=10'")  # what is no number is as usual
    until(page, "!shaded")
    assert page.evaluate(state) == [0, pytest.approx(math.pi / 18), 1, False, False, False]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("s")
    until(page, "location.hash === '#el=15&style=shaded'")
    page.keyboard.press("s")
    page.keyboard.press("Home")
    until(page, "location.hash === ''")
    assert page.errors == []
    page.close()


def test_all_of_it_is_reached_by_keys(chromium, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_html(VoxelGrid.from_array(grid()), RendererOptions(), "t"), encoding="utf-8")
    page = opened(chromium, path)
    page.set_viewport_size({"width": 400, "height": 700})  # in the low cell of a notebook some buttons are left out
    page.keyboard.press("+")
    assert page.evaluate("look.zoom") == 1.25
    page.keyboard.press("-")
    assert page.evaluate("look.zoom") == 1.0
    page.locator("#map").focus()
    page.keyboard.press("ArrowLeft")  # the front lies in the first cell right of the middle and below it
    page.keyboard.press("ArrowUp")
    place = [-math.pi / 24, math.pi / 24]
    assert page.evaluate("() => [look.azimuth, look.elevation]") == pytest.approx(place)
    for _ in range(7):
        page.keyboard.press("ArrowUp")
    assert page.evaluate("look.elevation") == pytest.approx(math.pi / 2 - math.pi / 24)
    for key, name in (("p", "perspective"), ("s", "shaded"), ("o", "orbit")):
        page.keyboard.press(key)
        assert page.locator(f"#{name}").get_attribute("aria-pressed") == "true"
        page.keyboard.press(key)
        assert page.locator(f"#{name}").get_attribute("aria-pressed") == "false"
    reached = set()
    for _ in range(10):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert reached >= {"view", "map", "shaded", "perspective", "front", "orbit", "sway", "full"}
    page.keyboard.press("f")
    until(page, "document.fullscreenElement === $('stage')")
    page.keyboard.press("f")
    until(page, "document.fullscreenElement === null")
    assert page.errors == []
    page.close()


def test_it_sways_while_nobody_does_anything(chromium, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_html(VoxelGrid.from_array(grid()), RendererOptions(), "t"), encoding="utf-8")
    # Each in one go, between two of the page's own frames.
    rest = "idle => { swung.share = 0.25; swing(swung.touched + idle, 1000); return swung.share; }"
    for motion, share in (("no-preference", 0.75), ("reduce", 0.0)):
        page = opened(chromium, path, motion=motion)
        assert page.locator("#sway").get_attribute("aria-pressed") == str(motion == "no-preference").lower()
        assert page.evaluate(f"({rest})(6000)") == share
        assert page.evaluate(f"({rest})(1000)") == 0.0  # somebody is at it,
        assert page.evaluate(f"({rest})(200_000)") == 0.0  # nobody has been for long
        held = "fingers.set(1, [0, 0]); const share = rest(6000); fingers.clear(); return share;"
        turning = "orbiting = true; const share = rest(6000); orbiting = false; return share;"
        for busy in (held, turning):
            assert page.evaluate(f"() => {{ const rest = {rest}; {busy} }}") == 0.0
        swayed = "swung.share = 1, swung.time = SWAY.period / 8"
        kept = f"() => {{ {swayed}; const there = swayed(); keepSwayed(); return [there, look, swung.share]; }}"
        there, look, left = page.evaluate(kept)  # a hand takes it where it is
        assert there["azimuth"] == pytest.approx(0.16 * math.sin(math.pi / 4))
        assert [look["azimuth"], look["elevation"], left] == [there["azimuth"], there["elevation"], 0]
        page.close()


def test_more_voxels_than_it_can_shade_at_once_are_shown_exactly_alone(chromium, tmp_path):
    for longest, hidden in ((MOST_VOXELS, False), (MOST_VOXELS + 1, True)):
        path = tmp_path / f"{longest}.html"
        grid = GridField(torch.ones(2, longest, 2, 2))
        path.write_text(page_html(grid, RendererOptions(28, 8), "t"), encoding="utf-8")
        page = opened(chromium, path)
        assert page.locator("#shaded").is_hidden() == hidden
        page.keyboard.press("s")
        assert page.evaluate("shaded") != hidden
        assert page.errors == []
        page.close()


def test_without_webgl_it_says_so(chromium, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_html(VoxelGrid.from_array(grid()), RendererOptions(), "t"), encoding="utf-8")
    page = chromium.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(path.as_uri())
    assert "WebGL2" in page.locator("#message").inner_text()
    page.close()


def test_a_title_is_text_whatever_it_holds():
    page = page_html(VoxelGrid(4), RendererOptions(), "<script>alert(1)</script> & __DATA__ \\1")
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; __DATA__ \\1") == 2


def stored(page):
    """What a page holds: attenuation and absorbance, (2, Z, Y, X), to 8 bits."""
    size = [int(n) for n in re.findall(r"\[(\d+), (\d+), (\d+)\]", page)[0]]
    steps = int(re.findall(r"const STEPS = (\d+)", page)[0])
    data = max(re.findall(r"[A-Za-z0-9+/=]{100,}", page), key=len)
    channels = np.frombuffer(base64.b64decode(data), np.uint8).reshape(2, *size[::-1]) / 255.0
    return np.stack([-np.log1p(-np.minimum(channels[0] ** 2, 0.9999)) * steps / 2.0, channels[1]])


def test_a_coarser_page_holds_the_means_and_keeps_the_proportions():
    """Faint enough that 8 bits of the opacity's root tell attenuation to a percent."""
    fine = grid()
    fine[0] = fine[0] * 0.2
    coarse = stored(page_html(VoxelGrid.from_array(fine), RendererOptions(), "t", 12))
    assert coarse.shape == (2, 10, 11, 12)
    matter = fine[0].reshape(10, 2, 11, 2, 12, 2).mean(dim=(1, 3, 5)).numpy()
    dark = (fine[0] * fine[1]).reshape(10, 2, 11, 2, 12, 2).mean(dim=(1, 3, 5)).numpy()
    assert coarse[0] == pytest.approx(matter, rel=0.03, abs=0.02)
    assert coarse[1] == pytest.approx(dark / matter, abs=0.003)


def test_a_finer_page_is_drawn_as_the_renderer_draws_and_a_field_is_asked():
    volume = VoxelGrid.from_array(grid() * torch.tensor([0.2, 1.0]).reshape(2, 1, 1, 1))
    fine = stored(page_html(volume, RendererOptions(), "t", 48))
    assert fine.shape == (2, 40, 44, 48)
    places = torch.meshgrid(*[voxel_centres(n).float() for n in fine.shape[1:]], indexing="ij")
    attenuation, absorbance = volume(torch.stack(places[::-1], dim=-1))
    assert fine[0] == pytest.approx(attenuation.detach().numpy(), rel=0.03, abs=0.02)
    assert fine[1] == pytest.approx(absorbance.detach().numpy(), abs=0.003)
    assert stored(page_html(Egg(), RendererOptions(), "t")).shape == (2, 64, 64, 64)


def test_a_grid_too_fine_for_a_phone_is_coarsened_and_keeps_its_steps():
    page = page_html(VoxelGrid.from_array(torch.rand(2, 1, 1, 300)), RendererOptions(), "t")
    assert stored(page).shape == (2, 1, 1, 256)
    assert "const STEPS = 300;" in page


@pytest.mark.parametrize("resolution", [1, 257])
def test_resolution_is_checked(resolution):
    with pytest.raises(ExportError, match=f"resolution={resolution}: must be in .2, 256."):
        page_html(VoxelGrid(4), RendererOptions(), "t", resolution)


def test_the_tool_writes_one_file_and_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    volume = write_atomically(tmp_path / "volume.safetensors", volume_bytes(VoxelGrid(28)))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["export_page.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools" / "export_page.py"), run_name="__main__")
        return ended.value.code, capsys.readouterr()

    code, said = run(volume, "--output", tmp_path / "s.html")
    assert (code, said.err) == (0, "")
    assert str(tmp_path / "s.html") in said.out
    assert 50_000 < (tmp_path / "s.html").stat().st_size < 90_000
    for arguments, words in (
        (["--output", tmp_path / "s.pdf"], ".html"),
        (["--output", tmp_path / "no" / "s.html"], "does not exist"),
        (["--resolution", "1000"], "from 2 to 256"),
    ):
        code, said = run(volume, *arguments)
        assert (code, said.err.count("\n")) == (2, 1), said.err
        assert words in said.err
    assert sorted(os.listdir(tmp_path)) == ["s.html", "volume.safetensors"]
