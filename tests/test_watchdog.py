"""Injected failures are named in time, mended or given up; a healthy run is left alone to the bit."""

import copy
import dataclasses
import io
import json
import math

import pytest
import torch

from mnist3d.callbacks.diagnosis import PROBE_LENGTH, RealFigures, ball_points, diagnose, finite, opaque_share
from mnist3d.callbacks.watchdog import Watchdog, WatchdogGaveUp, WatchdogOptions
from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.program import run_command_line
from mnist3d.data.images import ImageSet
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.session import sculpt
from mnist3d.training.discriminator import DiscriminatorOptions
from mnist3d.training.trainer import StepReport, Trainer, TrainerOptions, variety
from mnist3d.volumes.voxel_grid import VoxelGrid

REALS = RealFigures(brightness=0.13, variety=0.7, largest_class=0.1)
HEALTHY = StepReport(
    step=1,
    share=0.1,
    discriminator_loss=0.45,
    classification_loss=0.3,
    penalty=0.1,
    volume_loss=1.1,
    diversity_loss=-2.0,
    nearest_loss=0.1,
    class_shares=[0.3, 0.3, 0.4],
    mean_brightness=0.13,
    view_variety=0.65,
    score_gap=0.6,
    score_spread=0.8,
)
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
    window = WatchdogOptions().window
    history = [HEALTHY] * 2 * window
    assert diagnose(history, REALS, window=window) is None
    bad = dataclasses.replace(HEALTHY, **BROKEN[kind])
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
    window = WatchdogOptions().window
    wild = [dataclasses.replace(HEALTHY, score_gap=(-1.0) ** k * 500, score_spread=500.0) for k in range(window)]
    found = diagnose(wild, REALS, window=window)
    assert found is not None
    assert found.kind == "winning_discriminator"
    found = diagnose([HEALTHY] * window, REALS, window=window, opaque_share=1.0)
    assert found is not None
    assert found.kind == "saturated_volume"


def test_what_the_real_pictures_are_like_is_no_failure():
    """A source of one class, of pictures that are all alike, or of dark ones, is sculpted as it is."""
    alike = RealFigures(brightness=0.001, variety=0.05, largest_class=1.0)
    bad = dataclasses.replace(HEALTHY, class_shares=[1.0, 0.0], view_variety=0.04, mean_brightness=0.001)
    assert diagnose([bad] * 400, alike, window=90) is None


def test_a_run_without_a_discriminator_has_no_dead_one():
    alone = dataclasses.replace(HEALTHY, view_variety=None, score_gap=None, score_spread=None, discriminator_loss=0.0)
    assert diagnose([alone] * 400, REALS, window=90) is None


def test_variety_in_closed_form():
    picture = torch.rand(1, 1, 8, 8)
    assert variety(torch.cat([picture, 0.5 * picture, picture + 1.0])).item() == pytest.approx(0.0, abs=1e-5)
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
def test_one_number_that_is_not_finite_is_found(value):
    tensors = [torch.zeros(3), torch.zeros(4, 5), torch.arange(3)]
    assert finite(tensors)
    tensors[1][2, 3] = value
    assert not finite(tensors)


@pytest.mark.parametrize("wrong", [{"window": 5}, {"rate_scale": 0.0}, {"rate_scale": 1.5}, {"max_rewinds": -1}])
def test_bad_options_name_the_key(wrong):
    with pytest.raises(ValueError, match=rf"watchdog\.{next(iter(wrong))}=.*allowed"):
        WatchdogOptions(**wrong)


def bars(count=64, size=12):
    images = torch.zeros(count, 1, size, size)
    images[::2, :, 3:9, 5:7] = 1.0
    images[1::2, :, 5:7, 3:9] = 1.0
    return ImageSet(images, torch.arange(count) % 2, ["upright", "lying"])


def make(seed=0, **options):
    torch.manual_seed(seed)
    # no tilt: two bars, tilted, are too alike for so small a volume, and the watchdog then says so
    settings = TrainerOptions(**{"max_steps": 1000, "views": 6, "max_shift": 1, "max_tilt": 0.0, **options})
    return Trainer(
        VoxelGrid(8, pyramid=[0.5]),
        AbsorptionRenderer(12),
        bars(),
        options=settings,
        discriminator=DiscriminatorOptions([8, 16], 16),
        seed=seed,
    )


@pytest.fixture(scope="module")
def grown():
    """A trainer that has left the fog of the start."""
    trainer = make()
    for _ in range(90):
        trainer.step()
    return trainer


class Events:
    """A watchdog with a short window, what it said and what it recorded."""

    def __init__(self, **options):
        self.lines, self.records = [], []
        settings = WatchdogOptions(**{"window": 20, **options})
        self.watchdog = Watchdog(settings, self.lines.append, self.records.append)

    @property
    def kinds(self):
        return [record["watchdog"] for record in self.records]


def steps(trainer, events, count, before=lambda trainer: None):
    """So many steps, or fewer up to the watchdog's first word."""
    for _ in range(count):
        before(trainer)
        events.watchdog.after_step(trainer, trainer.step())
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
    for weight in trainer.discriminator.parameters():
        weight.zero_()


def too_fast(trainer):
    trainer.discriminator_optimiser.param_groups[0]["lr"] = trainer.options.discriminator_rate = 0.15


@torch.no_grad()
def one_class(trainer):
    trainer.discriminator.classes.bias[0] = 1e3


@torch.no_grad()
def bad_weight(trainer):
    trainer.volume.levels[-1][0, 0, 0, 0] = math.nan  # outside the ball: no picture shows it


def bad_gradient(trainer):
    weight = trainer.discriminator.score.weight
    handle = weight.register_hook(lambda gradient: gradient * math.inf)
    trainer.step()
    handle.remove()


