"""The viewer in a real browser: a run that is watched, turned, paused, taken home and stopped from its page."""

import io
import math
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from viewer_page import (  # pyright: ignore[reportMissingImports]
    PATIENCE,
    drag,
    empty_page,
    expected,
    grid,
    opened,
    opened_file,
    pose,
    settled,
    shown,
)

from mnist3d import load_run
from mnist3d.rendering.renderer import RendererOptions
from mnist3d.viewer import Live, Scene, Snapshot, Viewer, ViewerOptions
from mnist3d.viewer.access import TOKEN_VARIABLE
from mnist3d.viewer.downloads import DOWNLOADS
from mnist3d.volumes import load_volume
from mnist3d.volumes.voxel_grid import VoxelGrid
from mnist3d.volumes.wrappers import FrozenField

ROOT = Path(__file__).parent.parent
TINY = ["--trainer.views", "4", "--volume.resolution", "12", "--data.limit", "40", "--trainer.max_steps", "100000"]
SIZE = 128


@pytest.fixture(scope="module")
def viewer():
    scene = Scene("blob", RendererOptions(16), Snapshot(FrozenField(VoxelGrid.from_array(grid())), 0, 1))
    made = Viewer(ViewerOptions(port=0), first=scene)
    made.start()
    yield made
    made.close()


def test_dragging_arrows_and_the_map_turn_it_as_the_renderer_does(chromium, viewer):
    page = opened(chromium, viewer.url, viewport={"width": 1280, "height": 800})
    assert pose(page) == [0.0, 0.0]
    page.locator("#size").fill("2")  # 16, 64, 128
    drag(page, 0.25, 0.0)
    assert pose(page) == pytest.approx([-0.5, 0.0], abs=0.01)  # the front of the ball follows the hand
    drag(page, 0.0, 0.2)
    azimuth, elevation = pose(page)
    assert (azimuth, elevation) == pytest.approx((-0.5, 0.4), abs=0.01)
    assert np.abs(shown(page) - expected(azimuth, elevation, SIZE)).max() < 0.01
    page.locator("#front").click()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    settled(page)
    assert pose(page) == pytest.approx([-math.pi / 18, math.pi / 36], abs=1e-6)
    atlas = page.locator("#atlas canvas")
    box = atlas.bounding_box()
    atlas.click(position={"x": box["width"] * 0.75 + 2, "y": box["height"] * 0.25 + 2})
    settled(page)
    azimuth, elevation = pose(page)
    assert (azimuth, elevation) == pytest.approx((math.pi / 2 + math.pi / 24, math.pi / 4 - math.pi / 24), abs=1e-6)
    assert np.abs(shown(page) - expected(azimuth, elevation, SIZE)).max() < 0.01
    page.locator("#scale").fill("1")
    settled(page)
    assert np.abs(shown(page) - expected(azimuth, elevation, SIZE, scale=2.0)).max() < 0.01
    page.locator("#cut").fill("0.2")
    settled(page)
    assert shown(page).mean() < 0.95 * expected(azimuth, elevation, SIZE, scale=2.0).mean()
    page.locator("#plain").click()
    page.locator("#orbit").click()
    page.locator("#orbit[aria-pressed=true]").wait_for()
    before, until = pose(page), time.monotonic() + PATIENCE
    while abs(pose(page)[0] - before[0]) <= 0.05:
        assert time.monotonic() < until, "the orbit does not turn"
        time.sleep(0.05)
    assert page.errors == []
    page.close()


def test_every_file_is_taken_home_by_a_click(chromium, viewer, tmp_path):
    page = opened(chromium, viewer.url, accept_downloads=True)
    page.locator("#size").fill("1")  # 64: an orbit of 120 images costs little
    page.locator("#front").click()
    settled(page)
    names = page.locator("#files button").evaluate_all("all => all.map(b => b.dataset.file)")
    assert {*names, "volume.nrrd.zip"} == {*DOWNLOADS}  # NRRD needs a library that not everybody has
    for name in names:
        with page.expect_download() as waiting:
            page.locator(f"[data-file='{name}']:enabled").click()
        assert waiting.value.suggested_filename == name
        waiting.value.save_as(tmp_path / name)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "view.png")) / 255.0, shown(page))
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "orbit.mp4")) == (120, pytest.approx(5.0, abs=0.1))
    taken, there = load_volume(tmp_path / "volume.safetensors").dense(), viewer.first.snapshot.volume.dense()
    assert taken is not None
    assert torch.equal(taken, there)
    if "volume.nrrd.zip" in names:
        import nrrd

        with zipfile.ZipFile(tmp_path / "volume.nrrd.zip") as archive:
            archive.extractall(tmp_path)
        voxels, _ = nrrd.read(str(tmp_path / "volume.nrrd"))
        assert voxels.shape == (12, 12, 12)
        assert 0.9 * float(there[0].max()) < voxels.max() <= float(there[0].max())  # what the ball holds of it
    assert (tmp_path / "volume.vdb").read_bytes().startswith(b" BDV")  # read in test_export_voxels.py
    offline = opened_file(chromium, tmp_path / "sculpture.html")
    assert offline.title() == "blob"
    assert page.errors + offline.errors == []
    offline.close()
    page.close()


