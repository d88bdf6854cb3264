"""Targets: what is asked for, which images stand for it, which views are drawn, and that a run obeys."""

import io
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from trainers import make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.program import run_command_line
from mnist3d.data.images import ImageSet, load_images
from mnist3d.data.options import DataOptions
from mnist3d.data.text import draw_text
from mnist3d.data.typical import exemplar
from mnist3d.errors import DataError
from mnist3d.geometry.rotations import training_rotations, upright_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.config import Config
from mnist3d.runs.session import sculpt
from mnist3d.training.objectives.adversarial import AdversarialOptions
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import Targets, build_targets
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes.voxel_grid import VoxelGrid

ROOT = Path(__file__).parent.parent
DIGITS = list(range(10))


def bar(upright, size=16):
    image = torch.zeros(1, size, size)
    image[(slice(None), slice(4, 12), slice(7, 9)) if upright else (slice(None), slice(7, 9), slice(4, 12))] = 1.0
    return image


def labelled(size=16, count=24):
    images = torch.stack([bar(number % 2 == 0, size) for number in range(count)])
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(3))
    return ImageSet((images + 0.1 * noise).clamp(0, 1), torch.arange(count) % 2, ["0", "1"])


def built(options, images=None, scale=1.0):
    targets = build_targets(options, images or labelled(), DataOptions(scale=scale))
    assert targets is not None
    return targets


# what is asked for


def test_a_ring_is_its_views_written_out():
    ring = TargetOptions(rings=[{"elevation": 10, "azimuth": 5, "digits": [4, 7, 1]}]).listed()
    assert [(t.azimuth, t.elevation, t.kind, t.subject) for t in ring] == [
        (5.0, 10.0, "digit", "4"),
        (125.0, 10.0, "digit", "7"),
        (245.0, 10.0, "digit", "1"),
    ]
    letters = TargetOptions(rings=[{"text": "AB"}], views=[{"image": "a.png"}]).listed()
    assert [(t.kind, t.subject) for t in letters] == [("image", "a.png"), ("text", "A"), ("text", "B")]


def test_no_targets_are_the_default():
    assert TargetOptions().listed() == []
    assert build_targets(TargetOptions(), labelled(), DataOptions()) is None


def test_the_configuration_survives_its_file():
    config = Config(targets=TargetOptions(views=[{"azimuth": 36, "class": "Bag"}], jitter=4.0))
    assert Config.from_mapping(yaml.safe_load(config.to_yaml())) == config


# images


def test_an_exemplar_is_of_its_class_and_typical():
    images = load_images(DataOptions(limit=600), 28)
    assert images.labels is not None
    for label in (0, 4):
        image = exemplar(images, label)
        own = images.images[images.labels == label]
        mean = own.mean(0)
        similar = torch.cosine_similarity(own.flatten(1), mean.flatten()[None])
        assert bool((own == image).flatten(1).all(1).any())
        assert torch.cosine_similarity(image.flatten(), mean.flatten(), dim=0) > similar.median()


def test_two_targets_of_one_class_share_their_exemplar():
    targets = built(TargetOptions(views=[{"digit": 1}, {"azimuth": 90, "class": "1"}, {"azimuth": 180, "digit": 0}]))
    assert torch.equal(targets.images[0], targets.images[1])
    assert not torch.equal(targets.images[0], targets.images[2])


def test_a_class_of_a_single_image_has_it_as_exemplar():
    images = labelled()
    only = ImageSet(images.images[:3], torch.tensor([0, 1, 1]), ["0", "1"])
    assert torch.equal(exemplar(only, 0), only.images[0])
    alone = ImageSet(images.images[:1], torch.tensor([0]), ["0"])
    assert torch.equal(exemplar(alone, 0), images.images[0])


