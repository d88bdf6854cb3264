"""Injected failures are named in time, mended or given up; a healthy run is left alone to the bit."""

import copy
import io
import json
import math
from typing import Literal

import pytest
import torch
from trainers import discriminator_of, make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.callbacks.diagnosis import PROBE_LENGTH, RealFigures, ball_points, diagnose, opaque_share
from mnist3d.callbacks.watchdog import WINDOW, Watchdog, WatchdogGaveUp
from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.program import run_command_line
from mnist3d.data.images import ImageSet
from mnist3d.errors import WriteError
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.session import sculpt
from mnist3d.training.discriminator import DiscriminatorOptions
from mnist3d.training.finite import finite
from mnist3d.training.options import TrainerOptions
from mnist3d.training.report import StepReport, variety
from mnist3d.training.trainer import Trainer
from mnist3d.volumes import read_description
from mnist3d.volumes.voxel_grid import VoxelGrid

REALS = RealFigures(brightness=0.13, variety=0.7, largest_class=0.1)
FIGURES = {
    "discriminator_loss": 0.45,
    "classification_loss": 0.3,
    "penalty": 0.1,
    "volume_loss": 1.1,
    "diversity_loss": -2.0,
    "nearest_loss": 0.1,
    "class_shares": [0.3, 0.3, 0.4],
    "mean_brightness": 0.13,
    "view_variety": 0.65,
    "score_gap": 0.6,
    "score_spread": 0.8,
}
HEALTHY = StepReport(1, 0.1, FIGURES)


def but(**other):
    """A healthy step, but for some figures; None: not reported."""
    return StepReport(1, 0.1, {key: value for key, value in {**FIGURES, **other}.items() if value is not None})


