"""The scorecard says what it must of real digits, of collapsed volumes and of rubbish.

Nothing that a network learns on the machine that runs the tests decides one. Classifiers are either stand-ins that say
what they are told, or have the fixed weights of `data/classifiers.safetensors` (see `make_data.py`): with these
only the rounding of a processor can move a figure, so each is asked for far from what it is; the comment beside it says
what it is. Tests that train ask for what holds of any weights.
"""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from make_data import CLASSIFIERS
from safetensors.torch import load_file
from torch import Tensor, nn

from mnist3d.cli import score as score_command
from mnist3d.cli.score import in_a_sentence, table
from mnist3d.data.images import ImageSet, load_images
from mnist3d.data.options import DataOptions
from mnist3d.evaluation import (
    Classifiers,
    ImageScore,
    Scorecard,
    fixed_rotations,
    load_classifiers,
    quick_score,
    score_images,
    score_views,
    turntable_strip,
    view_atlas,
)
from mnist3d.evaluation import classifiers as classifiers_module
from mnist3d.evaluation.learning import OTHER_BATCH, REAL_BATCH
from mnist3d.evaluation.negatives import TURNS, Negatives, augmented, blur
from mnist3d.evaluation.networks import ARCHITECTURES
from mnist3d.evaluation.view_atlas import NO_CLASS, class_colour
from mnist3d.geometry.rotations import PoseOptions
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.scorecard import ROWS
from mnist3d.volumes import VoxelGrid

RESOLUTION = 32
MAP = (slice(64, 544), slice(1106, 2066))  # rows and columns of the atlas that the map of what is read fills


@pytest.fixture(scope="session")
def held_out() -> ImageSet:
    return load_images(DataOptions(), 28, "held_out")


@pytest.fixture(scope="session")
def training() -> ImageSet:
    return load_images(DataOptions(limit=800), 28)


@pytest.fixture(scope="session")
def classifiers(held_out: ImageSet) -> Classifiers:
    """The two classifiers of the digits, with fixed weights; stored as float16, they compute in float32."""
    networks = nn.ModuleList([build(len(held_out.class_names) + 1) for build in ARCHITECTURES])
    networks.load_state_dict(load_file(CLASSIFIERS))
    networks.eval().requires_grad_(False)
    return Classifiers(list(networks), held_out.class_names, "fixed")


@pytest.fixture(scope="session")
def renderer() -> AbsorptionRenderer:
    return AbsorptionRenderer(28)


