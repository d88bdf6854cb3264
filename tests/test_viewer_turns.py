"""Who gets the viewer's processor time: hands, views at rest, readings and the map. By a clock that only work moves."""

import dataclasses
import itertools
import json
import struct
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trainers import make_trainer  # pyright: ignore[reportMissingImports]
from viewer_client import ANY_PORT, Client, scene, wait_until  # pyright: ignore[reportMissingImports]

from mnist3d.callbacks.live_page import LivePage
from mnist3d.data.images import ImageSet
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.training.options import TrainerOptions
from mnist3d.viewer import Live, Viewer, ViewerOptions, render_thread
from mnist3d.viewer.cpu_budget import BURST_SECONDS, Allowance, Turns
from mnist3d.viewer.readings import ATLAS_COLUMNS, ATLAS_ROWS, ROWS_A_MESSAGE
from mnist3d.viewer.render_thread import SECONDS_BETWEEN_READINGS, Painter
from mnist3d.viewer.scene import View
from mnist3d.volumes.voxel_grid import VoxelGrid

SHARE = ViewerOptions().share
# Measured of a finished run of the default digits, on one core: s
FRAME_SECONDS, IMAGE_SECONDS, READING_SECONDS = 0.005, 0.00125, 0.006
COPY_SECONDS = 0.25  # between two versions of the volume
LONG = 150.0  # two maps and more under a hand


class World:
    """A page and a training whose only time is what drawing takes, and what the thread waits.

    Args:
        monkeypatch: of the test.
        view: of the page.
    """

    def __init__(self, monkeypatch, view):
        self.now = self.worked = 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now, thread_time=lambda: self.worked)
        monkeypatch.setattr(render_thread, "time", clock)
        monkeypatch.setattr(render_thread, "_frame", lambda *_: self.work(FRAME_SECONDS, b'{"kind":"frame"}'))
        self.class_names, self.view, self.number = ["a"], view, view.number
        self.scene, self.drawn, self.read, self.atlas, self.drawn_at, self.read_at = (
            scene(reader=self.as_reader()),
            None,
            None,
            None,
            0.0,
            0.0,
        )
        self.came: dict[str, list[tuple[float, dict]]] = {"frame": [], "reading": [], "atlas": []}
        self.allowance = Allowance(SHARE, lambda: self.now)
        self.painter = Painter(lambda: [self], self.allowance)

    def as_reader(self):
        def read(images):
            count = len(images)
            self.work(READING_SECONDS if count == 1 else IMAGE_SECONDS * count)
            zeros = torch.zeros(count, dtype=torch.long)
            return SimpleNamespace(label=zeros, confidence=torch.ones(count), guess=zeros)

        return SimpleNamespace(class_names=["a"], read=read)

    def work(self, seconds, result=b""):
        self.now, self.worked = self.now + seconds, self.worked + seconds
        return result

    def has_room(self):
        return True

    def send(self, message):
        if message.startswith(b"{"):  # a view, which is not really drawn
            head = json.loads(message)
        else:
            head = json.loads(message[4 : 4 + struct.unpack(">I", message[:4])[0]])
        self.came[head["kind"]].append((self.now, head))

    def passes(self, seconds, ask=lambda world: None):
        """Let the training go on for so long, while the page asks for something whenever it can."""
        until = self.now + seconds
        while self.now < until:
            version = int(self.now / COPY_SECONDS)
            if version > self.scene.snapshot.version:
                self.scene.snapshot = dataclasses.replace(self.scene.snapshot, version=version)
            ask(self)
            wait = self.painter._paid_turn()  # which moves the time
            self.now += wait + 1e-6  # a turn that finds a map complete takes next to nothing

    def pauses(self, kind):
        """Seconds between what came of a kind, to the end."""
        times = [0.0, *(when for when, _ in self.came[kind]), self.now]
        return [later - earlier for earlier, later in itertools.pairwise(times)]

    def turn(self, **more):
        """As a page asks: another number each time."""
        self.number += 1
        self.view = dataclasses.replace(self.view, number=self.number, **more)