@pytest.mark.parametrize("size", [28, 33, 64])
def test_letters_are_as_large_as_digits_and_inside_the_ball(size):
    ring = (torch.arange(size) * 2 + 1) / size - 1
    outside = (ring[:, None] ** 2 + ring**2) > 1
    images = {letter: draw_text(letter, size) for letter in "ABIWMQ8"}
    assert len({image.numpy().tobytes() for image in images.values()}) == len(images)
    for letter, image in images.items():
        assert image.shape == (1, size, size)
        assert 0.0 <= float(image.min()) <= float(image.max()) <= 1.0
        assert float(image.max()) > 0.9
        assert float(image[0][outside].sum()) < 0.5  # of a pixel: the faint rim of W's corners
        rows = (image[0] > 0.5).any(dim=1).nonzero()[:, 0]
        height = (int(rows.max()) - int(rows.min()) + 1) / size
        assert height == pytest.approx(20 / 28, abs=2 / size) or letter in "WM"


def test_a_letter_is_upright_and_not_mirrored():
    image = draw_text("L", 28)[0]
    assert image[:, :14].sum() > image[:, 14:].sum()
    assert image[14:].sum() > image[:14].sum()


def test_an_image_file_is_fitted_transparent_is_black(tmp_path):
    image = Image.new("RGBA", (16, 8), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0, 16, 8))
    image.paste((255, 255, 255, 0), (0, 0, 8, 8))
    image.save(tmp_path / "wide.png")
    views = [{"image": str(tmp_path / "wide.png")}]
    image = built(TargetOptions(views=views)).images[0, 0]
    expected = torch.zeros(16, 16)
    expected[4:12, 8:] = 1.0  # the right half is bright; twice as wide as high, centred
    assert torch.equal(image, expected)
    small = built(TargetOptions(views=views), scale=0.5).images[0, 0]
    assert float(small.sum()) == pytest.approx(float(expected.sum()) / 4)
    assert float(small[:4].sum() + small[:, :4].sum() + small[12:].sum() + small[:, 12:].sum()) == 0.0


# views


def test_views_stay_within_the_jitter_and_reach_for_it():
    azimuth, elevation = torch.tensor([0.3, 2.0, -1.0]), torch.tensor([0.0, 0.5, -0.4])
    options = TargetOptions(jitter=7.0, views_per_step=600)
    targets = Targets(azimuth, elevation, torch.zeros(3, 1, 8, 8), options)
    generator = torch.Generator().manual_seed(0)
    rotations, images, drawn = targets.draw(generator)
    assert rotations.shape == (600, 3, 3)
    assert images.shape == (600, 1, 8, 8)
    axis = rotations[:, 2]  # (-cos a sin b, sin a, cos a cos b)
    found = torch.stack([torch.atan2(-axis[:, 0], axis[:, 2]), torch.asin(axis[:, 1])], dim=1).rad2deg()
    centres = torch.stack([azimuth, elevation], dim=1).rad2deg()
    offsets = (found[:, None] - centres).abs()
    nearest = offsets.amax(dim=2).argmin(dim=1)
    assert torch.equal(nearest, drawn)
    assert torch.bincount(nearest).tolist() == [200, 200, 200]
    within = offsets[torch.arange(600), nearest]
    assert float(within.max()) <= 7.0 + 1e-3
    assert (within.amax(dim=0) > 6.5).all()
    assert torch.allclose(targets.rotations, upright_matrix(azimuth, elevation))


def test_every_target_is_drawn_as_often_also_when_they_are_more_than_the_views():
    options = TargetOptions(jitter=0.0, views_per_step=4)
    images = torch.arange(10.0)[:, None, None, None].expand(10, 1, 8, 8) / 10
    targets = Targets(torch.arange(10) * 0.6, torch.zeros(10), images, options)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.cat([targets.draw(generator)[1][:, 0, 4, 4] for _ in range(500)])
    counts = torch.bincount((drawn * 10).round().long())
    assert counts.sum() == 2000
    assert counts.min() > 150  # 200 expected; 3.7 standard deviations even if the four views were independent


