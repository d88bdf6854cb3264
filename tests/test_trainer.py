"""The loop: determinism, exact resume, and that each player learns."""

import copy
import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trainers import discriminator_of, make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.data.images import ImageSet
from mnist3d.geometry.rotations import PoseOptions
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.training.averaging import Average
from mnist3d.training.objectives.adversarial import PENALTY_EVERY, AdversarialOptions
from mnist3d.training.objectives.base import Objective
from mnist3d.training.objectives.class_balance import ClassBalanceOptions
from mnist3d.training.objectives.nearest_image import NearestImageOptions
from mnist3d.training.options import TrainerOptions, rate_factor
from mnist3d.training.trainer import Trainer
from mnist3d.volumes.voxel_grid import VoxelGrid


def bars(labelled=True, count=64, size=16):
    """Two classes that a volume can show: a bright bar, upright or lying."""
    images = torch.zeros(count, 1, size, size)
    images[::2, :, 4:12, 7:9] = 1.0
    images[1::2, :, 7:9, 4:12] = 1.0
    labels = torch.arange(count) % 2
    return ImageSet(images, labels if labelled else None, ["upright", "lying"] if labelled else [])


def make(seed=0, labelled=True, objectives=None, volume=None, **options):
    torch.manual_seed(seed)
    defaults = {"max_steps": 20, "views": 6}
    settings = TrainerOptions(**{**defaults, **options})
    volume = VoxelGrid(12) if volume is None else volume
    return make_trainer(volume, AbsorptionRenderer(16), bars(labelled), settings, seed=seed, **(objectives or {}))


def balanced(weight) -> dict[str, Any]:
    return {"class_balance": ClassBalanceOptions(weight)}


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def saved(trainer):
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_same_seed_same_volume_to_the_bit():
    first, again, other = make(0), make(0), make(1)
    for trainer in (first, again, other):
        trainer.run()
    assert same(first.volume, again.volume)
    assert same(first.averaged, again.averaged)
    assert same(discriminator_of(first), discriminator_of(again))
    assert not same(first.volume, other.volume)


def test_ten_steps_resume_and_ten_more_are_twenty_to_the_bit():
    whole = make()
    whole.run()
    half = make(stop_after=10)
    half.run()
    assert half.steps_done == 10
    rest = make(seed=5)  # every weight and generator starts elsewhere: all must come from the state
    rest.load_state_dict(saved(half))
    rest.run()
    assert rest.steps_done == 20
    for part in ("volume", "averaged", "objectives"):
        assert same(getattr(whole, part), getattr(rest, part)), part


class Recorder:
    def __init__(self):
        self.reports, self.finished = [], 0

    def after_step(self, trainer, report):
        self.reports.append(report)
        if report.step == 3:
            trainer.stop_requested = True

    def finish(self, trainer):
        self.finished += 1


def test_callbacks_see_every_step_and_a_stop_is_obeyed():
    recorder = Recorder()
    trainer = make()
    trainer.run([recorder])
    assert [report.step for report in recorder.reports] == [1, 2, 3]
    assert recorder.finished == 1
    assert recorder.reports[0].progress == pytest.approx(1 / 20)
    assert sum(recorder.reports[0].metrics["class_shares"]) == pytest.approx(1.0)


def test_callbacks_finish_when_one_fails():
    class Broken(Recorder):
        def after_step(self, trainer, report):
            raise OSError("disk full")

    recorder = Recorder()
    with pytest.raises(OSError, match="disk full"):
        make().run([Broken(), recorder])
    assert recorder.finished == 1


def test_both_players_move():
    trainer = make()
    start = copy.deepcopy(trainer.volume), copy.deepcopy(discriminator_of(trainer))
    trainer.step()
    assert not same(start[0], trainer.volume)
    assert not same(start[1], discriminator_of(trainer))