def still(world):
    """It asks for nothing more."""


def hand(world):
    world.turn(azimuth=world.view.azimuth + 0.05, moving=True)


def asks_again(world):
    world.turn()


@pytest.mark.parametrize("ask", [still, asks_again, hand], ids=["still", "asks again", "turns"])
def test_neither_the_map_nor_the_reading_starves_whatever_the_page_asks_for(ask, monkeypatch):
    world = World(monkeypatch, View(size=128))
    world.passes(LONG, ask)
    assert world.worked <= LONG * SHARE + BURST_SECONDS + 0.2  # a piece of each kind may overdraw it
    row = IMAGE_SECONDS * ATLAS_COLUMNS
    whole = ATLAS_ROWS * row / SHARE  # seconds, if all of the allowance went to the map
    # A hand may have half of the allowance, and what is at rest gives the map .6 of its part.
    expected = whole / (0.6 if ask is still else 0.3)
    first, *later = world.pauses("atlas")
    assert first < 1.3 * expected  # a few works more, and what a hand has saved
    assert max(later) < 1.3 * expected * ROWS_A_MESSAGE / ATLAS_ROWS + render_thread.SECONDS_BETWEEN_MAPS
    begun = {when for when, _ in world.came["atlas"]}
    assert len(begun) > LONG / (1.3 * expected)
    assert max(world.pauses("reading")) < 10.0
    assert max(world.pauses("frame")) < 10.0


def test_a_view_that_nobody_touches_shows_newer_volumes_all_along(monkeypatch):
    world = World(monkeypatch, View(size=128))
    world.passes(LONG)
    frames = [when for when, _ in world.came["frame"]]
    assert len(frames) * FRAME_SECONDS > 0.2 * LONG * SHARE  # a quarter, and what is left over
    assert world.scene.snapshot.version - world.came["reading"][-1][1]["version"] < 10.0 / COPY_SECONDS


def test_a_view_that_is_turned_gets_its_own_reading_also_after_a_long_turn(monkeypatch):
    world = World(monkeypatch, View(size=128))
    world.passes(60.0, hand)  # nothing is saved any more
    for turned in range(5):
        world.turn(azimuth=2.0 + turned, moving=False)
        asked = world.now
        world.passes(4.0)
        own = [when for when, head in world.came["reading"] if head["number"] >= world.number]
        assert own, "the reading stays that of another view"
        assert (own[0] - asked) * SHARE < 2.0 * SHARE  # two seconds of what comes in


def test_one_view_is_not_read_again_and_again(monkeypatch):
    world = World(monkeypatch, View(size=128))
    world.passes(60.0, asks_again)
    readings = [when for when, _ in world.came["reading"]]
    assert all(later - earlier >= SECONDS_BETWEEN_READINGS for earlier, later in itertools.pairwise(readings))


def test_where_nothing_trains_a_hand_that_never_rests_waits_for_the_map_now_and_then(monkeypatch):
    world = World(monkeypatch, View(size=128))
    world.allowance.unlimited = True
    world.passes(30.0, hand)
    assert len(world.came["atlas"]) >= 2
    assert len(world.came["frame"]) * FRAME_SECONDS > 15.0


def test_a_map_is_first_shown_whole_and_then_renewed_by_parts(monkeypatch):
    world = World(monkeypatch, View(size=8))
    world.passes(100.0)
    first, second = (when for when, _ in world.came["atlas"][:2])
    assert len(world.came["atlas"][0][1]["labels"]) == ATLAS_ROWS * ATLAS_COLUMNS
    assert second > first
    parts = len(world.came["atlas"]) - 1
    assert parts > ATLAS_ROWS / ROWS_A_MESSAGE