INJECTED = [
    (empty, True, "empty_volume"),
    (opaque, True, "saturated_volume"),
    (white, True, "saturated_volume"),
    (dead, False, "dead_discriminator"),
    (too_fast, False, "winning_discriminator"),
    (shell, True, "same_from_everywhere"),
    (one_class, True, "one_class"),
    (bad_weight, False, "not_finite"),
    (bad_gradient, False, "not_finite"),
]


@pytest.mark.parametrize(("inject", "held", "kind"), INJECTED, ids=lambda value: getattr(value, "__name__", None))
def test_an_injected_failure_is_named_and_undone(inject, held, kind, grown):
    """`held`: the failure is renewed at every step, as the real one would hold itself."""
    trainer, events = copy.deepcopy(grown), Events()
    steps(trainer, events, 60)
    assert events.records == []
    if not held:
        inject(trainer)
    steps(trainer, events, 60, inject if held else lambda trainer: None)
    assert events.kinds == [kind], events.lines
    assert trainer.rate_scale == 0.5
    good = events.watchdog.snapshots[0]
    assert events.records[0]["action"].startswith(f"back at step {good['steps_done']}, learning rates x 0.5")
    for name in ("volume", "averaged", "discriminator"):
        weights = getattr(trainer, name).state_dict()
        assert all(torch.equal(weights[key], good[name][key]) for key in weights), name
    assert trainer.steps_done == events.records[0]["step"] > good["steps_done"]
    assert json.loads(json.dumps(events.records[0])) == events.records[0]
    assert len(events.lines) == 1
    assert events.lines[0].startswith(f"watchdog: step {trainer.steps_done}: ")


def test_a_discriminator_that_wins_is_named():
    """Without penalties, and against a volume that hardly moves, its loss falls below .01 within 50 steps."""
    trainer, events = make(volume_rate=1e-5), Events(window=40)
    trainer.losses.penalty = 0.0
    steps(trainer, events, 79)
    assert events.kinds == ["winning_discriminator"]
    assert "has won" in events.lines[0]


def test_after_a_rewind_the_run_ends_healthy_and_the_snapshot_stays_whole(grown):
    trainer, events = copy.deepcopy(grown), Events()
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


def test_it_gives_up_when_the_cause_stays_and_the_last_good_state_is_what_hooks_save(grown):
    class Poison:
        def after_step(self, trainer, report):
            if report.step > 110:
                bad_weight(trainer)

        def finish(self, trainer):
            self.saved = copy.deepcopy(trainer.state_dict())

    trainer, events, poison = copy.deepcopy(grown), Events(max_rewinds=2), Poison()
    with pytest.raises(WatchdogGaveUp, match=r"step 114: .*gave up after 2 rewinds in a row") as error:
        trainer.run([events.watchdog, poison])
    assert "\n" not in str(error.value)
    assert len(events.lines) == 2
    assert [record["action"].startswith("back at step") for record in events.records] == [True] * 3
    assert trainer.rate_scale == 0.25
    good = events.watchdog.snapshots[0]["volume"]
    assert all(torch.equal(poison.saved["volume"][key], good[key]) for key in good)
    assert finite(good.values())


def test_nothing_good_to_go_back_to():
    trainer, events = make(), Events()
    bad_weight(trainer)
    with pytest.raises(WatchdogGaveUp, match="no good state"):
        steps(trainer, events, 1)


def test_the_fog_of_the_start_is_worth_a_word_but_no_rewind():
    trainer, events = make(volume_rate=1e-6), Events()
    for _ in range(60):
        events.watchdog.after_step(trainer, trainer.step())
    assert events.kinds == ["same_from_everywhere"]
    assert trainer.rate_scale == 1.0


def test_told_not_to_act_it_only_says_so_once(grown):
    trainer, events = copy.deepcopy(grown), Events(act=False)
    bad_weight(trainer)
    for _ in range(5):
        events.watchdog.after_step(trainer, trainer.step())
    assert events.kinds == ["not_finite"]
    assert "--watchdog.act false" in events.lines[0]
    assert trainer.rate_scale == 1.0
    assert list(events.watchdog.snapshots) == []


def test_a_healthy_run_raises_nothing_and_is_the_same_to_the_bit():
    alone, watched, events = make(max_steps=210), make(max_steps=210), Events(window=90)
    alone.run()
    watched.run([events.watchdog])
    assert events.records == []
    first, second = alone.state_dict(), watched.state_dict()
    for name in ("volume", "averaged", "discriminator"):
        assert all(torch.equal(first[name][key], second[name][key]) for key in first[name]), name
    assert torch.equal(first["generator"], second["generator"])


def test_a_rewound_run_resumes_to_the_bit(grown):
    whole, events = copy.deepcopy(grown), Events()
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
def test_the_program_goes_on_when_told_to(tmp_path, monkeypatch, capsys):
    assert program([*TINY, "--watchdog.act", "false", "--run_dir", tmp_path / "a"], monkeypatch) == 0
    assert capsys.readouterr().err.count("watchdog: step") == 1
    assert program([*TINY, "--watchdog.enabled", "false", "--run_dir", tmp_path / "b"], monkeypatch) == 0
    assert "watchdog: step" not in capsys.readouterr().err


def test_empty_voxels_of_a_file_are_no_failure_but_new_infinities_are():
    trainer, events = make(), Events()
    finest = list(trainer.volume.parameters())[-1]
    with torch.no_grad():
        finest[0, :2] = -math.inf
    steps(trainer, events, 3)
    assert events.records == []
    with torch.no_grad():
        finest[0, 4] = math.inf
    steps(trainer, events, 1)
    assert events.kinds == ["not_finite"]
