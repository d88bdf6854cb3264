"""The page in a real browser: shaded, near, from an address, by keys alone, swaying; and what it says."""

import json
import math
import time

import numpy as np
import pytest
from viewer_page import PATIENCE, empty_page, grid, opened, pose, settled, shown  # pyright: ignore[reportMissingImports]

from mnist3d.rendering import Shading
from mnist3d.rendering.renderer import RendererOptions
from mnist3d.runs.scorecard import SCORECARD_FILE, scorecard_of
from mnist3d.viewer import Live, Scene, Snapshot, Viewer, ViewerOptions
from mnist3d.viewer.drawing import drawn_view, rendered_view
from mnist3d.viewer.scene import View
from mnist3d.volumes.voxel_grid import VoxelGrid
from mnist3d.volumes.wrappers import FrozenField

OPTIONS = RendererOptions(16)
NOTHING = "\u2013"
NOTICE = "runs/newest is left out: volume.safetensors is damaged"


def snapshot():
    return Snapshot(FrozenField(VoxelGrid.from_array(grid())), 0, 1)


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    score = {"legible": 0.731, "clean": 0.5, "histogram": {"a": 1.0}}
    card = {"format": 2, "poses": {"euler_normal": score, "sphere": {}}, "real": {"legible": 0.97}, "note": "Only two."}
    (folder / SCORECARD_FILE).write_text(json.dumps(card))
    figures = {"state": "finished", "progress": 1.0, "card": scorecard_of(folder)}
    made = Viewer(ViewerOptions(port=0), first=Scene("blob", OPTIONS, snapshot(), None, figures, notice=NOTICE))
    made.start()
    yield made
    made.close()


def style(page):
    return page.locator("#view").get_attribute("data-style")


def pressed(page, key, target="body"):
    page.locator(target).press(key)
    settled(page)


def differs(page, first, channel=0):
    """Until the image on the page is another one."""
    until = time.monotonic() + PATIENCE
    while np.array_equal(shown(page, channel), first):
        assert time.monotonic() < until, "nothing moves"
        time.sleep(0.05)


def test_an_address_says_how_to_look_and_the_page_writes_it(chromium, viewer):
    page = opened(chromium, viewer.url + "#az=-40&el=20&zoom=2&style=shaded")
    assert page.url == f"{viewer.access.address}#az=-40&el=20&zoom=2&style=shaded"  # without the token
    page.locator("#size").fill("1")  # 16, 64
    settled(page)
    asked = View(math.radians(-40.0), math.radians(20.0), 64, zoom=2.0, style="shaded")
    assert pose(page) == pytest.approx([asked.azimuth, asked.elevation])
    like = drawn_view(snapshot(), OPTIONS, asked, shading=Shading(snapshot().volume))
    for channel in range(3):
        assert np.array_equal(shown(page, channel) * 255.0, like[..., channel])
    pressed(page, "s")
    assert style(page) == "exact"
    exact = rendered_view(snapshot(), OPTIONS, View(asked.azimuth, asked.elevation, 64, zoom=2.0))[0, 0].numpy()
    assert np.abs(shown(page) - exact).max() <= 0.5 / 255.0 + 1e-6  # of eight bits
    page.locator("#view").focus()  # from the slider, whose key that is too
    pressed(page, "Home")
    page.wait_for_url(viewer.access.address)  # nothing to say: the front, as it is
    assert pose(page) == [0.0, 0.0]
    page.evaluate("location.hash = '#az=90&zoom=junk&el=1e9&style=x'")  # a link in the same tab; what is wrong in it
    page.locator("#angles", has_text="90° around, 90° up").wait_for()
    settled(page)
    assert (style(page), page.locator("#view").get_attribute("data-zoom")) == ("exact", "1")
    assert page.errors == []
    page.close()


