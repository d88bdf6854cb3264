"""The loop: determinism, exact resume, and that each player learns."""

import copy
import io

import pytest
import torch

from mnist3d.data.images import ImageSet
from mnist3d.geometry.rotations import PoseOptions
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.training.gan_losses import LossOptions
from mnist3d.training.trainer import Trainer, TrainerOptions
from mnist3d.volumes.voxel_grid import VoxelGrid


def bars(labelled=True, count=64, size=16):
    """Two classes that a volume can show: a bright bar, upright or lying."""
    images = torch.zeros(count, 1, size, size)
    images[::2, :, 4:12, 7:9] = 1.0
    images[1::2, :, 7:9, 4:12] = 1.0
    labels = torch.arange(count) % 2
    return ImageSet(images, labels if labelled else None, ["upright", "lying"] if labelled else [])


def make(seed=0, labelled=True, losses=None, volume=None, **options):
    torch.manual_seed(seed)
    defaults = {"max_steps": 20, "views": 6}
    settings = TrainerOptions(**{**defaults, **options})
    volume = VoxelGrid(12) if volume is None else volume
    return Trainer(volume, AbsorptionRenderer(16), bars(labelled), options=settings, losses=losses, seed=seed)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def far(first, second):
    return sum((a - b).abs().sum() for a, b in zip(first.parameters(), second.parameters(), strict=True))


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
    assert same(first.discriminator, again.discriminator)
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
    for part in ("volume", "averaged", "discriminator"):
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


def test_hooks_see_every_step_and_a_stop_is_obeyed():
    recorder = Recorder()
    trainer = make()
    trainer.run([recorder])
    assert [report.step for report in recorder.reports] == [1, 2, 3]
    assert recorder.finished == 1
    assert recorder.reports[0].share == pytest.approx(1 / 20)
    assert sum(recorder.reports[0].class_shares) == pytest.approx(1.0)


def test_hooks_finish_when_a_hook_fails():
    class Broken(Recorder):
        def after_step(self, trainer, report):
            raise OSError("disk full")

    recorder = Recorder()
    with pytest.raises(OSError, match="disk full"):
        make().run([Broken(), recorder])
    assert recorder.finished == 1


def test_both_players_move_and_the_average_follows():
    trainer = make()
    start = copy.deepcopy(trainer.volume), copy.deepcopy(trainer.discriminator)
    trainer.run()
    assert not same(start[0], trainer.volume)
    assert not same(start[1], trainer.discriminator)
    distance = far(trainer.averaged, trainer.volume)
    travelled = far(start[0], trainer.volume)
    assert 0 < distance < travelled


def test_the_volume_learns_to_be_bright_in_the_middle():
    """Sixty steps on bars: the middle of the views becomes brighter than their rim by far."""
    trainer = make(max_steps=60, views=16)
    trainer.run()
    views = trainer.renderer(trainer.averaged, torch.eye(3))[0, 0].detach()
    assert views[5:11, 5:11].mean() > 3 * views[[0, -1]].mean()


@pytest.mark.parametrize("adversarial", ["non_saturating", "hinge", "wasserstein"])
def test_every_pairing_runs_and_stays_finite(adversarial):
    trainer = make(max_steps=4, losses=LossOptions(adversarial=adversarial))
    trainer.run()
    assert all(weight.isfinite().all() for weight in trainer.volume.parameters())


@pytest.mark.parametrize("off", [False, True])
def test_pictures_that_nothing_is_pulled_to_are_not_kept_and_the_state_is_the_same(off):
    """`configs/pure_gan.yaml`: no exemplars, while files from before and after can be loaded by each other."""
    plain, pulled = make(max_steps=2, losses=LossOptions(nearest=0.0)), make(max_steps=2)
    assert len(plain.nearest_pull.exemplars.images) <= 3 < len(pulled.nearest_pull.exemplars.images)
    source, target = (pulled, plain) if off else (plain, pulled)
    source.step()
    target.load_state_dict(source.state_dict())
    target.step()


def test_classes_dear_everywhere_are_left_and_a_resume_knows_the_prices():
    """With even shares, at the start, nothing costs; then the volume goes another way, and goes on that way."""
    plain, priced = make(), make(losses=LossOptions(diversity_everywhere=5.0))
    for trainer in (plain, priced):
        trainer.step()
    assert same(plain.volume, priced.volume)
    assert plain.class_prices.shares.tolist() == [0.5, 0.5] != priced.class_prices.shares.tolist()
    assert plain.step().shares_everywhere == []
    assert sum(priced.step().shares_everywhere) == pytest.approx(1.0)
    assert not same(plain.volume, priced.volume)
    other = make(seed=3, losses=LossOptions(diversity_everywhere=5.0))
    other.load_state_dict(saved(priced))
    for trainer in (other, priced):
        trainer.step()
    assert same(other.volume, priced.volume)


def test_a_checkpoint_from_before_there_were_prices_is_continued():
    trainer = make(losses=LossOptions(diversity_everywhere=1.0))
    trainer.step()
    old = saved(trainer)
    del old["class_prices"]
    other = make(losses=LossOptions(diversity_everywhere=1.0))
    other.step()
    other.class_prices.shares.fill_(0.7)
    other.load_state_dict(old)
    assert other.class_prices.shares.tolist() == [0.5, 0.5]
    assert 0.5 not in other.step().shares_everywhere


def test_prices_need_views_from_everywhere():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"losses\.diversity_everywhere=1: .*poses\.sphere_share=0 .*raise that share"):
        front_only(bars())
    front_only(bars(labelled=False)).step()  # classes that are not known cost nothing anywhere


def front_only(images):
    losses, poses = LossOptions(diversity_everywhere=1.0), PoseOptions(sphere_share=0.0)
    return Trainer(
        VoxelGrid(12), AbsorptionRenderer(16), images, options=TrainerOptions(views=4), losses=losses, poses=poses
    )


def test_without_labels():
    recorder = Recorder()
    trainer = make(labelled=False, max_steps=3, losses=LossOptions(diversity_everywhere=1.0))
    trainer.run([recorder])
    assert trainer.discriminator.classes is None
    assert recorder.reports[-1].class_shares == []
    assert recorder.reports[-1].diversity_loss == 0.0


def test_penalties_fall_on_the_right_steps_only():
    trainer = make(max_steps=5, losses=LossOptions(penalty_every=4))
    values = []
    for _ in range(5):
        values.append(trainer.step().penalty)
    assert values[0] > 0
    assert values[0] == values[3] != values[4]


def test_a_limit_in_minutes_ends_the_run_and_sets_the_share():
    trainer = make(max_steps=None, max_minutes=0.02)
    trainer.run()
    assert trainer.share == 1.0
    assert trainer.steps_done >= 1
    assert make(max_steps=None).options.seconds_limit == 600
    assert make(max_steps=5).options.seconds_limit == float("inf")


def test_rates_are_flat_then_fall_to_a_tenth():
    options = TrainerOptions()
    assert [options.rate_factor(share) for share in (0.0, 0.5, 0.75, 1.0)] == pytest.approx([1.0, 1.0, 0.55, 0.1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_steps": 0},
        {"max_minutes": 0.0},
        {"max_minutes": float("nan")},
        {"stop_after": 0},
        {"views": 1},
        {"volume_rate": -0.1},
        {"decay_from": 1.0},
        {"final_rate": 2.0},
        {"average_decay": 1.0},
        {"max_shift": -1},
    ],
)
def test_bad_options_name_the_key(wrong):
    with pytest.raises(ValueError, match=rf"trainer\.{next(iter(wrong))}=.*allowed"):
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
