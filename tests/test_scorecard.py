"""The scorecard says what it must of real digits, of collapsed volumes and of rubbish."""

import importlib.util
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mnist3d.data.images import ImageSet, load_images
from mnist3d.data.options import DataOptions
from mnist3d.evaluation import (
    Judges,
    Scorecard,
    fixed_rotations,
    load_judges,
    quick_score,
    score_pictures,
    score_views,
    turntable_strip,
    view_atlas,
)
from mnist3d.evaluation import classifiers as judges_module
from mnist3d.evaluation.distances import frechet_distance, kernel_distance, nearest_distance, precision_recall
from mnist3d.evaluation.negatives import Counterexamples, wear
from mnist3d.geometry.rotations import PoseOptions
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes import VoxelGrid

# Fewer than half the steps of a real run keep the suite short; real digits then lose about .01 legible.
FEW_STEPS = 200
RESOLUTION = 32


@pytest.fixture(scope="session")
def held_out() -> ImageSet:
    return load_images(DataOptions(), 28, "held_out")


@pytest.fixture(scope="session")
def training() -> ImageSet:
    return load_images(DataOptions(limit=800), 28)


@pytest.fixture(scope="session")
def judges(held_out: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Judges:
    folder = tmp_path_factory.mktemp("judges")
    return load_judges(held_out.images, held_out.labels, held_out.class_names, folder, FEW_STEPS)


@pytest.fixture(scope="session")
def renderer() -> AbsorptionRenderer:
    return AbsorptionRenderer(28)


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


def test_real_digits_are_legible_and_diverse(judges: Judges, training: ImageSet):
    score = score_pictures(training.images, judges)
    assert given(score.legible) > 0.93
    assert 0.8 < given(score.clean) < given(score.legible)
    assert given(score.effective_classes) > 9.9
    assert given(score.rarest_share) > 0.07


def test_a_legible_digit_is_read_right(judges: Judges, training: ImageSet):
    reading = judges.read(training.images)
    assert training.labels is not None
    right = (reading.label == training.labels)[reading.legible]
    assert float(right.float().mean()) > 0.97


def test_interpolated_digits_are_no_less_digits_and_interpolated_rubbish_no_more(judges: Judges, held_out: ImageSet):
    """Resampling, blur and noise alone must not decide."""
    generator = torch.Generator().manual_seed(3)
    assert held_out.labels is not None
    rubbish = Counterexamples(held_out.images, held_out.labels, generator).draw(500, generator)
    assert float(judges.read(wear(held_out.images[::3], generator)).legible.float().mean()) > 0.8
    assert float(judges.read(wear(rubbish, generator)).legible.float().mean()) < 0.1
    assert float(judges.read(rubbish).legible.float().mean()) < 0.1


def test_a_shell_is_one_class(judges: Judges, renderer: AbsorptionRenderer):
    score = quick_score(VoxelGrid.from_array(_shell()), renderer, judges)
    assert given(score.legible) > 0.5  # the share alone praises it
    assert given(score.effective_classes) < 1.1
    assert score.rarest_share == 0.0
    assert (score.guesses or {})["0"] > 0.9


@pytest.mark.parametrize("make", [_noise, _dim_noise, _blank, _speckle, _fog])
@pytest.mark.parametrize("law", ["euler_normal", "sphere"])
def test_rubbish_is_not_legible(make: Callable[[], Tensor], law, judges: Judges, renderer: AbsorptionRenderer):
    score = quick_score(VoxelGrid.from_array(make()), renderer, judges, PoseOptions(name=law), views=100)
    assert given(score.legible) <= 0.02
    if score.legible == 0.0:
        assert score.effective_classes == 0.0


def test_scorecard_of_a_volume(judges: Judges, renderer: AbsorptionRenderer, training: ImageSet):
    rotations = fixed_rotations(PoseOptions(name="ring"), views=60)
    assert list(rotations) == ["euler_normal", "sphere", "ring"]
    volume = VoxelGrid.from_array(_shell())
    cards = [score_views(volume, renderer, judges, training.images, rotations) for _ in range(2)]
    assert cards[0] == cards[1]
    assert json.loads(json.dumps(cards[0].as_dict()))["laws"]["ring"]["count"] == 60
    for score in cards[0].laws.values():
        for figure in (score.kernel_distance, score.precision, score.nearest_distance):
            assert math.isfinite(given(figure))
        assert given(score.frechet_distance) > 20 * given(cards[0].real.frechet_distance)
        assert given(score.recall) < 0.2
    assert given(cards[0].real.recall) > 0.8


@pytest.mark.parametrize("count", [1, 2, 40])
def test_of_one_class_there_are_counterexamples_too(count):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(count, 1, 28, 28, generator=generator)
    source = Counterexamples(pictures, torch.zeros(count, dtype=torch.long), generator)
    assert source.draw(20, generator).shape == (20, 1, 28, 28)


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
    one, other = (load_judges(images, labels, names, tmp_path / name, 3) for name in "ab")
    assert torch.equal(torch.get_rng_state(), before)
    assert one.version == other.version
    assert torch.equal(one.read(images).features, other.read(images).features)
    changed = load_judges(1.0 - images, labels, names, tmp_path / "a", 3)
    assert changed.version != one.version


def _tiny(folder: Path, held_out: ImageSet) -> Judges:
    assert held_out.labels is not None
    return load_judges(held_out.images[::30], held_out.labels[::30], held_out.class_names, folder, 2)


def test_cache_is_used(held_out: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = _tiny(tmp_path, held_out)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]

    def refuse(*arguments: object) -> None:
        raise AssertionError("trained although the cache holds these judges")

    monkeypatch.setattr(judges_module, "_trained", refuse)
    again = _tiny(tmp_path, held_out)
    pictures = held_out.images[:50]
    assert torch.equal(first.read(pictures).confidence, again.read(pictures).confidence)


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
    assert f"{path}: damaged judges" in caplog.text
    assert path.read_bytes() == whole
    assert torch.equal(first.read(held_out.images[:50]).features, again.read(held_out.images[:50]).features)


def test_cache_that_cannot_be_written(held_out: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        judges = _tiny(tmp_path / "file", held_out)
    assert "could not be written" in caplog.text
    assert len(judges.read(held_out.images[:5]).label) == 5


def test_unlabelled_pictures_get_distances_and_a_reason(
    held_out: ImageSet, training: ImageSet, renderer: AbsorptionRenderer, tmp_path: Path
):
    judges = load_judges(held_out.images[::10], None, [], tmp_path, 10)
    volume = VoxelGrid.from_array(_shell())
    card = score_views(volume, renderer, judges, training.images[::10], fixed_rotations(None, 30))
    score = card.laws["sphere"]
    assert (score.legible, score.histogram, score.effective_classes) == (None, None, None)
    assert math.isfinite(given(score.frechet_distance))
    assert 0.0 <= given(score.recall) <= 1.0
    assert "needs labels" in (card.note or "")
    assert view_atlas(volume, renderer, judges).shape == view_atlas(volume, renderer).shape


def test_other_sizes_and_numbers_of_classes(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(30, 1, 17, 17, generator=generator)
    names = [f"kind {k}" for k in range(15)]
    judges = load_judges(images, torch.arange(30) % 15, names, tmp_path, 2)
    volume, small = VoxelGrid.from_array(_shell()), AbsorptionRenderer(17)
    card = score_views(volume, small, judges, images, fixed_rotations(None, 10))
    assert list(card.laws["sphere"].guesses or {}) == names
    assert turntable_strip(volume, small, judges).dtype.name == "uint8"


@pytest.mark.parametrize(
    ("count", "labels", "names", "word"),
    [(1, [0], ["a"], "2 or more"), (3, [0, 1, 2], ["a", "b"], "needs a label")],
)
def test_unfit_pictures_are_refused(count, labels, names, word, tmp_path: Path):
    with pytest.raises(ValueError, match=word):
        load_judges(torch.rand(count, 1, 28, 28), torch.tensor(labels), names, tmp_path, 1)


def test_pictures_to_look_at(judges: Judges, renderer: AbsorptionRenderer):
    volume = VoxelGrid.from_array(_shell())
    atlas, bare = view_atlas(volume, renderer, judges), view_atlas(volume, renderer)
    strip = turntable_strip(volume, renderer, judges)
    for picture in (atlas, bare, strip):
        assert picture.dtype.name == "uint8"
        assert picture.shape[2:] == (3,)
    assert atlas.shape[1] > 1.8 * bare.shape[1]
    colour = torch.tensor([230, 70, 85]).numpy()  # a shell reads 0 nearly everywhere, so its colour must prevail
    near = abs(atlas[100:500, 1150:2000].astype(int) - colour).sum(axis=2) < 80
    assert near.mean() > 0.4


def test_frechet_distance_of_a_shift_is_its_square():
    features = torch.randn(400, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.tensor([1.0, 0.0, -2.0, 0.0, 0.0, 0.5], dtype=torch.float64)
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-9)  # float64 rounding
    assert frechet_distance(features, features + shift) == pytest.approx(5.25, abs=1e-9)


def test_kernel_distance_tells_distributions_apart():
    generator = torch.Generator().manual_seed(0)
    one, same = torch.randn(400, 6, generator=generator), torch.randn(400, 6, generator=generator)
    before = torch.get_rng_state()
    near, far = kernel_distance(one, same), kernel_distance(one, same + 1.0)
    assert abs(near) < 0.1 < far
    assert near == kernel_distance(one, same)
    assert torch.equal(torch.get_rng_state(), before)


def test_precision_and_recall():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(300, 4, generator=generator), torch.randn(300, 4, generator=generator) + 40.0
    assert precision_recall(torch.cat([left, right]), left) == pytest.approx((1.0, 0.5))  # half the modes are missing
    assert precision_recall(left, torch.cat([left, right])) == pytest.approx((0.5, 1.0))  # half of it is rubbish
    assert all(math.isnan(value) for value in precision_recall(left[:3], right))


def test_copies_lie_at_distance_zero(training: ImageSet):
    pictures = training.images[:300]
    assert nearest_distance(pictures[:20], pictures) == pytest.approx(0.0, abs=1e-3)  # cdist's rounding, float32
    assert nearest_distance(torch.zeros(2, 1, 28, 28), torch.ones(3, 1, 28, 28)) == pytest.approx(1.0)


def test_the_tools_table_names_every_class(judges: Judges, renderer: AbsorptionRenderer, training: ImageSet):
    path = Path(__file__).parents[1] / "tools" / "score_views.py"
    spec = importlib.util.spec_from_file_location("score_views_tool", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    score = score_pictures(training.images[:50], judges)
    card = Scorecard({"sphere": score}, score, judges.class_names, judges.version)
    lines = tool.table(card).splitlines()
    assert lines[0].split() == ["sphere", "real", "pictures"]
    assert len(lines) == 1 + len(tool.ROWS) + 10
    assert any(line.startswith("Frechet distance") and "-" in line for line in lines)  # not asked for here
