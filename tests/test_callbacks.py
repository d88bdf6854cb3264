"""What watches a run: progress, pace, figures, images and checkpoints, each against what it was told."""

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from test_trainer import bars
from trainers import make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.callbacks.checkpoints import Checkpoints
from mnist3d.callbacks.pace import RATED_STEPS, Pace
from mnist3d.callbacks.pictures import Pictures
from mnist3d.callbacks.progress import Progress, class_bar, clock
from mnist3d.callbacks.statistics import Statistics
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import Targets
from mnist3d.training.options import TrainerOptions
from mnist3d.training.report import StepReport
from mnist3d.training.trainer import Trainer
from mnist3d.volumes import load_volume
from mnist3d.volumes.voxel_grid import VoxelGrid


class Told(Trainer):
    """As much of a trainer as the pace asks for, with the seconds that it is told."""

    def __init__(self, seconds, limit=math.inf, grown_at=0):
        self.told, self.grown_at = seconds, grown_at
        minutes = None if math.isinf(limit) else limit / 60.0
        self.options = TrainerOptions(max_steps=1000, max_minutes=minutes)

    @property
    def seconds(self) -> float:
        return self.told


def small(steps=4, **more):
    torch.manual_seed(0)
    return make_trainer(
        VoxelGrid(6), AbsorptionRenderer(16), bars(count=12), TrainerOptions(max_steps=steps, views=2), **more
    )


# ---- pace -------------------------------------------------------------------------------------------------------
def test_a_pace_is_said_after_a_few_steps_and_leaves_out_the_first():
    pace = Pace()
    for step in range(1, RATED_STEPS + 2):
        # the first step takes ten seconds, as it compiles; each other half a second
        pace.note(Told(10.0 + 0.5 * (step - 1)), StepReport(step, step / 100))
        assert (pace.rate is None) == (step <= RATED_STEPS)
        assert (pace.seconds_left is None) == (step <= RATED_STEPS)
    assert pace.rate == pytest.approx(2.0)
    assert pace.seconds_left == pytest.approx(0.5 * (100 - RATED_STEPS - 1))


def test_a_pace_begins_anew_where_the_volume_grows():
    pace = Pace()
    for step in range(1, 31):
        pace.note(Told(float(step), grown_at=20 if step > 20 else 0), StepReport(step, step / 100))
        if step == 21:
            assert pace.rate is None
    assert pace.rate == pytest.approx(1.0)


def test_no_more_is_left_than_the_limit_allows_and_nothing_at_the_end():
    pace = Pace()
    for step in range(1, 11):
        pace.note(Told(float(step), limit=12.0), StepReport(step, step / 1000))
    assert pace.seconds_left == pytest.approx(2.0)
    pace.note(Told(11.0, limit=12.0), StepReport(11, 1.0))
    assert pace.seconds_left == 0.0


# ---- the progress line ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", "▁▃█"), ("ascii", ".-@"), (None, ".-@"), ("no such thing", ".-@")]
)
def test_a_bar_of_classes_is_full_at_three_times_the_even_share(encoding, expected):
    assert class_bar([0.0, 0.3, 1.0], encoding) == expected
    assert class_bar([], encoding) == ""
    assert len(class_bar([0.04] * 25, encoding)) == 20


def test_a_clock_shows_hours_where_there_are_any():
    assert [clock(seconds) for seconds in (0.0, 59.6, 61.0, 3600.0, 7325.0)] == [
        "0:00",
        "1:00",
        "1:01",
        "1:00:00",
        "2:02:05",
    ]


def test_the_line_shows_what_objectives_want_shown(capsys):
    trainer = small()
    progress = Progress(remark=lambda: "legible .5")
    progress.after_step(trainer, StepReport(4, 1.0, {"discriminator_loss": 0.5, "volume_loss": 0.01, "penalty": 9.0}))
    progress.finish(trainer)
    assert capsys.readouterr().err == "100 %  step 4  0:00 left  D 0.50  V 0.010  legible .5\n"


# ---- files ------------------------------------------------------------------------------------------------------
def records_of(run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "stats.jsonl").read_text().splitlines()]


def test_figures_are_written_every_few_steps_and_at_the_end(tmp_path):
    run, trainer = RunDirectory(tmp_path), small(steps=7)
    trainer.run([Statistics(run, every=3)])
    records = records_of(run)
    assert [record["step"] for record in records] == [3, 6, 7]
    assert [record["progress"] for record in records] == pytest.approx([3 / 7, 6 / 7, 1.0], abs=1e-4)
    assert {"discriminator_loss", "nearest_loss", "mean_brightness", "seconds"} <= records[0].keys()


def test_a_figure_that_is_no_number_is_null_and_others_are_short(tmp_path):
    run = RunDirectory(tmp_path)
    metrics = {"volume_loss": math.nan, "class_shares": [1 / 3, math.inf], "penalty": 123456.789, "count": 7}
    Statistics(run, every=1).after_step(small(), StepReport(1, 0.25, metrics))
    (record,) = records_of(run)
    assert record["volume_loss"] is None
    assert record["class_shares"] == [0.33333, None]
    assert (record["penalty"], record["count"]) == (123460.0, 7)


def test_images_at_the_start_now_and_then_and_at_the_end(tmp_path):
    run, images = RunDirectory(tmp_path), bars(count=12).images
    targets = Targets(torch.tensor([0.0, 1.0]), torch.zeros(2), images[:2], TargetOptions(views_per_step=2))
    small(steps=5, targets=targets).run([Pictures(run, targets, every=2)])
    found = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert found == ["reals.png", "targets.png", "turntable.png", "views.png", "views_000002.png", "views_000004.png"]
    with Image.open(tmp_path / "pictures" / "reals.png") as image:
        assert image.getextrema() == (0, 255)  # bars of full brightness on black
    small(steps=2).run([Pictures(RunDirectory(tmp_path / "plain"))])
    assert not (tmp_path / "plain" / "pictures" / "targets.png").exists()


def test_a_checkpoint_when_its_time_has_come_and_at_the_end(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mnist3d.callbacks.checkpoints.time", SimpleNamespace(monotonic=lambda: now[0]))
    run, trainer, steps = RunDirectory(tmp_path), small(steps=5), []
    saver = Checkpoints(run, "25s")

    class Ticks:
        def after_step(self, trainer, report):
            now[0] += 10.0
            if (tmp_path / "resume.pt").is_file():
                steps.append(torch.load(tmp_path / "resume.pt", weights_only=True)["steps_done"])

        def finish(self, trainer):
            pass

    trainer.run([Ticks(), saver])
    assert steps == [3, 3]  # at 30 s; not yet again at 40 and 50
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["steps_done"] == 5
    volume = load_volume(tmp_path / "volume.safetensors")
    for saved, averaged in zip(volume.parameters(), trainer.averaged.parameters(), strict=True):
        assert torch.equal(saved, averaged)