def test_names_from_outside_stay_text_and_a_run_that_is_gone_is_said(chromium, tmp_path):
    evil, gone = "<img src=x onerror='window.harmed = 1'>", "gone"
    scenes = {
        name: Scene(
            name, RendererOptions(16), Snapshot(FrozenField(VoxelGrid.from_array(grid())), 0, 1), figures=figures
        )
        for name, figures in ((evil, {"state": "finished", "histogram": {evil: 0.7, "2": 0.3}}), ("good", None))
    }

    class Shelf:
        def names(self):
            return [*scenes, gone]

        def open(self, name):
            if name == gone:
                raise ValueError("gone: there is no such run any more")
            return scenes[name]

    made = Viewer(ViewerOptions(port=0), shelf=Shelf(), first=scenes[evil])
    url = made.start()
    page = opened(chromium, url)
    page.locator("#bars div").first.wait_for()
    assert page.locator("#scenes option").first.inner_text() == evil
    page.locator("#scenes").select_option(gone)
    page.locator("#problem.shown", has_text="no such run").wait_for()
    assert page.locator("#scenes").input_value() == evil  # what is shown, not what was asked for
    page.locator("#scenes").select_option("good")
    page.locator("#view[data-scene=good]").wait_for()
    assert not page.locator("#problem").is_visible()
    with page.expect_download() as waiting:
        page.locator("#scenes").select_option(evil)
        page.locator("#view[data-scene^='<img']").wait_for()
        page.locator("[data-file='sculpture.html']:enabled").click()
    waiting.value.save_as(tmp_path / "page.html")
    offline = opened_file(chromium, tmp_path / "page.html")
    assert offline.title() == evil
    for one in (page, offline):
        assert one.evaluate("window.harmed") is None
        assert one.errors == []

    made.close()  # the page says so, and goes on when there is somebody again
    page.locator("#state.lost").wait_for()
    assert "cannot be reached" in page.locator("#problem").inner_text()
    again = Viewer(ViewerOptions(port=made.port), first=scenes["good"])
    again.start()
    assert again.port == made.port
    page.locator("#view[data-scene=good]").wait_for()
    # Another program has another token, and the page has the old one.
    assert page.locator("#why_not").inner_text() == "Read only: open the printed address to download."
    settled(page)
    assert not page.locator("#problem").is_visible()
    again.close()
    offline.close()
    page.close()