class Says(nn.Module):
    """Stands in for a classifier: it says the same of every image.

    Args:
        probabilities: one a class, the last of "none".
    """

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(probabilities).log())
        self.register_buffer("spread", torch.tensor(2.0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.get_buffer("logits").expand(len(images), -1), images.mean(dim=(2, 3))


def told(one: tuple[float, ...], other: tuple[float, ...]) -> Classifiers:
    """Two classifiers that say what they are told."""
    return Classifiers([Says(*one), Says(*other)], [f"kind {k}" for k in range(len(one) - 1)], "told")


def given(figure: float | None) -> float:
    """A figure that must have been computed."""
    assert figure is not None
    return figure


def _positions() -> tuple[Tensor, Tensor, Tensor]:
    """z, y, x of the voxels' centres."""
    centre = (2.0 * torch.arange(RESOLUTION) + 1.0) / RESOLUTION - 1.0
    z, y, x = torch.meshgrid(centre, centre, centre, indexing="ij")
    return z, y, x


def _shell() -> Tensor:
    """A thin bright shell around a black core: an outline, so a 0, from every side."""
    z, y, x = _positions()
    radius = (x.square() + z.square() + (y / 1.25).square()).sqrt()
    core = (radius <= 0.4).float()
    return torch.stack([4.0 * (radius < 0.52) * (1.0 - core) + 60.0 * core, core])


def _noise() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, RESOLUTION, RESOLUTION, RESOLUTION, generator=generator)


def _dim_noise() -> Tensor:
    return _noise() * torch.tensor([0.15, 1.0]).reshape(2, 1, 1, 1)


def _blank() -> Tensor:
    return torch.zeros(2, RESOLUTION, RESOLUTION, RESOLUTION)


def _speckle() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    dots = (torch.rand(RESOLUTION, RESOLUTION, RESOLUTION, generator=generator) < 0.01).float()
    return torch.stack([60.0 * dots, torch.zeros_like(dots)])


def _fog() -> Tensor:
    return torch.stack([torch.full((RESOLUTION,) * 3, 2.0), torch.zeros((RESOLUTION,) * 3)])


@pytest.mark.parametrize(
    ("one", "other", "label", "confidence", "guess"),
    [
        ((0.6, 0.3, 0.1), (0.7, 0.1, 0.2), 0, 0.6, 0),  # the less convinced one counts
        ((0.95, 0.04, 0.01), (0.92, 0.04, 0.04), 0, 0.92, 0),
        ((0.6, 0.3, 0.1), (0.1, 0.7, 0.2), -1, 0.0, 1),  # they differ; the guess is the higher mean
        ((0.2, 0.1, 0.7), (0.25, 0.1, 0.65), 0, 0.2, 0),  # "none" is no class
    ],
)
def test_a_reading_is_what_both_judges_hold(one, other, label, confidence, guess):
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    reading = told(one, other).read(images)
    assert reading.label.tolist() == [label] * 3
    assert reading.guess.tolist() == [guess] * 3
    assert reading.confidence.tolist() == pytest.approx([confidence] * 3, abs=1e-6)  # float32 rounding
    assert reading.legible.tolist() == [confidence > 0.5] * 3
    assert reading.clean.tolist() == [confidence > 0.9] * 3
    brightness = images.mean(dim=(2, 3)) / 2.0  # what the stand-ins have for a feature, in units of their spread
    assert torch.equal(reading.features, brightness.expand(3, 2))


def test_a_score_counts_what_is_read():
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    sure, unsure = told((0.1, 0.8, 0.1), (0.0, 0.97, 0.03)), told((0.4, 0.2, 0.4), (0.4, 0.2, 0.4))
    one_class = {"kind 0": 0.0, "kind 1": 1.0}
    expected = ImageScore(8, 1.0, 0.0, one_class, one_class, 1.0, 0.0)
    assert score_images(images, sure) == expected
    nothing, guesses = {"kind 0": 0.0, "kind 1": 0.0}, {"kind 0": 1.0, "kind 1": 0.0}
    assert score_images(images, unsure) == ImageScore(8, 0.0, 0.0, nothing, guesses, 0.0, 0.0)


def test_real_digits_are_legible_and_diverse(classifiers: Classifiers, training: ImageSet):
    score = score_images(training.images, classifiers)
    assert given(score.legible) > 0.93  # .964
    assert 0.8 < given(score.clean) < given(score.legible)  # .905
    assert given(score.effective_classes) > 9.9  # 9.998
    assert given(score.rarest_share) > 0.07  # .096


def test_a_legible_digit_is_read_right(classifiers: Classifiers, training: ImageSet):
    reading = classifiers.read(training.images)
    assert training.labels is not None
    right = (reading.label == training.labels)[reading.legible]
    assert float(right.float().mean()) > 0.97  # .995


def test_interpolated_digits_are_no_less_digits_and_interpolated_rubbish_no_more(
    classifiers: Classifiers, held_out: ImageSet
):
    """Resampling, blur and noise alone must not decide."""
    generator = torch.Generator().manual_seed(3)
    assert held_out.labels is not None
    rubbish = Negatives(held_out.images, held_out.labels, generator).draw(500, generator)
    assert float(classifiers.read(augmented(held_out.images[::3], generator)).legible.float().mean()) > 0.8  # .932
    assert float(classifiers.read(augmented(rubbish, generator)).legible.float().mean()) < 0.1  # .018
    assert float(classifiers.read(rubbish).legible.float().mean()) < 0.1  # .014


def test_a_shell_is_one_class(classifiers: Classifiers, renderer: AbsorptionRenderer):
    score = quick_score(VoxelGrid.from_array(_shell()), renderer, classifiers)
    assert given(score.legible) > 0.5  # 1.0: the share alone praises it
    assert given(score.effective_classes) < 1.1  # 1.0
    assert score.rarest_share == 0.0
    assert (score.guesses or {})["0"] > 0.9  # 1.0


@pytest.mark.parametrize("make", [_noise, _dim_noise, _blank, _speckle, _fog])
@pytest.mark.parametrize("distribution", ["euler_normal", "sphere"])
def test_rubbish_is_not_legible(
    make: Callable[[], Tensor], distribution, classifiers: Classifiers, renderer: AbsorptionRenderer
):
    score = quick_score(VoxelGrid.from_array(make()), renderer, classifiers, PoseOptions(name=distribution), views=100)
    assert score.legible == 0.0  # the surest view of all of them has a confidence of .012
    assert score.effective_classes == 0.0


def test_scorecard_of_a_volume(classifiers: Classifiers, renderer: AbsorptionRenderer, training: ImageSet):
    rotations = fixed_rotations(PoseOptions(name="ring"), views=60)
    assert list(rotations) == ["euler_normal", "sphere", "ring"]
    volume = VoxelGrid.from_array(_shell())
    cards = [score_views(volume, renderer, classifiers, training.images, rotations) for _ in range(2)]
    assert cards[0] == cards[1]
    assert json.loads(json.dumps(cards[0].as_dict()))["poses"]["ring"]["count"] == 60
    for score in cards[0].poses.values():
        for figure in (score.kernel_distance, score.precision, score.nearest_distance):
            assert math.isfinite(given(figure))
        assert given(score.frechet_distance) > 20 * given(cards[0].real.frechet_distance)  # 198 and 3.8
        assert given(score.recall) < 0.2  # 0.0
    assert given(cards[0].real.recall) > 0.8  # .898
    assert given(cards[0].real.nearest_distance) > 0.1  # .212: one half of the real images against the other


@pytest.mark.parametrize("count", [1, 2, 40])
def test_of_one_class_there_are_negatives_too(count):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, 28, 28, generator=generator)
    source = Negatives(images, torch.zeros(count, dtype=torch.long), generator)
    assert source.draw(20, generator).shape == (20, 1, 28, 28)


