"""What a command says while it takes long, and that every export tells how far it is."""

import io
import operator
import threading
import time
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from mnist3d.export import export_mesh, export_points, export_voxels
from mnist3d.export.page import page_html
from mnist3d.export.shares import part
from mnist3d.rendering.renderer import RendererOptions
from mnist3d.runs import at_work, session
from mnist3d.runs.at_work import AtWork, said_if_slow
from mnist3d.training.report import StepReport
from mnist3d.training.trainer import Trainer
from mnist3d.volumes.voxel_grid import VoxelGrid
from mnist3d.volumes.wrappers import GridField


class Stream(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def until(self, *words):
        """Waits for words, for as long as any machine may take."""
        end = time.monotonic() + 30.0
        while not all(word in self.getvalue() for word in words):
            assert time.monotonic() < end, self.getvalue()
            time.sleep(0.005)


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def stream(request, monkeypatch):
    terminal = Stream(request.param)
    monkeypatch.setattr(at_work, "sys", SimpleNamespace(stderr=terminal))  # pytest sets the real one between phases
    return terminal


@pytest.fixture
def hasty(monkeypatch):
    for name in ("QUIET_SECONDS", "BEAT_SECONDS", "LINE_SECONDS"):
        monkeypatch.setattr(at_work, name, 0.005)


@pytest.fixture
def patient(monkeypatch):
    for name in ("QUIET_SECONDS", "LINE_SECONDS"):
        monkeypatch.setattr(at_work, name, 1e6)


def test_what_takes_long_says_what_it_does_and_how_far_it_is(stream, hasty):
    with AtWork("opening the volume") as work:
        stream.until("opening the volume")
        work.tell(0.25, "joining the pieces")
        stream.until("joining the pieces", "25%")
        work.tell(0.75)
        stream.until("75%")
    said = stream.getvalue()
    if stream.terminal:
        assert "\n" not in said  # one line, drawn anew,
        assert said.rpartition("\r")[0].rpartition("\r")[2].strip() == ""  # and none in the end
        assert " left" in said
    else:
        assert "joining the pieces, 75%, 0 s so far\n" in said
        assert "\r" not in said


def test_what_is_quick_says_nothing_and_leaves_no_thread(stream, patient):
    before = threading.active_count()
    with AtWork("writing") as work:
        work.tell(0.5)
    with said_if_slow("loading"):
        pass
    assert stream.getvalue() == ""
    assert threading.active_count() == before


def test_an_error_ends_the_bar(stream, hasty):
    def interrupted():
        with AtWork("writing"):
            stream.until("writing")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "at work" not in [thread.name for thread in threading.enumerate()]


def test_a_terminal_that_is_not_there_is_none(monkeypatch):
    monkeypatch.setattr(at_work, "sys", SimpleNamespace(stderr=None))
    with said_if_slow("loading"), AtWork("writing") as work:
        work.tell(0.5)


def test_items_are_told_of_one_by_one(stream, patient):
    seen = []
    with AtWork("opening") as work:
        frames = work.over(iter("abcd"), 4, "4 frames")
        assert operator.length_hint(frames) == 4
        for item in frames:
            seen.append((item, work.share, work.doing))
    assert seen == [("a", 0.0, "4 frames"), ("b", 0.25, "4 frames"), ("c", 0.5, "4 frames"), ("d", 0.75, "4 frames")]
    assert (work.share, work.doing) == (1.0, "writing")


def test_a_slow_beginning_is_said_once(stream, hasty):
    with said_if_slow("loading ..."):
        stream.until("loading ...\n")
    assert stream.getvalue() == "loading ...\n"


def test_after_the_first_step_nothing_waits_any_more(patient):
    def waiting():
        return [thread for thread in threading.enumerate() if thread.name == "said if slow"]

    with session._FirstStep() as first:
        assert waiting()
        first.after_step(Mock(spec=Trainer), Mock(spec=StepReport))
        assert not waiting()


def test_a_part_of_the_work_tells_of_its_share_of_the_whole():
    told = []
    part(lambda share, doing: told.append((share, doing)), 0.5, 0.75)(0.5, "it")
    assert told == [(0.625, "it")]


def grid():
    """Two balls."""
    z, y, x = np.meshgrid(*[np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in (20, 22, 24)], indexing="ij")
    balls = [np.exp(-20.0 * ((x - at) ** 2 + y**2 + z**2)) for at in (-0.5, 0.5)]
    return np.stack([30.0 * (balls[0] + balls[1]), 0.5 * (z > 0)]).astype(np.float32)


EXPORTS = {
    "a mesh": (
        lambda folder, tell: export_mesh(VoxelGrid.from_array(grid()), folder / "s.stl", connect="bridges", tell=tell),
        ["asking for 24x22x20 voxels", "comparing with the views", "joining the pieces", "contouring", "writing s.stl"],
    ),
    "voxels": (
        lambda folder, tell: export_voxels(VoxelGrid.from_array(grid()), folder / "s.npz", resolution=48, tell=tell),
        ["asking for 48x44x40 voxels", "writing s.npz"],
    ),
    "solid voxels": (
        lambda folder, tell: export_voxels(VoxelGrid.from_array(grid()), folder / "s.vox", tell=tell),
        ["asking for 24x22x20 voxels", "comparing with the views", "writing s.vox"],
    ),
    "points": (
        lambda folder, tell: export_points(grid(), folder / "s.ply", count=300, tell=tell),
        ["measuring the light from all sides", "placing 300 points", "comparing with the views", "writing s.ply"],
    ),
    "a page": (
        lambda folder, tell: page_html(GridField(torch.from_numpy(grid())), RendererOptions(), "t", tell=tell),
        ["asking for 24x22x20 voxels", "packing the voxels"],
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_every_export_tells_how_far_it_is(name, tmp_path):
    told = []
    export, stages = EXPORTS[name]
    export(tmp_path, lambda share, doing: told.append((share, doing)))
    shares = [share for share, _ in told]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(shares))  # sums of fractions round
    assert 0.0 <= shares[0] <= shares[-1] <= 1.0
    doing = list(dict.fromkeys(doing for _, doing in told))
    assert [stage for stage in doing if stage in stages] == stages
