"""Views of the page and when they are drawn: shaded or exact, near or far, and what a training pays for them."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from viewer_client import ANY_PORT, Client, blob, scene, wait_until  # pyright: ignore[reportMissingImports]

from mnist3d.rendering import Shading, shaded_view, to_uint8
from mnist3d.rendering.renderer import AbsorptionRenderer, RendererOptions
from mnist3d.viewer import Live, Snapshot, Viewer, ViewerOptions, render_thread
from mnist3d.viewer.cpu_budget import Allowance
from mnist3d.viewer.downloads import Order, make
from mnist3d.viewer.drawing import drawn_view, lit_view, magnified, rendered_view
from mnist3d.viewer.messages import parse_request
from mnist3d.viewer.render_thread import Painter
from mnist3d.viewer.scene import MAX_SIZE, View
from mnist3d.volumes.base import Field
from mnist3d.volumes.voxel_grid import VoxelGrid
from mnist3d.volumes.wrappers import FrozenField

OPTIONS = RendererOptions(16, 15)
TURNED = View(azimuth=0.7, elevation=-0.4, size=24)


# ---- views ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("zoom", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("size", [16, 17])
def test_what_is_shown_when_one_comes_nearer_is_the_middle_of_a_larger_view(zoom, size):
    snapshot = scene().snapshot
    shown = rendered_view(snapshot, OPTIONS, dataclasses.replace(TURNED, zoom=zoom), size)
    whole, edge = magnified(size, zoom)
    large = rendered_view(snapshot, OPTIONS, TURNED, whole)
    assert edge == size
    assert abs(whole - zoom * size) <= 1.0  # whole pixels on both sides of the middle
    assert torch.equal(shown, large[..., (whole - edge) // 2 :, (whole - edge) // 2 :][..., :edge, :edge])


@pytest.mark.parametrize(("size", "zoom"), [*itertools.product((8, 255, 512, MAX_SIZE), (1.0, 2.6, 8.0))])
def test_no_zoom_asks_for_more_pixels_than_the_largest_view_has(size, zoom):
    whole, shown = magnified(size, zoom)
    assert whole <= MAX_SIZE
    assert 0 < shown <= size
    assert (whole - shown) % 2 == 0
    assert whole / shown == pytest.approx(zoom, rel=1.5 / shown)


def test_a_field_without_a_grid_is_never_asked_for_more_than_it_answers_in_a_moment():
    class Ball(Field):
        asked = 0

        def __call__(self, points):
            Ball.asked += points[..., 0].numel()
            return points.square().sum(dim=-1).lt(0.5).to(points), torch.zeros_like(points[..., 0])

        def like(self):
            return torch.zeros(())

    near = View(size=256, zoom=8.0)
    assert rendered_view(Snapshot(FrozenField(Ball()), 0), RendererOptions(16, 1), near).shape == (1, 1, 64, 64)
    assert Ball.asked <= 512**2


def test_a_shaded_view_is_the_renderings_shaded_view():
    volume = blob()
    shown = drawn_view(scene(volume).snapshot, OPTIONS, dataclasses.replace(TURNED, style="shaded"))
    like = shaded_view(Shading(volume), AbsorptionRenderer(24, 15), TURNED.rotation)
    assert np.array_equal(shown, to_uint8(like))
    assert (shown[..., 0] != shown[..., 2]).any()  # in colour
    exact = drawn_view(scene(volume).snapshot, OPTIONS, TURNED)
    assert np.array_equal(exact, to_uint8(rendered_view(scene(volume).snapshot, OPTIONS, TURNED)[0, 0]))


def test_the_sliders_act_on_a_shaded_view_without_a_new_shading(monkeypatch):
    """A ball of even matter: half of it cut away shows its middle plane, and none of what lay before."""
    shading = Shading(VoxelGrid.from_array(torch.stack([torch.full((24, 24, 24), 3.0), torch.zeros(24, 24, 24)])))
    monkeypatch.setattr("mnist3d.viewer.drawing.Shading", None)
    before = shading.attenuation.clone()

    def seen(**view):
        return lit_view(shading, OPTIONS, View(size=15, style="shaded", **view))

    whole = seen()
    assert float(seen(exposure=0.5).max()) == pytest.approx(0.5 * float(whole.max()), rel=1e-5)
    assert float(seen(scale=0.05).max()) < 0.5 * float(whole.max())
    assert float(seen(cut=1.0).max()) < 0.02
    held = seen(cut=0.0, cut_normal=(1.0, 0.0, 0.0))[7]  # from the side: the half at -x is gone
    assert float(held[2].max()) < 0.02 < 0.2 < float(held[12].max())
    near = seen(zoom=2.0)
    large, edge = magnified(15, 2.0)[0], 7
    assert torch.equal(near, lit_view(shading, OPTIONS, View(size=large))[edge + 1 :, edge + 1 :][:15, :15])
    assert torch.equal(shading.attenuation, before)


def test_the_messages_style_and_zoom():
    view = parse_request('{"view": {"zoom": 99, "style": "shaded"}}').view
    assert view is not None
    assert (view.zoom, view.style) == (8.0, "shaded")
    assert parse_request('{"view": {"zoom": 0.1}}').view == View()
    for wrong in ('{"view": {"style": "x"}}', '{"view": {"style": ["shaded"]}}', '{"view": {"zoom": "2"}}'):
        with pytest.raises(ValueError, match="must be"):
            parse_request(wrong)


def test_what_is_downloaded_is_what_is_shown():
    shown = scene()
    view = dataclasses.replace(TURNED, style="shaded", zoom=2.0)
    order = Order(shown, shown.snapshot, view, lambda: None)
    taken = np.asarray(Image.open(io.BytesIO(make("view.png", order))))
    assert np.array_equal(taken, drawn_view(shown.snapshot, shown.renderer, view))
    assert taken.shape == (24, 24, 3)


# ---- when it is drawn -------------------------------------------------------------------------------------------
class Recorder:
    """A page that takes everything in and shows nothing.

    Args:
        shown: what it looks at.
        view: how.
    """

    def __init__(self, shown, view):
        self.scene, self.view = shown, view
        self.drawn = self.read = self.atlas = None
        self.drawn_at = self.read_at = 0.0
        self.sent = []

    def has_room(self):
        return True

    def send(self, message):
        self.sent.append(message)


def painter_of(page, share=0.02, unlimited=True):
    """Its clock stands still, so that nothing comes in but what was saved."""
    allowance = Allowance(share, lambda: 0.0)
    allowance.unlimited = unlimited
    return Painter(lambda: [page], allowance)


@pytest.fixture
def made(monkeypatch):
    """The volumes that a shading was made of."""
    found = []

    def counted(field):
        found.append(field)
        return Shading(field)

    monkeypatch.setattr(render_thread, "Shading", counted)
    monkeypatch.setattr("mnist3d.viewer.drawing.Shading", counted)
    return found


def test_a_shading_is_made_once_a_snapshot_and_never_for_an_exact_view(made):
    page = Recorder(scene(), View(size=8))
    painter = painter_of(page)
    for azimuth in (0.0, 0.1, 0.2):
        page.view = View(azimuth=azimuth, size=8)
        painter._turn()
    assert made == []
    for azimuth in (0.0, 0.1, 0.2):
        page.view = View(azimuth=azimuth, size=8, style="shaded", scale=1.0 + azimuth, cut=azimuth)
        painter._turn()
    assert made == [page.scene.snapshot.volume]
    newer = page.scene.snapshot = scene(VoxelGrid(8)).snapshot
    page.view = View(azimuth=0.3, size=8, style="shaded", moving=True)
    painter._turn()
    assert len(made) == 1  # a hand that turns does not wait for the next one
    page.view = View(azimuth=0.3, size=8, style="shaded")
    painter._turn()
    assert made[1:] == [newer.volume]
    assert len(page.sent) == 8


def test_a_view_that_is_turned_gets_coarser_when_the_saved_time_runs_low_each_style_by_its_own_cost():
    painter = painter_of(Recorder(scene(), View()), unlimited=False)
    painter._pixel_seconds = {"exact": 1e-7, "shaded": 4e-7}
    turned = View(size=256, moving=True)
    assert painter._size(turned) == 256  # two seconds are saved
    painter._allowance.pay(1.5)
    assert painter._size(turned) == 244  # sqrt(.006 / 1e-7)
    assert painter._size(dataclasses.replace(turned, style="shaded")) == 122
    assert painter._size(dataclasses.replace(turned, zoom=3.0)) == 81
    assert painter._size(View(size=256)) == 256
    painter._allowance.unlimited = True
    assert painter._size(dataclasses.replace(turned, zoom=3.0)) == 128  # 384 of the whole view


class Reads:
    """A reader that says "a" of everything, and keeps what it was shown."""

    class_names = ["a"]  # noqa: RUF012 (nobody changes it)

    def __init__(self):
        self.images = []

    def read(self, images):
        self.images.append(images)
        zeros = torch.zeros(len(images), dtype=torch.long)
        return _Verdict(zeros, torch.ones(len(images)), zeros)


@dataclasses.dataclass
class _Verdict:
    label: torch.Tensor
    confidence: torch.Tensor
    guess: torch.Tensor


def test_readings_and_the_map_are_of_exact_views_however_one_looks():
    reader = Reads()
    page = Recorder(scene(reader=reader), View(azimuth=0.4, size=64, zoom=4.0, style="shaded"))
    painter = painter_of(page)
    while painter._turn() == 0.0:
        pass
    exact = rendered_view(page.scene.snapshot, page.scene.renderer, View(azimuth=0.4), 16)
    assert torch.equal(reader.images[0], exact)
    assert all(images.shape[1:] == (1, 16, 16) for images in reader.images)
    assert sum(len(images) for images in reader.images) == 1 + 12 * 24


def test_the_map_is_drawn_again_when_somebody_has_come_who_reads():
    page = Recorder(scene(), View(size=8))
    painter = painter_of(page)
    while painter._turn() == 0.0:
        pass
    first = page.atlas
    assert first is not None
    assert first.reader is None
    page.scene.reader = Reads()  # of the same snapshot, and at once
    while painter._turn() == 0.0:
        pass
    assert page.atlas is not first
    assert page.atlas is not None
    assert page.atlas.reader is page.scene.reader


# ---- a reader that is made meanwhile ----------------------------------------------------------------------------
class Training:
    """As `callbacks.classifier_training.ClassifierTraining`, done when it is told."""

    def __init__(self):
        self.begun, self.words = 0, "classifiers 40 %, 0:30 left"
        self.reader: Reads | None = None

    def start(self):
        self.begun += 1

    def take(self):
        return self.reader

    def as_message(self):
        return {"state": "waiting", "share": 0.4, "seconds_left": None, "words": self.words, "can_start": True}


def test_a_reader_that_is_made_meanwhile_is_taken_once_and_the_page_is_told():
    training = Training()
    live = Live(blob(), OPTIONS, reader_training=training)
    live.look_for_reader()
    assert (live.scene.reader, live.scene.why_no_reader) == (None, training.words)
    made = Viewer(ANY_PORT, live=live)
    made.start()
    try:
        with Client(made) as client:
            assert client.next("scenes")[0]["reads"] is False
            client.tell(do="train")
            wait_until(lambda: training.begun == 1)
            training.reader = Reads()
            live.look_for_reader()
            training.reader = None
            live.look_for_reader()
            assert (live.scene.reader is None, live.scene.why_no_reader) == (False, "")
            assert client.next("scenes")[0]["reads"] is True  # by itself
            client.tell(view={"size": 8, "number": 1})
            assert client.next("reading")[0]["label"] == "a"
    finally:
        made.close()


@pytest.mark.parametrize(("token", "read_only"), [("", False), (None, True)])
def test_who_may_not_stop_a_run_may_not_begin_that_either(token, read_only):
    training = Training()
    made = Viewer(ViewerOptions(port=0, read_only=read_only), live=Live(blob(), OPTIONS, reader_training=training))
    made.start()
    try:
        with Client(made, token, origin=f"http://127.0.0.1:{made.port}") as client:
            client.tell(do="train")
            assert "ead only" in client.next("problem")[0]["text"]
        assert training.begun == 0
    finally:
        made.close()