def test_turns_are_shared_and_who_was_away_gains_nothing():
    turns, had = Turns({"a": 1.0, "b": 3.0}), {"a": 0, "b": 0}
    for _ in range(400):
        kind = turns.choose(["b", "a"])
        had[kind] += 1
        turns.pay(kind, 0.5)
    assert had["b"] == pytest.approx(300, abs=2)
    for _ in range(1000):
        assert turns.choose(["b"]) == "b"
        turns.pay("b", 0.5)
    first = [turns.choose(["a", "b"]) for _ in range(1)]
    for _ in range(7):
        turns.pay(first[-1], 0.5)
        first.append(turns.choose(["a", "b"]))
    assert 1 <= first.count("a") <= 3


def test_the_end_of_a_run_shows_the_finished_volume_and_says_how_to_look_again(tmp_path):
    trainer = small_trainer()
    reader: Any = SimpleNamespace(class_names=["a"], read=_reads)
    live = Live(trainer.averaged, trainer.renderer.options, reader, name="one")
    viewer = Viewer(ANY_PORT, live=live)
    viewer.start()
    viewer.allowance.pay(1e6)  # nothing is left that drawing may use
    page, came = LivePage(live, viewer, path=tmp_path / "runs" / "one"), []
    page.last_shares = {"a": 1.0}, "as it was"

    def listen():
        try:
            while True:
                data = client.socket.recv()
                client.tell(received=1)
                came.append(json.loads(data[4 : 4 + struct.unpack(">I", data[:4])[0]]))
        except Exception:  # the end of the run, which closes the page
            return

    client = Client(viewer)
    listener = threading.Thread(target=listen)
    listener.start()
    client.tell(view={"size": 8, "number": 1})
    wait_until(lambda: viewer._sessions and viewer._sessions[0].view is not None)
    page.finish(trainer)
    listener.join()
    client.close()
    newest = live.scene.snapshot.version
    assert newest > 0
    last = {head["kind"]: head for head in came}
    assert last["frame"]["version"] == last["reading"]["version"] == newest
    assert len(last["atlas"]["labels"]) == ATLAS_ROWS * ATLAS_COLUMNS
    assert live.scene.atlas is not None
    assert live.scene.atlas.snapshot is live.scene.snapshot
    figures = last["figures"]
    assert (figures["state"], figures["histogram"], figures["histogram_note"]) == ("finished", {"a": 1.0}, "as it was")
    assert "view" in figures["look"]
    assert str(tmp_path / "runs" / "one") in figures["look"]


def small_trainer():
    images = ImageSet(torch.rand(20, 1, 16, 16), torch.arange(20) % 2, ["a", "b"])
    options = TrainerOptions(max_steps=3, views=4)
    return make_trainer(VoxelGrid(8), AbsorptionRenderer(16), images, options)


def _reads(images):
    zeros = torch.zeros(len(images), dtype=torch.long)
    return SimpleNamespace(label=zeros, confidence=torch.ones(len(images)), guess=zeros)


def test_classifiers_whose_training_the_end_of_the_run_ends_have_stopped(tmp_path):
    class Training:
        words = "classifiers 28 %, 5:30 left"

        def start(self):
            return

        def take(self):
            return None

        def as_message(self):
            return {"state": "running", "share": 0.28, "seconds_left": 330.0, "words": self.words, "can_start": False}

    trainer = small_trainer()
    live = Live(trainer.averaged, trainer.renderer.options, reader_training=Training())
    live.watched = True
    viewer = Viewer(ANY_PORT, live=live)
    LivePage(live, viewer, path=tmp_path / "mine").finish(trainer)
    assert live.scene.figures is not None
    said = live.scene.figures["classifier_training"]
    assert said["state"] == "stopped"
    assert said["words"].startswith("stopped at 28%: ")
    assert f"{tmp_path / 'mine'} --trust trains" in said["words"]
    assert live.scene.figures["why_no_scores"] == ""