def test_two_pages_and_a_finger_turn_independently(chromium, viewer):
    first = opened(chromium, viewer.url)
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    second = opened(context, viewer.url)
    assert second.evaluate("document.documentElement.scrollWidth") <= 390
    drag(first, 0.1, 0.0)
    box = second.locator("#view").bounding_box()
    touch = context.new_cdp_session(second)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, dx in (("touchStart", 0.0), ("touchMove", -0.1), ("touchMove", -0.2)):
        points = [{"x": x + dx * box["width"], "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settled(second)
    assert pose(first) == pytest.approx([-0.2, 0.0], abs=0.01)
    assert pose(second) == pytest.approx([0.4, 0.0], abs=0.02)
    assert first.errors + second.errors == []
    context.close()
    first.close()


# ---- the token --------------------------------------------------------------------------------------------------
def live_viewer(**options):
    run = Live(VoxelGrid.from_array(grid()), RendererOptions(16))
    made = Viewer(ViewerOptions(**{"port": 0, **options}), live=run)
    made.start()
    run.tell({"state": "training", "step": 7, "progress": 0.5})
    return made, run


def can_act(page):
    """Whether the page offers its buttons; it has none, or all."""
    page.locator("#state.training").wait_for()
    seen = [page.locator(name).is_visible() for name in ("#pause", "#stop", "#downloads")]
    assert len({*seen}) == 1
    assert bool(page.locator("#why_not").inner_text()) is not seen[0]
    return seen[0]


def test_the_token_leaves_the_address_bar_and_a_reload_keeps_it(chromium):
    made, run = live_viewer()
    context = chromium.new_context()
    page = opened(context, made.url)
    assert page.url == made.access.address
    assert can_act(page)
    page.reload()
    settled(page)
    assert page.url == made.access.address
    assert can_act(page)
    page.locator("#pause").click()
    until = time.monotonic() + PATIENCE
    while not run.paused:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert context.cookies() == []  # they would go to every port of this machine
    stranger = opened(context, made.access.address)  # another tab: without the printed address one can look
    assert not can_act(stranger)
    assert stranger.locator("#why_not").inner_text() == "Read only: open the printed address to pause or download."
    once = opened(context, made.access.url_for_browser())
    assert once.url == made.access.address
    assert can_act(once)
    assert page.errors + stranger.errors + once.errors == []
    made.close()
    context.close()


def test_a_read_only_page_has_no_buttons(chromium):
    made, _ = live_viewer(read_only=True)
    page = opened(chromium, made.url)
    assert not can_act(page)
    assert page.locator("#why_not").inner_text() == "This page is read only."
    assert page.errors == []
    made.close()
    page.close()


def test_from_other_machines_the_page_opens_with_the_token_alone(chromium):
    made, _ = live_viewer(host="0.0.0.0")
    page = empty_page(chromium)
    page.goto(made.access.address)
    page.locator("p", has_text="open the address that the terminal printed").wait_for()
    assert page.locator("#view").count() == 0
    page.goto(made.url)
    assert can_act(page)
    page.reload()
    assert can_act(page)
    assert page.url == made.access.address
    made.close()
    page.locator("#problem.shown", has_text="cannot be reached").wait_for()
    again, _ = live_viewer(host="0.0.0.0", port=made.port)
    assert again.port == made.port
    page.locator("#problem.shown", has_text="Another program serves this page now").wait_for()
    page.reload()
    page.locator("p", has_text="open the address that the terminal printed").wait_for()
    assert page.errors == []
    again.close()
    page.close()


@pytest.fixture
def training(tmp_path):
    """train.py as a user starts it, until its page is up."""
    # All of the time that it wants: two hundredths of a core of a busy machine draw no view in a minute.
    page = ["--viewer.port", "0", "--viewer.share", "1"]
    command = [sys.executable, "train.py", *TINY, *page, "--run_dir", str(tmp_path / "run")]
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}  # it prints its own
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    assert process.stderr is not None
    said, url = [], None
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"watch it: (http://\S+)", line):
            url = found.group(1)
            break
    assert url, said
    yield process, url, tmp_path / "run"
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_a_run_is_watched_paused_taken_home_and_stopped_from_its_page(chromium, training):
    process, url, run = training
    page = opened(chromium, url, accept_downloads=True)
    first, version = shown(page), int(page.locator("#view").get_attribute("data-version"))
    until = time.monotonic() + PATIENCE
    while int(page.locator("#view").get_attribute("data-version")) < version + 3:
        assert time.monotonic() < until, "the page shows no newer volume"
        time.sleep(0.1)
    page.locator("#state.training").wait_for()
    assert (shown(page) != first).any()  # it changes before one's eyes
    page.locator("#rate", has_text=re.compile("[0-9]")).wait_for()  # it waits for a few steps before it says one
    assert float(page.locator("#rate").inner_text()) > 0
    page.locator("#loss_key", has_text="discriminator").wait_for()
    page.locator("#bars div").nth(9).wait_for()
    assert page.locator("#bars div").count() == 10

    page.locator("#pause").click()
    page.locator("#state.paused").wait_for()
    step = page.locator("#step").inner_text()
    drag(page, 0.3, 0.0)
    for name, start in (("view.png", b"\x89PNG"), ("volume.safetensors", None), ("sculpture.html", b"<!doctype")):
        with page.expect_download() as waiting:
            page.locator(f"[data-file='{name}']").click()
        content = Path(waiting.value.path()).read_bytes()
        assert waiting.value.suggested_filename == name
        assert start is None or content.startswith(start)
        if name == "view.png":
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))) / 255.0, shown(page))
    assert page.locator("#step").inner_text() == step
    page.locator("#pause", has_text="Resume").click()
    page.locator("#state.training").wait_for()
    # Both clicks in one breath: the question stands for four seconds, which is a short time on a busy machine.
    asked = page.locator("#stop").evaluate("b => { b.click(); const asked = b.textContent; b.click(); return asked; }")
    assert asked == "Really stop?"
    page.locator("#problem.shown", has_text="Look at it again with").wait_for()
    assert page.errors == []
    page.close()
    out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    assert "The sculpture lies in" in out
    assert load_run(run).volume is not None
