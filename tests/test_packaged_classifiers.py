"""The evaluation classifiers that come with the package: which data has them, and what becomes of a damaged file.

What they read, and how far they agree with unrounded ones, is learned quality: `benchmarks/packaged_classifiers.py`.
"""

import logging
import os
import shutil

import pytest
import torch
from test_trainer import bars
from torch import nn
from trainers import make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.callbacks.classifier_training import ClassifierTraining
from mnist3d.callbacks.scores import ScorecardOptions, Scores, find_classifiers
from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions
from mnist3d.evaluation import cached_classifiers, classifiers, load_classifiers, packaged
from mnist3d.evaluation.networks import ARCHITECTURES
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes.voxel_grid import VoxelGrid


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """As in a first run: nothing in the user's cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(classifiers.platformdirs, "user_cache_path", lambda name: folder)
    return folder


@pytest.fixture(scope="module")
def held_out():
    """What the classifiers of a default run are trained on."""
    images = load_images(DataOptions(), 28, "held_out")
    return images.images, images.labels, images.class_names


def test_they_are_of_todays_data_and_recipe(held_out):
    """Who changes either trains them again: `benchmarks/packaged_classifiers.py --write`."""
    assert classifiers.prepare(*held_out, cache_folder=None, steps=classifiers.STEPS).version == packaged.VERSION
    assert packaged.FILE.stat().st_size < packaged.MAX_FILE == 700_000


def test_a_first_run_on_the_default_digits_has_them(held_out, empty_cache, monkeypatch, capsys):
    monkeypatch.setattr(classifiers, "trained_networks", None)  # whoever trains fails
    found = find_classifiers(ScorecardOptions(), DataOptions(), 28, print)
    again = load_classifiers(*held_out)
    assert isinstance(found, classifiers.Classifiers)
    assert (found.version, found.class_names) == (packaged.VERSION, [str(digit) for digit in range(10)])
    assert capsys.readouterr().err == ""
    assert not empty_cache.exists()
    one, other = (each.read(held_out[0][:40]) for each in (found, again))
    assert torch.equal(one.confidence, other.confidence)
    assert torch.equal(one.features, other.features)


@pytest.mark.parametrize(("options", "size"), [(DataOptions(), 32), (DataOptions(limit=500), 28)])
def test_other_images_have_none_and_their_training_waits_for_the_run(options, size, capsys):
    assert isinstance(found := find_classifiers(ScorecardOptions(), options, size, print), ClassifierTraining)
    assert (found.state, found.take()) == ("waiting", None)
    assert capsys.readouterr() == ("", "")


def test_a_folder_that_is_given_stands_for_package_and_cache(held_out, tmp_path):
    assert cached_classifiers(*held_out, cache_folder=tmp_path) is None


def change_a_byte(content):
    """One bit of the last weight: it would load without a complaint."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage", [change_a_byte, lambda content: content[:-9], lambda _: b"", lambda _: b"0" * 700_001]
)
def test_a_tampered_file_is_refused_with_a_word_and_the_cache_used(damage, held_out, tmp_path, monkeypatch, caplog):
    cached = classifiers.prepare(*held_out, cache_folder=None, steps=classifiers.STEPS)
    file = tmp_path / "classifiers.safetensors"
    file.write_bytes(damage(packaged.FILE.read_bytes()))
    monkeypatch.setattr(packaged, "FILE", file)
    with caplog.at_level(logging.WARNING):
        assert cached_classifiers(*held_out) is None
        torch.manual_seed(3)
        networks = [build(cached.outputs) for build in ARCHITECTURES]
        classifiers.store(classifiers.packed_weights(networks), cached.path)
        found = cached_classifiers(*held_out)
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [f"{file}: damaged classifiers"] * 2
    assert found is not None
    assert torch.equal(found.networks[0].state_dict()["head.weight"], networks[0].state_dict()["head.weight"])


@pytest.mark.parametrize("kind", ["missing", "pipe"])
def test_what_is_no_file_is_refused_without_waiting(kind, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(packaged, "FILE", tmp_path / "file")
    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes")
        os.mkfifo(tmp_path / "file")
    assert packaged.packaged_weights(packaged.VERSION) is None
    assert "damaged classifiers" in caplog.text
    caplog.clear()
    assert packaged.packaged_weights("another") is None
    assert caplog.text == ""  # nobody asked for these


def test_rounded_weights_have_their_shapes_and_types_and_are_near():
    torch.manual_seed(0)
    weights = nn.ModuleList([build(11) for build in ARCHITECTURES]).state_dict()
    weights["0.head.weight"][2] = 0.0  # a row without a scale
    content = packaged.packed(weights)
    again = packaged.unpacked(content)
    assert len(content) < packaged.MAX_FILE
    assert content == packaged.packed(weights)
    assert again.keys() == weights.keys()
    for name, value in weights.items():
        assert (again[name].shape, again[name].dtype) == (value.shape, value.dtype)
        if value.dim() < 2:
            assert torch.equal(again[name], value)
            continue
        step = value.flatten(1).abs().amax(dim=1) / 127.0
        error = (again[name] - value).flatten(1).abs().amax(dim=1)
        assert (error <= 0.501 * step).all()  # half a step, and float32 rounding
        if value.numel() > 100:
            assert float(error.max()) > 0.0


def test_scores_draw_none_of_a_runs_random_numbers(held_out, tmp_path):
    """So that a run is the same, to the bit, with scores and without."""
    volumes = []
    for name in ("plain", "scored"):
        torch.manual_seed(0)
        trainer = make_trainer(
            VoxelGrid(6), AbsorptionRenderer(16), bars(count=12), TrainerOptions(max_steps=2, views=2)
        )
        if name == "plain":
            trainer.run([])
        else:
            found = cached_classifiers(*held_out)
            assert found is not None
            trainer.run([Scores(RunDirectory(tmp_path), found, 2)])
            assert '"legible"' in (tmp_path / "stats.jsonl").read_text()
        volumes.append((trainer.volume.state_dict(), torch.get_rng_state()))
    (plain, plain_state), (scored, scored_state) = volumes
    assert torch.equal(plain_state, scored_state)
    assert all(torch.equal(value, scored[key]) for key, value in plain.items())


def test_classifiers_of_the_cache_draw_none_either(held_out, tmp_path):
    cached = classifiers.prepare(*held_out, cache_folder=tmp_path, steps=classifiers.STEPS)
    shutil.copy(packaged.FILE, cached.path)  # damaged, as it is packed: found to be so after the networks are built
    before = torch.get_rng_state()
    assert cached_classifiers(*held_out, cache_folder=tmp_path) is None
    assert torch.equal(torch.get_rng_state(), before)
