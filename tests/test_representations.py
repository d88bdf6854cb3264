"""What volumes, renderers and runs say of themselves: as text, and in a notebook."""

import base64
import html
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist3d import notebook
from mnist3d.export import notebook_cell as cells
from mnist3d.export.notebook_cell import notebook_cell
from mnist3d.export.page import page_html
from mnist3d.rendering.pictures import contact_sheet, sheet_views
from mnist3d.rendering.renderer import AbsorptionRenderer, RendererOptions
from mnist3d.runs.config import Config
from mnist3d.runs.loading import Run
from mnist3d.volumes import FourierMLP, HashGrid, TriPlane, VMGrid, Volume, VoxelGrid
from mnist3d.volumes.wrappers import CutField, FrozenField, GridField, UnabsorbedField
from tests.third_party.glass_beads import Beads

GRID = np.linspace(0.0, 12.0, 24).reshape(2, 3, 4)
SAID = "VoxelGrid(resolution=(2, 3, 4), attenuation 0 to 12 per world unit, 48 weights, float32 on cpu)"
RENDERER = "AbsorptionRenderer(image_size=28, samples_per_ray=None, quadrature='trilinear', impl='auto')"
LEVELS = {"num_levels": 3, "log2_hashmap_size": 8, "base_resolution": 4, "per_level_scale": 2.0, "hidden_dim": 16}


def shape(volume):
    """Its text without the range of attenuation, which the random start decides."""
    return re.sub(r", attenuation \S+ to \S+ per world unit", ", attenuation ...", repr(volume))


@pytest.mark.parametrize(
    ("volume", "text"),
    [
        (VoxelGrid(8), "VoxelGrid(resolution=(8, 8, 8), attenuation ..., 1,168 weights, float32 on cpu)"),
        (
            VoxelGrid(8, pyramid=[], grow_at=[0.5]).double(),
            "VoxelGrid(resolution=(4, 4, 4), attenuation ..., growing to (8, 8, 8), 128 weights, float64 on cpu)",
        ),
        (
            VMGrid([4, 5, 6], 2),
            "VMGrid(resolution=(4, 5, 6), attenuation ..., components=2, 356 weights, float32 on cpu)",
        ),
        (
            HashGrid(**LEVELS),
            "HashGrid(3 levels of 4 to 16 corners an edge, bake_resolution=None, 1,280 weights, float32 on cpu)",
        ),
        (
            HashGrid(**LEVELS, bake_resolution=8, grow_at=[0.5], levels_at=[0.3]),
            "HashGrid(2 of 3 levels of 4 to 8 corners an edge, bake_resolution=4, 1,280 weights, float32 on cpu)",
        ),
        (
            TriPlane(4, 3, "product", bake_resolution=8, grow_at=[0.5]),
            "TriPlane(3 planes of 4 x 4 cells, 3 channels, product, bake_resolution=4, 304 weights, float32 on cpu)",
        ),
        (
            FourierMLP(num_frequencies=4, hidden_dim=16, num_layers=3),
            "FourierMLP(relu, 4 frequencies, layers 8 x 16 x 16 x 2, bake_resolution=None, 448 weights, "
            "float32 on cpu)",
        ),
        (
            FourierMLP("sine", hidden_dim=16, num_layers=3),
            "FourierMLP(sine, omega_0=30, layers 3 x 16 x 16 x 2, bake_resolution=None, 368 weights, float32 on cpu)",
        ),
        (
            Beads(3, colours=[0.1] * 99),
            "Beads(count=3, radius=0.2, colours=[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, ...], 15 weights, float32 on cpu)",
        ),
    ],
)
def test_a_volume_says_its_class_size_weights_and_place(volume, text):
    assert shape(volume) == text


def test_the_range_of_attenuation_is_what_the_grid_holds():
    volume = VoxelGrid.from_array(GRID)
    assert repr(volume) == SAID
    volume = VMGrid(6)
    values = volume.dense()[0].detach()
    assert f"attenuation {values.min():.3g} to {values.max():.3g} per" in repr(volume)


def test_no_text_asks_a_field_or_looks_through_a_large_grid(monkeypatch):
    def refuse(*_):
        raise AssertionError("asked")

    monkeypatch.setattr(HashGrid, "forward", refuse)
    assert "attenuation" not in repr(HashGrid(**LEVELS, bake_resolution=4))
    limit, beyond = (torch.ones(()).expand(2, n, 128, 128) for n in (128, 129))
    assert repr(GridField(limit)) == "GridField(resolution=(128, 128, 128), attenuation 1 to 1 per world unit)"
    assert repr(GridField(beyond)) == "GridField(resolution=(129, 128, 128))"
    with torch.device("meta"):
        assert "resolution=(4, 4, 4), 146 weights, float32 on meta" in repr(VoxelGrid(4))