@pytest.mark.parametrize(("steps", "decay"), [(0, 0.0), (10, 0.5), (10_000, 0.98)])
def test_the_average_follows_faster_at_first(steps, decay):
    trainer = make()
    with torch.no_grad():
        for mean, value in zip(trainer.averaged.parameters(), trainer.volume.parameters(), strict=True):
            mean.fill_(1.0)
            value.fill_(3.0)
    trainer.steps_done = steps
    trainer._average()
    for mean in trainer.averaged.parameters():
        torch.testing.assert_close(mean, torch.full_like(mean, decay * 1.0 + (1.0 - decay) * 3.0))


def test_the_average_is_the_mean_of_both_to_the_bit_and_follows_buffers():
    trainer = make()
    trainer.run()
    bias, averaged = trainer.volume.get_buffer("bias"), trainer.averaged.get_buffer("bias")
    bias.add_(1.0)
    pairs = zip(trainer.averaged.parameters(), trainer.volume.parameters(), strict=True)
    expected = [mean.lerp(value, 1.0 - 20 / 30) for mean, value in pairs]
    trainer._average()
    assert all(torch.equal(*pair) for pair in zip(trainer.averaged.parameters(), expected, strict=True))
    assert torch.equal(averaged, bias)


def test_beside_a_weight_of_minus_infinity_the_others_follow():
    module, averaged = torch.nn.Linear(3, 1, bias=False), torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[-torch.inf, 3.0, -1.0]]))
        averaged.weight.copy_(torch.tensor([[-torch.inf, 1.0, -1.0]]))
    Average(averaged, module).follow(0.75)
    assert averaged.weight.tolist() == [[-torch.inf, 1.5, -1.0]]


def test_weights_of_minus_infinity_are_looked_for_again_in_another_state():
    array = torch.zeros(2, 8, 8, 8)
    array[:, 3:5, 3:5, 3:5] = 0.5
    empty = make(volume=VoxelGrid.from_array(array))
    empty.step()
    other = make(volume=VoxelGrid.from_array(array + 0.1))
    other.step()  # has seen that there are none
    other.load_state_dict(saved(empty))
    other.step()
    assert not any(weight.isnan().any() for weight in other.averaged.parameters())


def test_generators_of_more_gpus_than_there_are_go_on_where_there_are_some(monkeypatch):
    """A run of two GPUs goes on with one."""
    trainer, states = make(), [torch.zeros(16, dtype=torch.uint8), torch.ones(16, dtype=torch.uint8)]
    taken = []

    def set_all(given):
        assert len(given) <= 1, "invalid device ordinal"
        taken.extend(given)

    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states[:1])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", set_all)
    trainer.device = torch.device("cuda")  # of the generators only; the volume stays where it is
    trainer.load_state_dict({**saved(trainer), "cuda_rng": states})
    assert len(taken) == 1
    assert taken[0] is states[0]