def test_the_image_of_a_view_is_the_flat_one_seen_from_there():
    """Without jitter the image itself; 60 degrees to the side it is half as wide."""
    options = TargetOptions(jitter=0.0, views_per_step=1)
    square = torch.zeros(1, 1, 32, 32)
    square[..., 8:24, 8:24] = 1.0
    targets = Targets(torch.tensor([0.7]), torch.tensor([0.2]), square, options)
    assert torch.allclose(targets.draw(torch.Generator())[1], square, atol=1e-4)
    aside = Targets(torch.tensor([0.0]), torch.tensor([0.0]), square, options)
    aside.options.jitter = math.degrees(math.pi / 3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        rotations, image, _ = aside.draw(generator)
        shrink = (rotations[0, :2, :2]).det().abs()
        assert float(image.sum()) == pytest.approx(float(shrink * square.sum()), rel=0.06)


def test_near_a_target():
    targets = Targets(torch.zeros(1), torch.zeros(1), torch.zeros(1, 1, 8, 8), TargetOptions(jitter=10.0))
    azimuth = torch.tensor([0.0, 10.0, 14.0, 16.0, 90.0, 180.0]).deg2rad()
    near = targets.claims(upright_matrix(azimuth, torch.zeros(6)))
    assert near.tolist() == [True, True, True, False, False, False]


# mistakes

BAD = [
    ({"views": [{"azimut": 3, "digit": 1}]}, ["targets.views[0].azimut", "did you mean azimuth"]),
    ({"views": [{"digit": 1}, {"colour": "red", "digit": 1}]}, ["targets.views[1].colour", "must be one of azimuth"]),
    ({"views": [{"azimuth": "north", "digit": 1}]}, ["targets.views[0].azimuth='north'", "degrees"]),
    ({"views": [{"azimuth": float("nan"), "digit": 1}]}, ["targets.views[0].azimuth=nan", "degrees"]),
    ({"views": [{"elevation": 91, "digit": 1}]}, ["targets.views[0].elevation=91", "must be in [-90, 90]"]),
    ({"views": [{"azimuth": 3}]}, ["targets.views[0]", "exactly one of digit, class, image, text"]),
    ({"views": [{"digit": 3, "text": "A"}]}, ["targets.views[0]", "exactly one"]),
    ({"views": [{"digit": 12}]}, ["targets.views[0].digit=12", "in [0, 9]"]),
    ({"views": [{"digit": "three"}]}, ["targets.views[0].digit='three'", "in [0, 9]"]),
    ({"views": [{"digit": True}]}, ["targets.views[0].digit=True", "in [0, 9]"]),
    ({"views": [{"text": " "}]}, ["targets.views[0].text", "not empty"]),
    ({"views": [7]}, ["targets.views[0]=7", "must be a mapping"]),
    ({"views": []}, ["targets.views=[]", "at least one"]),
    ({"views": 7}, ["targets.views=7", "must be a list"]),
    ({"rings": []}, ["targets.rings=[]", "at least one"]),
    ({"rings": [{"digits": []}]}, ["targets.rings[0].digits=[]", "at least one"]),
    ({"rings": [{"digits": "012"}]}, ["targets.rings[0].digits='012'", "must be a list"]),
    ({"rings": [{"digit": [1]}]}, ["targets.rings[0].digit", "did you mean digits"]),
    ({"rings": [{"digits": [1], "azimuth": "x"}]}, ["targets.rings[0].azimuth='x'", "degrees"]),
    ({"views": [{"image": "nowhere.png"}]}, ["targets.views[0].image=nowhere.png", "not a readable image"]),
    ({"views": [{"picture": "a.png"}]}, ["targets.views[0].picture: is image since version 0.2"]),
    ({"rings": [{"pictures": ["a.png"]}]}, ["targets.rings[0].pictures: is images since version 0.2"]),
    ({"views": [{"class": "Bag"}]}, ["targets.views[0].class=Bag", "no such class", "0, 1, 2"]),
    ({"views": [{"text": "\u6f22"}]}, ["targets.views[0].text", "font", "use image"]),
    ({"views": [{"digit": 1}], "jitter": 50}, ["targets.jitter=50", "in [0, 45]"]),
    ({"views": [{"digit": 1}], "weight": 0}, ["targets.weight=0", "> 0"]),
    ({"views": [{"digit": 1}], "views_per_step": 0}, ["targets.views_per_step=0", "must be >= 1"]),
    ({"view": [{"digit": 1}]}, ["targets.view", "no such key"]),
]


@pytest.mark.parametrize(("targets", "words"), BAD, ids=lambda value: str(value)[:60])
def test_a_mistake_is_one_line_and_exit_code_2(targets, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"targets": targets, "data": {"limit": 40}, "trainer": {"max_steps": 1}})
    )
    _refused(["--config", "mine.yaml"], words, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_mistake_on_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _refused(["--targets.views", "[{azimut: 3, digit: 1}]"], ["targets.views[0].azimut", "azimuth"], capsys)
    _refused(["--adversarial.weight", "0"], ["adversarial.weight=0", "targets"], capsys)
    _refused(["--adversarial.weight", "-1"], ["adversarial.weight=-1", ">= 0"], capsys)
    _refused(["--data.scale", "1.5"], ["data.scale=1.5", "must be > 0 and <= 1"], capsys)


def _refused(arguments, words, capsys):
    monkey = pytest.MonkeyPatch()
    monkey.setattr(sys, "argv", ["train.py", *arguments])
    with monkey.context(), pytest.raises(SystemExit) as ended:
        run_command_line(lambda rest: sculpt(parse_command_line(rest)))
    monkey.undo()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1, error
    assert all(word in error for word in words), error


def test_a_digit_that_the_data_lacks_and_data_without_labels():
    with pytest.raises(DataError, match=r"views\[0\]\.digit=7.*no such class.*0, 1"):
        built(TargetOptions(views=[{"digit": 7}]))
    unlabelled = ImageSet(labelled().images, None, [])
    with pytest.raises(DataError, match=r"views\[0\]\.digit=1.*no labels"):
        built(TargetOptions(views=[{"digit": 1}]), unlabelled)
    assert built(TargetOptions(views=[{"text": "A"}]), unlabelled).images.shape == (1, 1, 16, 16)


# runs


def make(seed=0, alone=True, views=None, **options):
    torch.manual_seed(seed)
    images = labelled()
    targets = built(TargetOptions(views=views or [{"digit": 0}, {"azimuth": 90, "digit": 1}], views_per_step=6), images)
    settings = TrainerOptions(**{"max_steps": 12, "views": 6, **options})
    adversarial = AdversarialOptions(weight=0.0 if alone else 1.0)
    return make_trainer(
        VoxelGrid(12), AbsorptionRenderer(16), images, settings, targets=targets, seed=seed, adversarial=adversarial
    )


def targets_of(trainer) -> Targets:
    found = trainer.objectives["targets"]
    assert isinstance(found, Targets)
    return found


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("alone", [True, False])
def test_half_a_run_and_its_resume_are_the_whole_run_to_the_bit(alone):
    whole, half = make(alone=alone), make(alone=alone, stop_after=6)
    whole.run()
    half.run()
    buffer = io.BytesIO()
    torch.save(half.state_dict(), buffer)
    buffer.seek(0)
    rest = make(alone=alone)
    with torch.no_grad():
        for weight in (*rest.volume.parameters(), *rest.averaged.parameters()):
            weight.zero_()  # all must come from the state
    rest.generator.manual_seed(99)
    rest.load_state_dict(torch.load(buffer, weights_only=True))
    rest.run()
    for part in ("volume", "averaged", "objectives"):
        assert same(getattr(whole, part), getattr(rest, part)), part


def test_alone_there_is_no_discriminator_and_beside_it_both_move_the_volume():
    alone, beside = make(alone=True), make(alone=False)
    assert list(alone.objectives) == ["targets"]
    assert list(beside.objectives) == ["adversarial", "diversity", "nearest_image", "targets"]
    for trainer in (alone, beside):
        report = trainer.step()
        assert report.metrics["target_loss"] > 0
        assert ("discriminator_loss" in report.metrics) == (trainer is beside)
    assert not same(alone.volume, beside.volume)


def test_the_adversarial_views_look_elsewhere():
    trainer = make(alone=False)
    for _ in range(10):
        assert not bool(targets_of(trainer).claims(trainer._draw_rotations()).any())
    everywhere = [{"azimuth": a, "elevation": e, "digit": 0} for a in range(0, 360, 10) for e in range(-80, 81, 10)]
    crowded = make(alone=False, views=everywhere)
    assert crowded._draw_rotations().shape == (6, 3, 3)  # nowhere else to look: then anywhere


def test_without_targets_the_rotations_are_those_of_the_law():
    trainer = make_trainer(VoxelGrid(12), AbsorptionRenderer(16), labelled(), TrainerOptions(max_steps=12, views=6))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(trainer._draw_rotations(), training_rotations(6, generator))


def test_the_loss_is_the_mean_difference_to_what_each_view_should_show():
    trainer, twin = make(), make()
    targets, batch = targets_of(trainer), trainer._batch(0.5, 1.0)
    targets.prepare(batch)
    loss = targets.loss(batch)
    rotations, images, _ = targets_of(twin).draw(twin.generator)
    views = twin.renderer(twin.volume, rotations)
    expected = (views - images).abs().mean()
    # in the first step, of two targets seen three times each, the weights are within a few hundredths of 1
    assert loss.item() == pytest.approx(targets.options.weight * expected.item(), rel=0.2)
    assert targets.metrics()["target_loss"] == pytest.approx(loss.item() / targets.options.weight)
    (slope,) = torch.autograd.grad(loss, list(trainer.volume.parameters())[-1:])
    assert bool(slope.any())


def test_the_same_through_the_command_line_leaves_a_picture_of_the_targets(tmp_path):
    run = tmp_path / "run"
    arguments = ["--config", str(ROOT / "configs" / "counter.yaml"), "--trainer.max_minutes", "null"]
    arguments += ["--trainer.max_steps", "2", "--data.limit", "60", "--volume.resolution", "12", "--run_dir", str(run)]
    sculpt(parse_command_line([*arguments, "--targets.views_per_step", "4"]))
    with Image.open(run / "pictures" / "targets.png") as image:
        assert image.size[0] > 12 * 28
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["targets"]["rings"] == [{"elevation": 0, "digits": DIGITS}]


# images that fill their square, classes without names


def test_numbered_classes_can_be_named():
    options = DataOptions(limit=20, class_names=list("abcdefghij"))
    images = load_images(options, 16)
    assert images.class_names == list("abcdefghij")
    named = build_targets(TargetOptions(views=[{"class": "d"}]), images, options)
    plain = build_targets(TargetOptions(views=[{"class": "3"}]), load_images(DataOptions(limit=20), 16), options)
    assert named is not None
    assert plain is not None
    assert torch.equal(named.images, plain.images)
    with pytest.raises(DataError, match=r"data\.class_names: 2 names.*10 classes"):
        load_images(DataOptions(limit=20, class_names=["a", "b"]), 16)


def test_scale_leaves_a_black_margin_and_keeps_the_whole_image():
    full = load_images(DataOptions(limit=20), 28).images
    assert torch.equal(load_images(DataOptions(limit=20, scale=1.0), 28).images, full)
    small = load_images(DataOptions(limit=20, scale=0.72), 28).images
    assert small.shape == full.shape
    assert float(small[:, :, :4].sum() + small[:, :, 24:].sum() + small[..., :4].sum() + small[..., 24:].sum()) == 0.0
    # its light shrinks with its area
    assert torch.allclose(small.sum((1, 2, 3)), full.sum((1, 2, 3)) * (20 / 28) ** 2, rtol=0.03)