def test_a_wrapper_says_what_it_wraps():
    volume = VoxelGrid.from_array(GRID)
    normal = torch.tensor([0.0, 0.6, 0.8])
    for field, text in (
        (FrozenField(volume), f"FrozenField({SAID})"),
        (UnabsorbedField(volume), f"UnabsorbedField({SAID})"),
        (CutField(volume, 1.5, normal, -0.25), f"CutField({SAID}, scale=1.5, normal=(0.0, 0.6, 0.8), depth=-0.25)"),
        (GridField(volume.dense()), "GridField(resolution=(2, 3, 4), attenuation 0 to 12 per world unit)"),
        (FrozenField(UnabsorbedField(volume)), f"FrozenField(UnabsorbedField({SAID}))"),
    ):
        assert repr(field) == text


def test_a_renderers_text_builds_it_again():
    assert repr(AbsorptionRenderer()) == RENDERER
    for renderer in (AbsorptionRenderer(), AbsorptionRenderer((20, 28), 12, "slices", "reference")):
        again = eval(repr(renderer))
        assert (again.image_size, again.options, again.impl) == (renderer.image_size, renderer.options, renderer.impl)


@pytest.fixture
def run():
    volume = VoxelGrid.from_array(GRID)
    return Run(Path("runs/one"), Config(), volume, AbsorptionRenderer(), {"run": "one & only", "step": 1234})


def test_a_run_says_where_it_is_and_what_it_is_made_of(run):
    lines = ["Run runs/one at step 1,234", f"  volume: {SAID}", f"  renderer: {RENDERER}", "  data: mnist_5k"]
    assert repr(run) == "\n".join(lines).replace("runs/one", str(Path("runs/one")))
    run.origin["step"] = None
    assert repr(run).startswith(f"Run {Path('runs/one')}\n")


def inside(cell):
    """The page in a cell's frame."""
    (page,) = re.findall(r' srcdoc="([^"]*)"', cell)
    return html.unescape(page)


def test_a_cell_shows_the_page_in_a_frame_and_the_text_below():
    volume = VoxelGrid.from_array(GRID)
    cell = notebook_cell(volume, RendererOptions(28, 17), '<b> & "c"')
    assert cell.count("<iframe ") == 1
    assert ' sandbox="allow-scripts" ' in cell  # a page from elsewhere must not reach the notebook
    page = page_html(volume, RendererOptions(28, 17), '<b> & "c"')
    assert inside(cell).replace(cells.IN_A_CELL, "</head>") == page
    assert "const STEPS = 17;" in page
    assert cell.endswith(f"{html.escape(SAID)}</pre></div>")
    assert "<b>" not in cell
    assert '<pre style="margin:0;padding:6px 0;white-space:pre-wrap">my &lt;words&gt;</pre>' in notebook_cell(
        volume, caption="my <words>"
    )
    assert "<title>VoxelGrid</title>" in inside(notebook_cell(volume))
    assert "<title>HashGrid</title>" in inside(notebook_cell(HashGrid(**LEVELS)))  # a field: 64^3, which fits


def test_the_largest_page_goes_through_a_jupyter_server_and_what_is_larger_is_a_contact_sheet(monkeypatch):
    """The server's limit: 1 MB/s (`iopub_data_rate_limit`) over 3 s (`rate_limit_window`)."""
    largest = round(cells.MOST_VOXELS ** (1 / 3))
    assert 1_500_000 < len(notebook_cell(GridField(torch.rand(2, largest, largest, largest)))) < 3_000_000
    monkeypatch.setattr(cells, "MOST_VOXELS", 24)
    assert "<iframe" in notebook_cell(VoxelGrid.from_array(GRID))
    volume = VoxelGrid.from_array(np.concatenate([GRID, GRID]))
    cell = notebook_cell(volume, RendererOptions(28, 9, "slices"))
    assert "<iframe" not in cell
    (data,) = re.findall(
        r'<img alt="40 shaded views" style="width:882px;[^>]* src="data:image/png;base64,([^"]*)">', cell
    )
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    expected = sheet_views(volume, AbsorptionRenderer(86, 9, "slices"), style="shaded")
    assert np.array_equal(sheet, contact_sheet(expected, columns=10, magnify=1))
    assert sheet.std() > 1.0