BROKEN = {
    "empty_volume": {"mean_brightness": 0.001},
    "saturated_volume": {"mean_brightness": 0.6},
    "dead_discriminator": {"score_gap": 0.0, "score_spread": 1e-4},
    "winning_discriminator": {"discriminator_loss": 0.001, "score_gap": 7.0, "score_spread": 7.0},
    "same_from_everywhere": {"view_variety": 0.05},
    "one_class": {"class_shares": [1.0, 0.0, 0.0]},
    "not_finite": {"volume_loss": math.nan},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_each_condition_is_named_within_200_steps_and_not_by_single_steps(kind):
    window = WINDOW
    history = [HEALTHY] * 2 * window
    assert diagnose(history, REALS, window=window) is None
    bad = but(**BROKEN[kind])
    delay = 0
    while (found := diagnose(history, REALS, window=window)) is None:
        history.append(bad)
        delay += 1
        assert delay <= 190  # the watchdog looks every 10 steps
    assert found.kind == kind
    assert "\n" not in found.message
    if kind != "not_finite":
        assert delay > window // 3
        assert diagnose([HEALTHY, bad] * window, REALS, window=window) is None or kind == "one_class"


def test_runaway_scores_and_opaque_volumes_are_named():
    window = WINDOW
    wild = [but(score_gap=(-1.0) ** k * 500, score_spread=500.0) for k in range(window)]
    found = diagnose(wild, REALS, window=window)
    assert found is not None
    assert found.kind == "winning_discriminator"
    found = diagnose([HEALTHY] * window, REALS, window=window, opaque_share=1.0)
    assert found is not None
    assert found.kind == "saturated_volume"


def test_what_the_real_images_are_like_is_no_failure():
    """A source of one class, of images that are all alike, or of dark ones, is sculpted as it is."""
    alike = RealFigures(brightness=0.001, variety=0.05, largest_class=1.0)
    bad = but(class_shares=[1.0, 0.0], view_variety=0.04, mean_brightness=0.001)
    assert diagnose([bad] * 400, alike, window=90) is None


def test_a_run_without_a_discriminator_has_no_dead_one():
    alone = but(view_variety=None, score_gap=None, score_spread=None, discriminator_loss=None)
    assert diagnose([alone] * 400, REALS, window=90) is None


def test_variety_in_closed_form():
    image = torch.rand(1, 1, 8, 8)
    assert variety(torch.cat([image, 0.5 * image, image + 1.0])).item() == pytest.approx(0.0, abs=1e-5)
    halves = torch.zeros(2, 1, 2, 2)
    halves[0, 0, 0], halves[1, 0, 1] = 1.0, 1.0
    assert variety(halves).item() == pytest.approx(2.0)  # opposites: correlation -1
    assert variety(torch.zeros(3, 1, 4, 4)).item() == pytest.approx(1.0)


def test_opaque_share_of_a_half_filled_ball():
    array = torch.zeros(2, 8, 8, 8)
    array[0, :, :, :4] = 2 * -math.log(0.01) / PROBE_LENGTH
    share = opaque_share(VoxelGrid.from_array(array), ball_points(4096))
    # so opaque up to the last opaque voxels' centres, 1/8 before the middle: a cap of the ball
    assert share == pytest.approx((1 - 1 / 8) ** 2 * (2 + 1 / 8) / 4, abs=0.03)  # 4 standard deviations of 4096 draws
    assert ball_points(1000).norm(dim=1).max() <= 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_one_number_that_is_not_finite_is_found(value, kind):
    large = torch.full((4, 5), 1e4, dtype=kind)  # of which half precision could not hold the sum of squares
    tensors = [torch.zeros(3), large, torch.arange(3), torch.zeros(0), torch.zeros(2, dtype=torch.float64)]
    assert finite(tensors)
    large[2, 3] = value
    assert not finite(tensors)
    assert finite([])


def bars(count=64, size=12):
    images = torch.zeros(count, 1, size, size)
    images[::2, :, 3:9, 5:7] = 1.0
    images[1::2, :, 5:7, 3:9] = 1.0
    return ImageSet(images, torch.arange(count) % 2, ["upright", "lying"])


def make(seed=0, **options):
    torch.manual_seed(seed)
    settings = TrainerOptions(**{"max_steps": 1000, "views": 6, "max_tilt": 0.0, **options})
    small = DiscriminatorOptions([8, 16], 16)
    volume = VoxelGrid(8, pyramid=[0.5])
    return make_trainer(volume, AbsorptionRenderer(12), bars(), settings, discriminator=small, seed=seed)


class Events:
    """A watchdog with a short window, what it said and what it recorded."""

    def __init__(self, action: Literal["warn", "rewind"] = "rewind", **options):
        self.lines, self.records = [], []
        self.watchdog = Watchdog(action, self.lines.append, self.records.append, **{"window": 20, **options})

    @property
    def kinds(self):
        return [record["watchdog"] for record in self.records]


def steps(trainer, events, count, **figures):
    """So many steps that report healthy figures, whatever the networks have learned, or fewer up to the first word."""
    for _ in range(count):
        report = trainer.step()
        report.metrics = {**FIGURES, **figures}
        events.watchdog.after_step(trainer, report)
        if events.records:
            return


@torch.no_grad()
def fill(trainer, channel, value):
    for level in trainer.volume.levels:
        level[channel] = 0.0
    trainer.volume.levels[-1][channel] = value


def empty(trainer):
    fill(trainer, 0, -30.0)


def opaque(trainer):
    fill(trainer, 0, 30.0)


def white(trainer):
    fill(trainer, 0, 30.0)
    fill(trainer, 1, -30.0)


def shell(trainer):
    """A hollow ball: a ring from every side."""
    centres = (2 * torch.arange(8) + 1) / 8 - 1
    radius = (centres[:, None, None] ** 2 + centres[None, :, None] ** 2 + centres**2).sqrt()
    fill(trainer, 0, torch.where((radius - 0.5).abs() < 0.15, 4.0, -9.0))
    fill(trainer, 1, 0.0)


@torch.no_grad()
def dead(trainer):
    for weight in discriminator_of(trainer).parameters():
        weight.zero_()


@torch.no_grad()
def one_class(trainer):
    head = discriminator_of(trainer).classes
    assert head is not None
    head.bias[0] = 1e3


@torch.no_grad()
def bad_weight(trainer):
    trainer.volume.levels[-1][0, 0, 0, 0] = math.nan  # outside the ball: no image shows it


@torch.no_grad()
def bad_discriminator(trainer):
    discriminator_of(trainer).score.weight[0, 0] = math.inf


def bad_gradient(trainer):
    discriminator_of(trainer).score.weight.grad = torch.full((1, 16), math.inf)


SHOWN = [
    (empty, "empty_volume", ["mean_brightness"]),
    (white, "saturated_volume", ["mean_brightness"]),
    (dead, "dead_discriminator", ["score_gap", "score_spread"]),
    (shell, "same_from_everywhere", ["view_variety"]),
    (one_class, "one_class", ["class_shares"]),
]


@pytest.mark.parametrize(("inject", "kind", "names"), SHOWN, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_player_shows_in_the_figures_of_one_step(inject, kind, names):
    """Whatever it has learned: the figures of the very next step, held for two windows, are named."""
    trainer = make()
    inject(trainer)
    report = trainer.step()
    seen = but(**{name: report.metrics[name] for name in names})
    found = diagnose([seen] * 2 * WINDOW, RealFigures.of(trainer), window=WINDOW)
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "not_finite"])
def test_figures_gone_wrong_are_named_and_undone(kind):
    trainer, events = make(), Events()
    steps(trainer, events, 60)
    assert events.records == []
    steps(trainer, events, 60, **BROKEN[kind])
    assert events.kinds == [kind], events.lines
    undone(trainer, events)


