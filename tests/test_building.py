"""From a configuration to the parts of a run: which, in which order, and what is refused before a folder appears."""

import numpy as np
import pytest
import torch

from mnist3d.callbacks.watchdog import Watchdog
from mnist3d.cli.parser import parse_command_line
from mnist3d.errors import ConfigError
from mnist3d.export import export_voxels
from mnist3d.runs import building
from mnist3d.runs.building import build_classifiers, build_run, build_trainer
from mnist3d.runs.session import sculpt
from mnist3d.volumes import SparseGrid

TINY = ["--trainer.views", "4", "--data.limit", "40", "--volume.resolution", "8", "--trainer.max_steps", "3"]
QUIET = ["--viewer.enabled", "false", "--scorecard.every", "0"]


def config(*arguments):
    return parse_command_line([*TINY, *QUIET, *arguments]).config


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], True),
        (["--config", "counter"], True),  # digits are classes of the data
        (["--config", "letters"], False),
        (["--config", "letters", "--adversarial.weight", "1"], True),  # digits from everywhere else
    ],
)
def test_judges_are_asked_for_where_they_can_read_something(arguments, asked, monkeypatch, capsys):
    found = []
    monkeypatch.setattr(building, "find_classifiers", lambda *given: found.append(given))
    assert build_classifiers(config(*arguments, "--scorecard.every", "10"), print) is None
    assert bool(found) == asked
    assert ("its targets are letters or image files" in capsys.readouterr().err) != asked


@pytest.mark.parametrize(("action", "first"), [("off", "Progress"), ("warn", "Watchdog"), ("rewind", "Watchdog")])
def test_what_watches_a_run_and_in_which_order(action, first, tmp_path):
    parts = build_run(parse_command_line([*TINY, *QUIET, "--watchdog", action, "--run_dir", str(tmp_path / "run")]))
    written = sorted(path.name for path in (tmp_path / "run").iterdir() if path.name != ".lock")
    parts.run.release()
    names = [type(each).__name__ for each in parts.callbacks]
    assert names[0] == first
    assert names[-4:] == ["Progress", "Statistics", "Pictures", "Checkpoints"]
    assert parts.page is None
    for each in parts.callbacks:
        if isinstance(each, Watchdog):
            assert each.acts == (action == "rewind")
    assert written == ["config.yaml", "environment.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--adversarial.weight", "0"], "adversarial.weight=0: without targets nothing would move"),
        (["--start_from", "gone.npz"], "start_from=gone.npz: no such file"),
        (["--renderer.image_size", "4"], "image_size=4: the discriminator needs"),
        (["--class_balance.weight", "1", "--poses.sphere_share", "0"], "class_balance.weight=1"),
        (["--volume.initial_opacity", "2"], "volume.initial_opacity=2"),
    ],
)
def test_what_is_refused_leaves_no_folder(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        build_run(parse_command_line([*TINY, *QUIET, *arguments, "--run_dir", "run"]))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_starts_from_a_file_shows_it_at_once_and_only_a_grid_can(tmp_path):
    values = torch.rand(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    values[0] *= 5.0
    export_voxels(values.numpy(), tmp_path / "start.npz")
    start = ["--start_from", str(tmp_path / "start.npz")]
    trainer = build_trainer(config(*start))
    grid = trainer.volume.dense()
    assert grid is not None
    torch.testing.assert_close(grid, values, rtol=2e-2, atol=2e-2)  # raw values end at +-8
    plain = build_trainer(config(*start), resumed=True).volume.dense()  # its weights will come from a checkpoint
    assert plain is not None
    assert (plain - values).abs().max() > 1.0
    with pytest.raises(ConfigError, match=r"start_from=.*a VMGrid cannot start from voxels; a VoxelGrid can"):
        build_trainer(config(*start, "--volume", "VMGrid"))


def test_the_same_seed_builds_the_same_and_another_one_another():
    first, again, other = (build_trainer(config("--seed", seed)).volume.state_dict() for seed in ("1", "1", "2"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("more", [[], ["--trainer.stop_after", "2"]])
def test_only_a_run_that_is_not_complete_says_how_to_go_on(more, tmp_path, capsys):
    run = sculpt(parse_command_line([*TINY, *QUIET, *more, "--run_dir", str(tmp_path / "run")]))
    said = capsys.readouterr()
    assert ("go on with" in said.err) == bool(more)
    assert not more or f"go on with: mnist3d train --resume {run} --viewer.enabled false\n" in said.err
    assert f"Look at it: mnist3d view {run}\n" in said.out


def test_blocks_taken_from_a_file_go_on_as_those_of_the_run(tmp_path, monkeypatch):
    """Of which the first stage has fewer than the file."""
    monkeypatch.chdir(tmp_path)
    ball = np.zeros((32, 32, 32), np.float32)
    ball[4:28, 4:28, 4:28] = 3.0
    np.save("ball.npy", ball)
    grid = ["--volume", "SparseGrid", "--volume.resolution", "32", "--volume.grow_at", "[.3]", "--volume.prune_at"]
    words = ["--trainer.views", "2", "--data.limit", "40", "--trainer.max_steps", "2", *QUIET, *grid, "[.6]"]
    flags = ["--start_from", "ball.npy", "--trainer.stop_after", "1", "--run_dir", "run"]
    first = build_run(parse_command_line([*words, *flags]))
    arguments, blocks = first.config.volume["init_args"], len(first.trainer.volume.state_dict()["places"])
    first.run.release()
    assert blocks > len(SparseGrid(16).places)
    assert (arguments["grow_at"], arguments["prune_at"], arguments["blocks"]) == ([0.3], [0.6], None)
    again = build_trainer(first.config, resumed=True)  # as after --resume, and in a further process
    again.load_state_dict(first.trainer.state_dict())
    again.step()
    assert again.volume.init_args["grow_at"] == []
    assert len(again.volume.state_dict()["places"]) == blocks