def test_a_volume_shows_itself_without_a_further_import_however_it_is_imported():
    """In processes of their own: `mnist3d/__init__.py` registers who draws it, and brings nothing in for that."""
    for taken in ("mnist3d", "mnist3d.volumes", "mnist3d.volumes.voxel_grid"):
        code = (
            f"import sys\nfrom {taken} import VoxelGrid\n"
            "assert not [name for name in sys.modules if name.startswith('mnist3d.export')]\n"
            "print(VoxelGrid(2)._repr_html_()[:60])"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert said.stdout.startswith('<div style="max-width:880px"><iframe'), said.stderr


def test_showing_changes_nothing():
    volume = HashGrid(**LEVELS)
    before, random = {key: value.clone() for key, value in volume.state_dict().items()}, torch.get_rng_state()
    assert notebook_cell(volume)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in volume.state_dict().items())
    assert volume.training
    assert all(weight.grad is None for weight in volume.parameters())


class Broken(Volume):
    """A volume that cannot be drawn."""

    def __init__(self, with_text: bool = True):
        super().__init__()
        self.with_text = with_text

    def extra_repr(self) -> str:
        if not self.with_text:
            raise OverflowError("no words")
        return "whole"

    def forward(self, points):
        raise OverflowError("5 < 3")


def test_what_cannot_be_drawn_is_text_with_the_reason(run):
    text = Broken()._repr_html_()
    reason = "No picture of it: OverflowError: 5 &lt; 3"
    assert text == f"<pre>Broken(whole, 0 weights, float32 on cpu)\n{reason}</pre>"
    nothing = Broken(with_text=False)._repr_html_()
    assert nothing == f"<pre>Broken (OverflowError: no words)\n{reason}</pre>"
    run.volume = Broken()
    assert run._repr_html_().startswith(f"<pre>Run {Path('runs/one')} at step 1,234\n  volume: Broken(whole")
    assert run._repr_html_().endswith(f"\n{reason}</pre>")


def test_the_text_of_what_cannot_be_drawn_is_no_html():
    class Tagged:
        def __repr__(self):
            return "<script>"

    def no_picture():
        raise ValueError("<b>")

    written = "&lt;script&gt;\nNo picture of it: ValueError: &lt;b&gt;"
    assert notebook.shown(Tagged(), no_picture) == f"<pre>{written}</pre>"


def test_without_what_draws_it_a_volume_is_text(monkeypatch):
    monkeypatch.setattr(notebook, "volume_html", None)
    assert VoxelGrid(2)._repr_html_() is None  # then a notebook takes its `repr`


def test_a_run_shows_its_volume_under_its_name(run):
    run.renderer = AbsorptionRenderer(28, 11)
    cell = run._repr_html_()
    assert "<title>one &amp; only</title>" in inside(cell)
    assert "const STEPS = 11;" in inside(cell)
    assert html.escape(repr(run)) in cell
    run.origin.clear()
    assert "<title>one</title>" in inside(run._repr_html_())


@pytest.mark.parametrize(("width", "map_width"), [(900, 396), (700, 216), (500, None)])
def test_a_cell_is_good_to_look_at_in_a_browser(width, map_width, chromium, tmp_path):
    """The view is large, bright in its middle and grabbed by the mouse; nothing is asked for from anywhere."""
    path = tmp_path / "notebook.html"
    ball = GridField(torch.stack([torch.full((9, 9, 9), 9.0), torch.zeros(9, 9, 9)]))
    path.write_text(f"<!doctype html><body style='margin:0;width:{width}px'>{notebook_cell(ball)}", encoding="utf-8")
    page = chromium.new_page(viewport={"width": width, "height": 560})
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    frame = page.frames[1]
    frame.locator("#view[data-azimuth]").wait_for(timeout=30_000)
    box, outer = frame.locator("#view").bounding_box(), page.locator("iframe").bounding_box()
    assert (outer["width"], outer["height"]) == (min(width, cells.WIDTH), cells.HEIGHT)
    assert box["height"] >= 0.85 * cells.HEIGHT
    assert abs(box["width"] - box["height"]) <= 1.0
    shown = frame.locator("#map")
    assert shown.is_visible() == (map_width is not None)
    if map_width is not None:
        assert shown.bounding_box()["width"] == pytest.approx(map_width, abs=1.0)
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    image = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
    assert image[int(middle[1]), int(middle[0])] > 240
    assert image[int(box["y"]) + 3, int(box["x"]) + 3] < 10  # the view's corner lies outside the ball
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + box["width"] / 4, middle[1], steps=3)
    page.mouse.up()
    frame.locator("#view[data-azimuth^='-0.']").wait_for(timeout=30_000)
    assert errors == []
    assert [url for url in requests if not url.startswith(("about:", path.as_uri()))] == []
    page.close()