def test_a_step_convolves_in_full_precision_and_leaves_the_setting_as_it_was(monkeypatch):
    class Asks(Objective):
        name = "asks"

        def loss(self, batch):
            asked.append(torch.backends.cudnn.allow_tf32)
            if asked[0] is None:
                raise RuntimeError("in mid-step")

    asked: list[bool | None] = []
    trainer = Trainer(VoxelGrid(6), AbsorptionRenderer(16), bars(), [Asks()], options=TrainerOptions(max_steps=9))
    for setting in (True, False):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", setting)
        trainer.step()
        assert torch.backends.cudnn.allow_tf32 is setting
    assert asked == [False, False]
    asked.insert(0, None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pytest.raises(RuntimeError, match="in mid-step"):
        trainer.step()
    assert torch.backends.cudnn.allow_tf32 is True


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has one flag")
@pytest.mark.parametrize("of_all", ["none", "tf32", "ieee"])
@pytest.mark.parametrize("of_convolutions", ["none", "tf32", "ieee"])
def test_a_precision_that_is_set_for_all_of_torch_does_not_hold_in_a_step(of_all, of_convolutions):
    class Asks(Objective):
        name = "asks"

        def loss(self, batch):
            asked.append((kinds[0].fp32_precision, kinds[1].fp32_precision, flags.cudnn.allow_tf32))

    flags: Any = torch.backends
    asked, kinds = [], (flags.cudnn.conv, flags.cudnn.rnn)
    trainer = Trainer(VoxelGrid(6), AbsorptionRenderer(16), bars(), [Asks()], options=TrainerOptions(max_steps=9))
    before = [flags.fp32_precision, *(kind.fp32_precision for kind in kinds)]
    try:
        flags.fp32_precision, kinds[0].fp32_precision = of_all, of_convolutions
        expected = [kind.fp32_precision for kind in kinds]
        trainer.step()
        assert asked == [("ieee", "ieee", False)]
        assert [kind.fp32_precision for kind in kinds] == expected
        if of_convolutions == "none":  # what follows the setting of all of torch goes on to
            flags.fp32_precision = "ieee" if of_all == "tf32" else "tf32"
            assert kinds[0].fp32_precision == flags.fp32_precision
    finally:
        flags.fp32_precision, kinds[0].fp32_precision, kinds[1].fp32_precision = before


@pytest.mark.parametrize("pairing", ["non_saturating", "hinge", "wasserstein"])
def test_every_pairing_runs_and_stays_finite(pairing):
    trainer = make(max_steps=4, objectives={"adversarial": AdversarialOptions(pairing=pairing)})
    trainer.run()
    assert all(weight.isfinite().all() for weight in trainer.volume.parameters())


def test_an_objective_of_weight_zero_is_left_out():
    """`configs/pure_gan.yaml`: no exemplars are kept for images that nothing is compared with."""
    assert list(make().objectives) == ["adversarial", "diversity", "nearest_image"]
    assert list(make(objectives={"nearest_image": NearestImageOptions(0.0)}).objectives) == ["adversarial", "diversity"]
    assert list(make(objectives=balanced(1.0)).objectives)[2] == "class_balance"


def test_classes_dear_everywhere_are_left_and_a_resume_knows_the_prices():
    """With even shares, at the start, nothing costs; then the volume goes another way, and goes on that way."""
    plain, evened = make(), make(objectives=balanced(5.0))
    for trainer in (plain, evened):
        trainer.step()
    assert same(plain.volume, evened.volume)
    assert evened.objectives.state_dict()["class_balance.shares"].tolist() != [0.5, 0.5]
    assert "shares_everywhere" not in plain.step().metrics
    assert sum(evened.step().metrics["shares_everywhere"]) == pytest.approx(1.0)
    assert not same(plain.volume, evened.volume)
    other = make(seed=3, objectives=balanced(5.0))
    other.load_state_dict(saved(evened))
    for trainer in (other, evened):
        trainer.step()
    assert same(other.volume, evened.volume)


def test_class_balance_needs_views_from_everywhere():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"class_balance\.weight=1: .*poses\.sphere_share=0 .*raise that share"):
        front_only(bars())
    front_only(bars(labelled=False)).step()  # classes that are not known cost nothing anywhere


def front_only(images):
    poses = PoseOptions(sphere_share=0.0)
    return make_trainer(
        VoxelGrid(12), AbsorptionRenderer(16), images, TrainerOptions(views=4), poses=poses, **balanced(1.0)
    )


def test_without_labels():
    recorder = Recorder()
    trainer = make(labelled=False, max_steps=3, objectives=balanced(1.0))
    trainer.run([recorder])
    assert discriminator_of(trainer).classes is None
    assert list(trainer.objectives) == ["adversarial", "nearest_image"]
    assert recorder.reports[-1].metrics["class_shares"] == []


@pytest.mark.parametrize("names", [[], ["twice", "twice"]])
def test_objectives_are_some_and_each_of_its_own_name(names):
    class Named(Objective):
        def loss(self, batch):
            return None

    found = [type(name, (Named,), {"name": name})() for name in names]
    with pytest.raises(ValueError, match="one or more, each with a name of its own"):
        Trainer(VoxelGrid(4), AbsorptionRenderer(16), bars(), found)