@pytest.mark.parametrize(("lopsided", "gives"), [(1, False), (10, True)])
def test_a_class_of_which_many_turned_images_come_near_gives_none_of_them(lopsided, gives):
    """A mirrored 0 is a 0. Of ten images the last are squares, which every turn leaves alone, the first hooks."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(10, 1, 28, 28)
    for k in range(10):
        if k < lopsided:
            images[k, 0, 4 : 15 + k, 6:9] = images[k, 0, 4:7, 9:20] = 1.0
        else:
            images[k, 0, 4 + k : 24 - k, 4 + k : 24 - k] = 1.0
    source = Negatives(images, torch.zeros(10, dtype=torch.long), generator)
    assert bool(len(source._changed(TURNS))) == gives


def test_blur_is_a_gaussian_of_the_given_width():
    dot = torch.zeros(3, 1, 15, 15)
    dot[:, :, 7, 7] = 1.0
    sigma = torch.tensor([0.0, 0.6, 1.0])
    blurred = blur(dot, sigma)
    assert torch.equal(blurred[0], dot[0])
    assert blurred.sum(dim=(1, 2, 3)).tolist() == pytest.approx([1.0] * 3, abs=1e-6)  # float32
    variance = (blurred[:, 0].sum(dim=1) * (torch.arange(15) - 7.0).square()).sum(dim=1)
    assert variance.tolist() == pytest.approx(sigma.square().tolist(), rel=0.04)  # the kernel ends at three sigma


def test_fixed_rotations_are_fixed_and_name_the_own_law_once():
    first, again = fixed_rotations(PoseOptions(), 5), fixed_rotations(None, 5)
    assert list(first) == ["euler_normal", "sphere"]
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("labelled", [True, False])
def test_training_is_deterministic_and_leaves_the_random_state(labelled, held_out: ImageSet, tmp_path: Path):
    images = held_out.images[::10]
    labels = held_out.labels[::10] if labelled and held_out.labels is not None else None
    names = held_out.class_names if labelled else []
    before = torch.get_rng_state()
    one, other = (load_classifiers(images, labels, names, tmp_path / name, 3) for name in "ab")
    assert torch.equal(torch.get_rng_state(), before)
    assert one.version == other.version
    assert torch.equal(one.read(images).features, other.read(images).features)
    changed = load_classifiers(1.0 - images, labels, names, tmp_path / "a", 3)
    assert changed.version != one.version


def test_training_shows_real_images_as_their_classes_and_others_as_none(
    held_out: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[Tensor, Tensor]] = []
    cross_entropy = classifiers_module.F.cross_entropy

    def watched(logits: Tensor, classes: Tensor) -> Tensor:
        asked.append((logits, classes))
        return cross_entropy(logits, classes)

    monkeypatch.setattr(classifiers_module.F, "cross_entropy", watched)
    _tiny(tmp_path, held_out)
    none = len(held_out.class_names)
    assert len(asked) == 2 * len(ARCHITECTURES)
    for logits, classes in asked:
        assert logits.shape == (REAL_BATCH + OTHER_BATCH, none + 1)
        assert (classes[:REAL_BATCH] < none).all()
        assert (classes[REAL_BATCH:] == none).all()


def test_features_are_in_units_of_their_spread(held_out: ImageSet, tmp_path: Path):
    """So that distances mean the same for every classifier, whatever it has learned."""
    features = _tiny(tmp_path, held_out).read(held_out.images[::30]).features
    for own in features.chunk(len(ARCHITECTURES), dim=1):
        assert float(own.var(dim=0).mean()) == pytest.approx(1.0, rel=1e-3)  # float32, sums in another order


def _tiny(folder: Path, held_out: ImageSet) -> Classifiers:
    assert held_out.labels is not None
    return load_classifiers(held_out.images[::30], held_out.labels[::30], held_out.class_names, folder, 2)


def test_cache_is_used(held_out: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = _tiny(tmp_path, held_out)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]

    def refuse(*arguments: object) -> None:
        raise AssertionError("trained although the cache holds these classifiers")

    monkeypatch.setattr(classifiers_module, "trained_networks", refuse)
    again = _tiny(tmp_path, held_out)
    images = held_out.images[:50]
    assert torch.equal(first.read(images).confidence, again.read(images).confidence)


@pytest.mark.parametrize("damage", [b"", b"not a file of weights", None])
def test_damaged_cache_is_trained_again(damage, held_out: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    first = _tiny(tmp_path, held_out)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        again = _tiny(tmp_path, held_out)
    assert len(caplog.records) == 1
    assert f"{path}: damaged classifiers" in caplog.text
    assert path.read_bytes() == whole
    assert torch.equal(first.read(held_out.images[:50]).features, again.read(held_out.images[:50]).features)


def test_cache_that_cannot_be_written(held_out: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        classifiers = _tiny(tmp_path / "file", held_out)
    assert "could not be written" in caplog.text
    assert len(classifiers.read(held_out.images[:5]).label) == 5


def test_unlabelled_images_get_distances_and_a_reason(
    held_out: ImageSet, training: ImageSet, renderer: AbsorptionRenderer, tmp_path: Path
):
    classifiers = load_classifiers(held_out.images[::10], None, [], tmp_path, 10)
    volume = VoxelGrid.from_array(_shell())
    card = score_views(volume, renderer, classifiers, training.images[::10], fixed_rotations(None, 30))
    score = card.poses["sphere"]
    assert (score.legible, score.histogram, score.effective_classes) == (None, None, None)
    assert math.isfinite(given(score.frechet_distance))
    assert 0.0 <= given(score.recall) <= 1.0
    assert "needs labels" in (card.note or "")
    assert view_atlas(volume, renderer, classifiers).shape == view_atlas(volume, renderer).shape


def test_other_sizes_and_numbers_of_classes(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(30, 1, 17, 17, generator=generator)
    names = [f"kind {k}" for k in range(15)]
    classifiers = load_classifiers(images, torch.arange(30) % 15, names, tmp_path, 2)
    volume, small = VoxelGrid.from_array(_shell()), AbsorptionRenderer(17)
    card = score_views(volume, small, classifiers, images, fixed_rotations(None, 10))
    assert list(card.poses["sphere"].guesses or {}) == names
    assert turntable_strip(volume, small, classifiers).dtype.name == "uint8"


@pytest.mark.parametrize(
    ("count", "labels", "names", "word"),
    [(1, [0], ["a"], "2 or more"), (3, [0, 1, 2], ["a", "b"], "needs a label")],
)
def test_unfit_images_are_refused(count, labels, names, word, tmp_path: Path):
    with pytest.raises(ValueError, match=word):
        load_classifiers(torch.rand(count, 1, 28, 28), torch.tensor(labels), names, tmp_path, 1)


@pytest.fixture(scope="module")
def bare_atlas(renderer: AbsorptionRenderer):
    """Views of a shell that nobody reads."""
    return view_atlas(VoxelGrid.from_array(_shell()), renderer)


@pytest.mark.parametrize(
    ("one", "other", "colour"),
    [
        ((0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 1.0, 0.0), class_colour(2)),
        ((1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), class_colour(0)),
        ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), NO_CLASS),  # they differ
        ((0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0), NO_CLASS),  # both: none
    ],
)
def test_the_images_have_the_colour_of_what_is_read(one, other, colour, renderer: AbsorptionRenderer, bare_atlas):
    volume, classifiers = VoxelGrid.from_array(_shell()), told(one, other)
    atlas, bare = view_atlas(volume, renderer, classifiers), bare_atlas
    strip = turntable_strip(volume, renderer, classifiers)
    for image in (atlas, bare, strip):
        assert image.dtype.name == "uint8"
        assert image.shape[2:] == (3,)
    assert atlas.shape[1] > 1.8 * bare.shape[1]
    assert abs(atlas[MAP].astype(int) - colour).max() <= 1  # rounded down to a whole number
    # Under each of the turntable's 54 views a field of some thousand pixels, less the class's name; else none.
    field = (abs(strip.astype(int) - colour).max(axis=2) <= 1).sum()
    assert (field > 54 * 500) == (colour != NO_CLASS)


def test_what_is_scored_is_counted_to_its_end(renderer: AbsorptionRenderer, monkeypatch: pytest.MonkeyPatch):
    shares: list[float] = []
    monkeypatch.setattr(score_command.AtWork, "tell", lambda work, share, doing="": shares.append(share))
    volume, classifiers = VoxelGrid.from_array(_shell()), told((0.0, 1.0, 0.0), (0.0, 1.0, 0.0))
    training = torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # nothing of the first stays behind
        shares.clear()
        with score_command._counted("reading", 2 * 8 + 12, renderer, classifiers):
            score_views(volume, renderer, classifiers, training, fixed_rotations(None, 4))
        assert shares == sorted(shares)
        assert len(shares) > 10
        assert shares[-2] < shares[-1] == pytest.approx(1.0, abs=1e-9)  # sums of sixths, in float64
    shares.clear()
    score_views(volume, renderer, classifiers, training, fixed_rotations(None, 4))
    assert shares == []


def test_training_tells_how_far_it_is_and_a_cache_nothing(held_out: ImageSet, tmp_path: Path):
    shares: list[float] = []
    assert held_out.labels is not None
    for _ in range(2):
        load_classifiers(held_out.images[:40], held_out.labels[:40], held_out.class_names, tmp_path, 2, shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_the_tools_table_names_every_class(classifiers: Classifiers, training: ImageSet):
    score = score_images(training.images[:50], classifiers)
    card = Scorecard({"sphere": score}, score, classifiers.class_names, classifiers.version)
    lines = table(card).splitlines()
    assert lines[0].split() == ["sphere", "real", "images"]
    assert len(lines) == 1 + len(ROWS) + 10
    assert any(line.startswith("Frechet distance") and "-" in line for line in lines)  # not asked for here


@pytest.mark.parametrize(
    ("legible", "histogram", "said"),
    [
        (0.426, {"a": 0.5, "b": 0.3, "c": 0.2}, "43 % of the views can be read, and all 3 classes occur."),
        (0.5, {"a": 0.9, "b\n": 0.0, "c": 0.1}, "50 % of the views can be read, and 2 of 3 classes occur; not b\\n."),
        (0.01, {str(k): float(k == 3) for k in range(10)}, "1 % of the views can be read, and 1 of 10 classes occur."),
        (0.0, {"a": 0.0, "b": 0.0}, "0 % of the views can be read: no class occurs."),
        (None, None, ""),
    ],
)
def test_the_tool_ends_with_a_sentence(legible, histogram, said):
    assert in_a_sentence(ImageScore(100, legible=legible, histogram=histogram)) == said


def test_torchs_default_precision_changes_no_classifier(tmp_path):
    images, labels, names = torch.rand(40, 1, 12, 12), torch.arange(40) % 2, ["a", "b"]
    plain = load_classifiers(images, labels, names, tmp_path / "plain", 2)
    torch.set_default_dtype(torch.float64)
    try:
        double = load_classifiers(images.double(), labels, names, tmp_path / "double", 2)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(plain.networks, double.networks, strict=True):
        assert all(torch.equal(weight, other.state_dict()[key]) for key, weight in one.state_dict().items())