def test_wheel_pinch_and_keys_come_nearer_and_a_double_click_goes_back_to_the_front(chromium, viewer):
    context = chromium.new_context(has_touch=True)
    page = opened(context, viewer.url)

    def comes_to(zoom):
        """A browser takes a wheel in when it likes."""
        until = time.monotonic() + PATIENCE
        while float(page.locator("#view").get_attribute("data-zoom")) != pytest.approx(zoom, rel=0.01):
            assert time.monotonic() < until, f"it never comes to {zoom}"
            time.sleep(0.03)
        settled(page)

    box = page.locator("#view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    comes_to(2.0)
    page.mouse.wheel(0, 4000)
    comes_to(1.0)  # and never smaller than the whole ball
    assert page.evaluate("view.zoom") == 1.0
    pressed(page, "+")
    comes_to(1.25)
    touch = context.new_cdp_session(page)
    for kind, apart in (("touchStart", 40.0), ("touchMove", 60.0), ("touchMove", 80.0)):
        points = [{"x": x - apart / 2, "y": y, "id": 0}, {"x": x + apart / 2, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    comes_to(2.5)
    page.mouse.move(x, y)
    page.mouse.dblclick(x, y)
    comes_to(1.0)
    assert pose(page) == [0.0, 0.0]
    assert page.errors == []
    context.close()


def test_keys_alone_reach_the_map_and_every_button_and_see_where_they_are(chromium, viewer):
    page = opened(chromium, viewer.url)
    page.locator("#shaded").focus()
    pressed(page, "Enter", "#shaded")
    assert style(page) == "shaded"
    atlas = page.locator("#atlas canvas")
    until = time.monotonic() + PATIENCE
    while not page.evaluate("map !== null"):
        assert time.monotonic() < until
        time.sleep(0.05)
    for _ in range(40):
        page.keyboard.press("Tab")
        if atlas.evaluate("a => a === document.activeElement"):
            break
    assert atlas.evaluate("a => a.matches(':focus-visible') && getComputedStyle(a).outlineStyle") == "solid"
    before = pose(page)
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert page.locator("#atlas_note").inner_text() == "38° around, 8° up. Enter looks from there."
    settled(page)
    assert pose(page) == before  # the cell is chosen, not yet taken
    pressed(page, "Enter", "#atlas canvas")
    cell = math.pi / 24
    assert pose(page) == pytest.approx([5 * cell, cell])
    assert page.locator("#full").is_visible()
    page.keyboard.press("f")
    page.locator("#stage:fullscreen").wait_for()
    page.keyboard.press("f")
    page.locator("#stage:not(:fullscreen)").wait_for()
    assert page.errors == []
    page.close()


def test_it_sways_when_nobody_touches_it_and_not_for_who_wants_no_motion(chromium, viewer):
    page = empty_page(chromium)
    page.emulate_media(reduced_motion="no-preference")
    page.goto(viewer.url + "#az=30")
    page.locator("#view[data-number]").wait_for()
    assert page.locator("#sway").get_attribute("aria-pressed") == "true"
    page.locator("#size").fill("1")
    settled(page)
    page.evaluate("SWAY.after = 0, SWAY.rest = 1e9")  # at once, rather than after seconds in which nobody touches it
    first = shown(page)
    differs(page, first)
    assert page.evaluate("view.azimuth") == pytest.approx(math.radians(30.0))  # where one looks from stays
    assert page.url.endswith("#az=30")
    page.evaluate("SWAY.after = 1e9")  # as if it had been touched: it comes to rest where it was
    until = time.monotonic() + PATIENCE
    while page.evaluate("swung.share > 0"):
        assert time.monotonic() < until, "it does not rest"
        time.sleep(0.05)
    settled(page)
    assert pose(page)[0] == pytest.approx(math.radians(30.0))
    page.locator("#sway").click()
    assert page.locator("#sway").get_attribute("aria-pressed") == "false"
    page.wait_for_url("**#az=30&sway=off")
    assert not page.evaluate("SWAY.after = -1, maySway(performance.now())")
    assert page.errors == []
    page.close()
    still = opened(chromium, viewer.url)  # with prefers-reduced-motion
    assert not still.evaluate("SWAY.after = -1, maySway(performance.now())")
    assert still.evaluate("setSway(true), maySway(performance.now())")  # unless it is asked for
    holds = (
        "orbiting = true",
        "moving = true",
        "view.cut_normal = [1, 0, 0]",
        "trains = true",
        "live = true, state = ''",
    )
    for held in holds:
        assert not still.evaluate(
            f"{{ const was = [orbiting, moving, view.cut_normal, trains, live]; {held}; const may = "
            "maySway(performance.now()); [orbiting, moving, view.cut_normal, trains, live] = was; may }"
        )
        assert still.evaluate("state = 'finished', maySway(performance.now())")
    still.close()


def test_what_score_found_and_which_newer_runs_do_not_open_stand_on_the_page(chromium, viewer):
    page = opened(chromium, viewer.url)
    page.locator("#problem.shown", has_text=NOTICE).wait_for()
    page.locator("#card tr").nth(2).wait_for()
    cells = [row.split("\t") for row in page.locator("#card").inner_text().splitlines()]
    assert cells == [
        ["", "euler normal", "sphere", "real images"],
        ["legible views", "0.731", NOTHING, "0.970"],
        ["clean views", "0.500", NOTHING, NOTHING],
    ]
    assert page.locator("#card_note").inner_text() == "Only two."
    assert page.errors == []
    page.close()


def test_the_training_of_classifiers_is_a_bar_and_where_it_is_not_begun_a_button(chromium):
    class Training:
        def __init__(self):
            self.words, self.state = "no classifiers yet", "waiting"

        def start(self):
            self.state, self.words = "running", "classifiers 40 %, 0:30 left"

        def take(self):
            return None

        def as_message(self):
            waits = self.state == "waiting"
            return {"state": self.state, "share": 0.4, "seconds_left": 30.0, "words": self.words, "can_start": waits}

    training = Training()
    run = Live(VoxelGrid.from_array(grid()), OPTIONS, reader_training=training)
    made = Viewer(ViewerOptions(port=0), live=run)
    made.start()

    def told():
        run.tell({"state": "training", "step": 7, "progress": 0.5, "classifier_training": training.as_message()})

    told()
    page, stranger = opened(chromium, made.url), opened(chromium, made.access.address)
    for one in (page, stranger):
        one.locator("#read_more", has_text="no classifiers yet").wait_for()
    assert not stranger.locator("#train").is_visible()
    page.locator("#train").click()
    until = time.monotonic() + PATIENCE
    while training.state == "waiting":
        assert time.monotonic() < until
        time.sleep(0.02)
    told()
    for one in (page, stranger):
        one.locator("#read_more", has_text="are being trained: 40 %, 0:30 left").wait_for()
        assert one.locator("#classifiers_done").evaluate("bar => bar.value") == 0.4
        assert not one.locator("#train").is_visible()
        assert one.errors == []
        one.close()
    made.close()


def test_a_reading_of_another_view_or_of_an_old_volume_is_grey_and_the_end_of_a_run_is_good_news(chromium):
    run = Live(VoxelGrid.from_array(grid()), OPTIONS, NoClasses())
    made = Viewer(ViewerOptions(port=0), live=run)
    made.start()
    page = opened(chromium, made.url)
    page.locator("#reading:not(.old) #read_more", has_text="these images have no classes").wait_for()
    page.evaluate("posed = number + 1, showAge()")  # the view shows something else by now
    page.locator("#reading.old #read_more", has_text="reading").wait_for()
    page.evaluate("posed = 0, showAge()")
    page.locator("#reading:not(.old)").wait_for()
    page.evaluate("canvas.dataset.version = lastRead.version + 1, lastRead.at = performance.now() - OLD - 1, showAge()")
    page.locator("#reading.old").wait_for()
    page.evaluate("canvas.dataset.version = lastRead.version, showAge()")
    page.locator("#view").focus()
    pressed(page, "ArrowLeft")  # which is read anew
    page.locator("#reading:not(.old) #read_more", has_text="these images have no classes").wait_for()
    run.tell({"state": "finished", "step": 9, "progress": 1.0, "look": "mnist3d view runs/<b>one"})
    page.locator("#state.finished").wait_for()
    made.close()
    page.locator("#problem.shown.good code", has_text="mnist3d view runs/<b>one").wait_for()
    assert page.locator("#state").inner_text() == "finished"
    assert page.evaluate("wait") >= 2000
    assert page.errors == []
    page.close()


class NoClasses:
    """A reader of images without classes."""

    class_names: list[str] = []  # noqa: RUF012 (nobody changes it)

    def read(self, images):
        raise AssertionError("nothing can be read")