def test_losses_add_up_and_what_is_off_moves_nothing():
    """Two objectives move the volume as one that asks for both; one whose loss is None as if it were not there."""

    class Claims(Objective):
        weights: tuple[float, float] | None

        def loss(self, batch):
            grid = batch.volume.dense()
            if self.weights is None or grid is None:
                return None
            return self.weights[0] * grid[0].mean() + self.weights[1] * grid[1].mean()

    def sculpted(*asked):
        torch.manual_seed(0)
        kinds = [{"name": f"claims_{k}", "weights": weights} for k, weights in enumerate(asked)]
        objectives = [type("Claims", (Claims,), kind)() for kind in kinds]
        options = TrainerOptions(max_steps=3, views=2)
        trainer = Trainer(VoxelGrid(6), AbsorptionRenderer(16), bars(), objectives, options=options)
        trainer.run()
        return trainer

    both = sculpted((1.0, 0.0), (0.0, 1.0))
    assert same(both.volume, sculpted((1.0, 0.0), None, (0.0, 1.0)).volume)
    torch.testing.assert_close(sculpted((1.0, 1.0)).volume.dense(), both.volume.dense(), rtol=1e-4, atol=1e-6)
    assert not same(both.volume, sculpted((1.0, 0.0)).volume)
    idle = sculpted(None)
    assert idle.steps_done == 3
    torch.manual_seed(0)
    assert same(idle.volume, VoxelGrid(6))


def test_what_nobody_asks_for_is_not_drawn():
    """Images, rotations and views of a step are drawn when they are first asked for: targets alone need none."""

    class Idle(Objective):
        name = "idle"

        def loss(self, batch):
            return None

    trainer = Trainer(VoxelGrid(6), AbsorptionRenderer(16), bars(), [Idle()], options=TrainerOptions(max_steps=2))
    before = trainer.generator.get_state()
    report = trainer.step()
    assert torch.equal(trainer.generator.get_state(), before)
    assert report.metrics == {}


def test_penalties_fall_on_the_right_steps_only():
    trainer = make(max_steps=5)
    values = [trainer.step().metrics["penalty"] for _ in range(PENALTY_EVERY + 1)]
    assert values[0] > 0
    assert values[0] == values[PENALTY_EVERY - 1] != values[PENALTY_EVERY]


def test_a_limit_in_minutes_ends_the_run_and_sets_the_progress(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mnist3d.training.trainer.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Clock(Recorder):
        def after_step(self, trainer, report):
            self.reports.append(report)
            now[0] += 30.0

    clock, trainer = Clock(), make(max_steps=None, max_minutes=2.0)
    trainer.run([clock])
    assert trainer.steps_done == 4
    assert [report.progress for report in clock.reports] == [0.0, 0.25, 0.5, 0.75]
    assert trainer.progress == 1.0
    assert make(max_steps=None).options.seconds_limit == 600
    assert make(max_steps=5).options.seconds_limit == float("inf")


def test_rates_are_flat_then_fall_to_a_tenth():
    assert [rate_factor(progress) for progress in (0.0, 0.5, 0.75, 1.0)] == pytest.approx([1.0, 1.0, 0.55, 0.1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_steps": 0},
        {"max_minutes": 0.0},
        {"max_minutes": float("nan")},
        {"stop_after": 0},
        {"views": 1},
        {"volume_rate": -0.1},
        {"max_tilt": 61.0},
    ],
)
def test_bad_options_name_the_key(wrong):
    with pytest.raises(ValueError, match=rf"trainer\.{next(iter(wrong))}=.*must be"):
        TrainerOptions(**wrong)


def test_a_volume_with_empty_voxels_from_elsewhere_stays_finite():
    array = torch.zeros(2, 8, 8, 8)
    array[:, 3:5, 3:5, 3:5] = 0.5  # everywhere else the attenuation is exactly 0: a weight of -inf
    trainer = make(volume=VoxelGrid.from_array(array))
    trainer.step()
    trainer.step()
    for part in (trainer.volume, trainer.averaged):
        assert torch.stack(part(torch.zeros(4, 3))).isfinite().all()
        assert not any(weight.isnan().any() for weight in part.parameters())