@pytest.mark.parametrize(
    ("inject", "kind", "word"),
    [
        (opaque, "saturated_volume", "opaque nearly everywhere"),
        (bad_weight, "not_finite", "weights of the volume"),
        (bad_discriminator, "not_finite", "weights of the objective adversarial"),
        (bad_gradient, "not_finite", "gradient of the objective adversarial"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_weights_gone_wrong_are_named_and_undone(inject, kind, word):
    trainer, events = make(), Events()
    steps(trainer, events, 60)
    assert events.records == []
    for _ in range(60):
        report = trainer.step()
        inject(trainer)  # at every step, as the real failure would hold itself
        report.metrics = dict(FIGURES)
        events.watchdog.after_step(trainer, report)
        if events.records:
            break
    assert events.kinds == [kind], events.lines
    assert word in events.lines[0]
    undone(trainer, events)


def undone(trainer, events):
    """Back at the last good state, at half the rates, in one line and one record."""
    assert trainer.rate_scale == 0.5
    good = events.watchdog.snapshots[0]
    assert events.records[0]["action"].startswith(f"back at step {good['steps_done']}, learning rates x 0.5")
    for name in ("volume", "averaged", "objectives"):
        weights = getattr(trainer, name).state_dict()
        tensors = [key for key in weights if isinstance(weights[key], torch.Tensor)]
        assert tensors
        assert all(torch.equal(weights[key], good[name][key]) for key in tensors), name
    assert trainer.steps_done == events.records[0]["step"] > good["steps_done"]
    assert json.loads(json.dumps(events.records[0])) == events.records[0]
    assert len(events.lines) == 1
    assert events.lines[0].startswith(f"watchdog: step {trainer.steps_done}: ")


def test_after_a_rewind_the_run_goes_on_and_the_snapshot_stays_whole():
    trainer, events = make(), Events()
    steps(trainer, events, 50)
    bad_weight(trainer)
    steps(trainer, events, 1)
    good = copy.deepcopy(events.watchdog.snapshots[0])
    trainer.step()
    held = events.watchdog.snapshots[0]
    assert all(torch.equal(held["volume"][key], good["volume"][key]) for key in good["volume"])
    first, second = (state["volume_optimiser"]["state"][0]["exp_avg_sq"] for state in (held, good))
    assert torch.equal(first, second)
    events.records.clear()
    steps(trainer, events, 70)
    assert events.records == []
    assert events.watchdog.rewinds_in_a_row == 0
    assert all(bool(weight.isfinite().all()) for weight in trainer.volume.parameters())


def test_it_gives_up_when_the_cause_stays_and_the_last_good_state_is_what_callbacks_save():
    class Poison:
        def after_step(self, trainer, report):
            if report.step > 20:
                bad_weight(trainer)

        def finish(self, trainer):
            self.saved = copy.deepcopy(trainer.state_dict())

    trainer, events, poison = make(), Events(max_rewinds=2), Poison()
    with pytest.raises(WatchdogGaveUp, match=r"step 24: .*gave up after 2 rewinds in a row") as error:
        trainer.run([events.watchdog, poison])
    assert "\n" not in str(error.value)
    assert len(events.lines) == 2
    assert [record["action"].startswith("back at step") for record in events.records] == [True] * 3
    assert trainer.rate_scale == 0.25
    good = events.watchdog.snapshots[0]["volume"]
    assert all(torch.equal(poison.saved["volume"][key], good[key]) for key in good)
    assert finite(good.values())


def test_a_full_disk_does_not_keep_a_hopeless_run_going():
    def full(_):
        raise WriteError("stats.jsonl: cannot be written (no space left on device)")

    trainer, said = make(), []
    watchdog = Watchdog("rewind", said.append, full, window=20, max_rewinds=0)
    watchdog.begin(trainer)
    bad_weight(trainer)
    with pytest.raises(WatchdogGaveUp, match="gave up after 0 rewinds"):
        watchdog.after_step(trainer, StepReport(1, 0.1, {}))
    assert said == ["stats.jsonl: cannot be written (no space left on device)"]


def test_nothing_good_to_go_back_to():
    trainer, events = make(), Events()
    bad_weight(trainer)
    with pytest.raises(WatchdogGaveUp, match="no good state"):
        steps(trainer, events, 1)


def test_the_fog_of_the_start_is_worth_a_word_but_no_rewind():
    """A run that never was otherwise has nothing better to go back to."""
    trainer, events = make(), Events()
    steps(trainer, events, 60, view_variety=0.05)
    assert events.kinds == ["same_from_everywhere"]
    assert trainer.rate_scale == 1.0


def test_told_to_warn_it_only_says_so_once():
    trainer, events = make(), Events("warn")
    bad_weight(trainer)
    for _ in range(5):
        events.watchdog.after_step(trainer, trainer.step())
    assert events.kinds == ["not_finite"]
    assert "--watchdog warn" in events.lines[0]
    assert trainer.rate_scale == 1.0
    assert list(events.watchdog.snapshots) == []


def test_a_watched_run_is_the_same_to_the_bit():
    alone, watched, events = make(max_steps=30), make(max_steps=30), Events(window=WINDOW)
    alone.run()
    watched.run([events.watchdog])
    assert events.records == []  # in so few steps only what is not finite would be named
    first, second = alone.state_dict(), watched.state_dict()
    for name in ("volume", "averaged"):
        assert all(torch.equal(first[name][key], second[name][key]) for key in first[name]), name
    assert torch.equal(first["generator"], second["generator"])


def test_a_rewound_run_resumes_to_the_bit():
    whole, events = make(), Events()
    steps(whole, events, 5)
    bad_weight(whole)
    steps(whole, events, 1)
    assert events.kinds == ["not_finite"]
    buffer = io.BytesIO()
    torch.save(whole.state_dict(), buffer)
    buffer.seek(0)
    rest = make(seed=3)
    rest.load_state_dict(torch.load(buffer, weights_only=True))
    assert rest.rate_scale == 0.5
    for trainer in (whole, rest):
        for _ in range(5):
            trainer.step()
    for one, other in zip(whole.volume.parameters(), rest.volume.parameters(), strict=True):
        assert torch.equal(one, other)


TINY = ["--trainer.views", "4", "--volume.resolution", "8", "--data.limit", "40", "--trainer.max_steps", "12"]


def program(arguments, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_command_line(lambda rest: sculpt(parse_command_line(rest)))
    return ended.value.code


@pytest.fixture
def poisoned_steps(monkeypatch):
    """From step 4 on every step ends with a weight that is no number."""
    step = Trainer.step

    def poisoned(self):
        report = step(self)
        if report.step >= 4:
            bad_weight(self)
        return report

    monkeypatch.setattr(Trainer, "step", poisoned)


@pytest.mark.usefixtures("poisoned_steps")
def test_the_program_ends_with_one_line_code_1_and_the_last_good_state(tmp_path, monkeypatch, capsys):
    assert program([*TINY, "--run_dir", tmp_path / "run"], monkeypatch) == 1
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if "watchdog: step" in line]
    assert [line.split(":")[0] for line in said] == ["watchdog"] * 3 + ["train.py"]
    assert "gave up after 3 rewinds" in lines[-1]
    records = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [record["watchdog"] for record in records if "watchdog" in record] == ["not_finite"] * 4
    state = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    assert finite(state["volume"].values())
    assert state["rate_scale"] == 0.125
    assert (tmp_path / "run" / "volume.safetensors").is_file()


@pytest.mark.usefixtures("poisoned_steps")
@pytest.mark.parametrize("action", ["warn", "off"])
def test_the_program_goes_on_when_told_to_but_no_file_gets_a_nan(action, tmp_path, monkeypatch, capsys):
    """It ends with code 1, as when the watchdog gives up; the pair of step 2 stays."""
    run = tmp_path / "run"
    saving = ["--trainer.save_every", "2steps", "--watchdog", action, "--run_dir", run]
    assert program([*TINY, *saving], monkeypatch) == 1
    said = capsys.readouterr().err
    assert said.count("watchdog: step") == (action == "warn")
    lines = [line for line in said.splitlines() if "not saved" in line]
    wrong = "volume.levels.2 holds 1 NaN; not saved, the checkpoint of step 2 stays"  # then it spreads
    assert lines[0] == f"step 4: {wrong}"
    assert len(lines) == 2
    assert lines[1].startswith("train.py: step 12: volume.levels.0 holds ")
    assert torch.load(run / "resume.pt", weights_only=True)["steps_done"] == 2
    assert read_description(run / "volume.safetensors")["step"] == 2
    assert "NaN" not in (run / "stats.jsonl").read_text()


@pytest.mark.usefixtures("poisoned_steps")
def test_what_goes_wrong_at_once_goes_back_to_the_state_that_was_resumed(tmp_path, monkeypatch, capsys):
    """Its first snapshot is what was loaded, so the good checkpoint is not lost."""
    run = tmp_path / "run"
    assert program([*TINY, "--trainer.stop_after", "3", "--run_dir", run], monkeypatch) == 0
    before = torch.load(run / "resume.pt", weights_only=True)
    capsys.readouterr()
    assert program(["--resume", run, "--trainer.stop_after", "null"], monkeypatch) == 1
    assert "watchdog: step 4: weights of the volume" in (said := capsys.readouterr().err)
    assert "back at step 3, learning rates x 0.5" in said
    after = torch.load(run / "resume.pt", weights_only=True)
    assert after["steps_done"] == 7  # three rewinds, and the step at which it gave up
    assert all(torch.equal(after["volume"][name], value) for name, value in before["volume"].items())


def test_a_fresh_run_can_go_back_to_its_start():
    trainer, events = make(max_steps=3), Events()
    start = copy.deepcopy(trainer.volume.state_dict())
    step = trainer.step

    def poisoned():
        report = step()
        if report.step == 1:
            bad_weight(trainer)
        return report

    trainer.step = poisoned
    trainer.run([events.watchdog])
    assert events.kinds == ["not_finite"]
    assert "back at step 0" in events.lines[0]
    first = events.watchdog.snapshots[0]["volume"]
    assert all(torch.equal(first[name], value) for name, value in start.items())
    assert finite(trainer.volume.parameters())


@torch.no_grad()
def bad_moment(trainer):
    next(iter(trainer.volume_optimiser.state.values()))["exp_avg_sq"][0, 0, 0, 0] = math.inf


@torch.no_grad()
def bad_average(trainer):
    trainer.averaged.levels[-1][0, 0, 0, 0] = math.nan


@pytest.mark.parametrize(
    ("inject", "name"),
    [
        (bad_moment, "volume_optimiser.state.0.exp_avg_sq holds 1 Inf"),
        (bad_average, "averaged.levels.1 holds 1 NaN"),
    ],
)
def test_what_no_view_shows_but_a_file_would_hold_is_looked_at_too(inject, name):
    trainer, events = make(), Events()
    steps(trainer, events, 9)
    inject(trainer)
    steps(trainer, events, 1)
    assert events.kinds == ["not_finite"]
    assert name in events.lines[0]


def test_empty_voxels_of_a_file_are_no_failure_but_new_infinities_are():
    trainer, events = make(), Events()
    finest = list(trainer.volume.parameters())[-1]
    with torch.no_grad():
        for part in (trainer.volume, trainer.averaged):
            list(part.parameters())[-1][0, :2] = -math.inf
    steps(trainer, events, 3)
    assert events.records == []
    with torch.no_grad():
        finest[0, 4] = math.inf
    steps(trainer, events, 1)
    assert events.kinds == ["not_finite"]
