"""Checkpoints: what is let in, what falls back to the one before, and that a killed writer loses nothing."""

import copy
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_mutants import (  # pyright: ignore[reportMissingImports]
    HUGE,
    REFUSED,
    TAKEN,
    at_random,
    read,
    same,
    written,
)
from test_trainer import bars
from trainers import adversarial_of, make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d import load_run
from mnist3d.callbacks.checkpoints import Checkpoints
from mnist3d.callbacks.pictures import Pictures
from mnist3d.callbacks.scores import Scores
from mnist3d.callbacks.statistics import Statistics
from mnist3d.cli.parser import parse_command_line
from mnist3d.errors import ConfigError, NotSaved, RunError, VolumeFileError
from mnist3d.evaluation.classifiers import ARCHITECTURES, Classifiers
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.archive import read_archive
from mnist3d.runs.checkpoint import largest, load_checkpoint
from mnist3d.runs.session import sculpt
from mnist3d.storage import last_two
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.training.options import Interval, TrainerOptions
from mnist3d.training.report import StepReport
from mnist3d.volumes import VoxelGrid, load_volume, read_description

QUIET = ["--viewer.enabled", "false", "--scorecard.every", "0"]
TINY = ["--trainer.views", "4", "--volume.resolution", "8", "--data.limit", "40", *QUIET]


def make(volume=None, **options):
    torch.manual_seed(0)
    volume = VoxelGrid(6, pyramid=[]) if volume is None else volume
    settings = TrainerOptions(**{"max_steps": 30, "views": 2, **options})
    return make_trainer(volume, AbsorptionRenderer(16), bars(count=12), settings)


@pytest.fixture(scope="module")
def saved() -> bytes:
    """A checkpoint of step 3."""
    trainer = make()
    for _ in range(3):
        trainer.step()
    return written(trainer.state_dict())


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path)


def loaded(run, content):
    """A trainer that goes on from such a file."""
    run.resume_path.write_bytes(content)
    trainer = make()
    load_checkpoint(trainer, run)
    return trainer


def test_a_bytearray_of_any_length_takes_no_memory(saved, run):
    """Python's unpickler makes it first, of a gigabyte here, and then looks for what is in it."""
    with pytest.raises(RunError, match="holds a bytearray"):
        loaded(run, REFUSED["bytearray of no end"](saved))


# ---- what is let in ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_checkpoint_is_refused_in_one_line(name, saved, run):
    with pytest.raises(RunError, match=r"resume\.pt: damaged, or of other options \(.+\); start a new run") as error:
        loaded(run, REFUSED[name](saved))
    assert "\n" not in str(error.value)


def test_an_entry_before_the_beginning_is_damage_and_no_fault_of_the_disk(saved, tmp_path):
    (tmp_path / "resume.pt").write_bytes(REFUSED["an entry before its beginning"](saved))
    with pytest.raises(ValueError, match="entries outside it"):
        read_archive(tmp_path / "resume.pt", 2**30)


def test_a_checkpoint_is_in_memory_once(tmp_path):
    """As its tensors; what Python holds beside them is a piece of the file at a time."""
    state = {"numbers": torch.randn(2**23), "few": torch.arange(5), "plain": [1.5, None]}  # 32 MiB
    torch.save(state, tmp_path / "resume.pt")
    tracemalloc.start()  # what PyTorch takes for tensors is not counted
    try:
        found = read_archive(tmp_path / "resume.pt", 2**30)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**23
    assert torch.equal(found["numbers"], state["numbers"])
    assert torch.equal(found["few"], state["few"])
    assert found["plain"] == state["plain"]


def test_a_changed_bit_among_many_numbers_is_damage(tmp_path):
    torch.save({"numbers": torch.zeros(2**18)}, tmp_path / "resume.pt")
    content = bytearray((tmp_path / "resume.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "resume.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        read_archive(tmp_path / "resume.pt", 2**30)


@pytest.mark.parametrize("name", TAKEN)
def test_what_no_run_believes_a_file_changes_nothing(name, saved, run):
    """Two more steps are the same to the bit, and each tensor lies in memory as the run's own did."""
    whole, found = make(), loaded(run, TAKEN[name](saved))
    whole.load_state_dict(read(saved))
    for trainer in (whole, found):
        trainer.step()
        trainer.step()
    assert same(whole.state_dict(), found.state_dict())
    for one, other in zip(whole.objectives.parameters(), found.objectives.parameters(), strict=True):
        assert one.stride() == other.stride()
    group = found.volume_optimiser.param_groups[0]
    assert (group["fused"], group["amsgrad"], group["maximize"], group["betas"]) == (True, False, False, (0.0, 0.99))
    for parameter, kept in found.volume_optimiser.state.items():
        assert kept["exp_avg"].dtype == parameter.dtype
        assert kept["exp_avg_sq"].stride() == parameter.stride()


def test_forty_more_at_random(saved, run):
    """Refused in one line, or the run takes two steps; more of them in tests/faults/checkpoints.py."""
    lines = []
    for seed in range(40):
        _, content = at_random(saved, seed)
        try:
            trainer = loaded(run, content)
        except RunError as error:
            lines.append(f"{error}")
        else:
            trainer.step()
            trainer.step()
    assert 10 < len(lines) < 40
    assert not any("\n" in line for line in lines)


def test_a_file_of_ten_gigabytes_is_not_read(run):
    trainer = make()
    assert largest(trainer) < 100 * 2**20
    with open(run.resume_path, "wb") as file:
        file.truncate(HUGE)  # a hole, which takes no room on the disk
    with pytest.raises(RunError, match=r"holds more than 6\d\.?\d* MiB"):
        load_checkpoint(trainer, run)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_checkpoint(run):
    os.mkfifo(run.resume_path)
    with pytest.raises(RunError, match="is a named pipe"):
        load_checkpoint(make(), run)


def test_a_volume_that_grows_may_have_a_larger_checkpoint():
    growing = VoxelGrid(24, pyramid=[], grow_at=[0.3, 0.6])
    small, final = largest(make(growing)), largest(make(VoxelGrid(24, pyramid=[])))
    assert final <= small < 1.1 * final


# ---- the last two -----------------------------------------------------------------------------------------------
def steps_in(run) -> dict[str, int]:
    """The step of each file that can be read; a damaged one is an error."""
    found = {}
    for path in sorted(run.path.glob("resume*")):
        found[path.name] = torch.load(path, weights_only=True)["steps_done"]
    for path in sorted(run.path.glob("volume*")):
        load_volume(path)
        found[path.name] = read_description(path)["step"]
    return found


def pairs(newest, before):
    names = (("resume", "pt"), ("volume", "safetensors"))
    new = {f"{stem}.{suffix}": newest for stem, suffix in names}
    return new if before is None else {**new, **{f"{stem}.previous.{suffix}": before for stem, suffix in names}}


def test_the_last_two_of_each_are_kept(run):
    trainer = make(max_steps=7)
    trainer.run([Checkpoints(run, "2steps")])
    assert steps_in(run) == pairs(7, 6)
    description = read_description(run.volume_path)
    assert description["complete"] is True
    assert "seconds" not in description  # the same run is the same file
    assert read_description(last_two.previous(run.volume_path))["complete"] is False


def test_a_run_limited_by_minutes_says_how_long_it_took(run):
    trainer = make(max_steps=None, max_minutes=9.0, stop_after=2)
    trainer.run([Checkpoints(run)])
    description = read_description(run.volume_path)
    assert description["complete"] is False
    assert 0.0 < description["seconds"] == torch.load(run.resume_path, weights_only=True)["seconds_done"]


def test_a_second_save_at_one_step_is_no_second_version(run):
    """The last step of the run was just saved when the run ends."""
    make(max_steps=6).run([Checkpoints(run, "2steps")])
    assert steps_in(run) == pairs(6, 4)


class KilledError(BaseException):
    """As kill -9 would: at once."""


@pytest.mark.parametrize("linked", [True, False])
def test_a_writer_killed_at_any_moment_leaves_a_good_pair(run, tmp_path, monkeypatch, linked):
    """Before and after each rename and each link there is a pair of one step, and what has a name is whole."""
    trainer, saver = make(), Checkpoints(run, "1steps")
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    moments = 0
    left: list[int | None] = [None]  # before it is killed

    def watched(real):
        def act(*arguments, **more):
            nonlocal moments
            if left[0] is not None:
                if left[0] == 0:
                    raise KilledError
                left[0] -= 1
            moments += 1
            return real(*arguments, **more)

        return act

    for name in ("replace", "link", "fsync"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    for _ in range(2):
        saver.after_step(trainer, trainer.step())
    saver.begin(trainer)
    assert steps_in(run) == pairs(2, 1)
    moments = 0
    saver.after_step(trainer, trainer.step())
    assert steps_in(run) == pairs(3, 2)
    count, met = moments, set()
    assert count >= 8
    shutil.copytree(tmp_path, tmp_path.with_suffix(".whole"))
    for moment in range(count):
        shutil.rmtree(tmp_path)
        shutil.copytree(tmp_path.with_suffix(".whole"), tmp_path)
        state = copy.deepcopy(trainer.state_dict())
        left[0] = moment
        with pytest.raises(KilledError):
            saver.after_step(trainer, trainer.step())
        left[0] = None
        found = steps_in(run)
        resumed, shown = found["resume.pt"], found["volume.safetensors"]
        assert {resumed, shown} <= {3, 4}
        whole = {found[f"resume{which}.pt"] for which in ("", ".previous")}
        assert whole & {found[f"volume{which}.safetensors"] for which in ("", ".previous")}, found
        met.add(tuple(found.values()))
        again = make()
        load_checkpoint(again, run)
        assert again.steps_done == resumed
        trainer.load_state_dict(state)
        saver.saved = 3
    assert len(met) > 3  # it was killed between the renames too


def no_links(*_, **__):
    raise PermissionError("no hard links here")


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A run of twelve steps that nothing happened to."""
    path = tmp_path_factory.mktemp("whole") / "run"
    return RunDirectory(sculpt(parse_command_line([*TINY, "--trainer.max_steps", "12", "--run_dir", str(path)])))


@pytest.mark.parametrize("hurt", [damaged, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_falls_back_and_ends_the_same_to_the_bit(hurt, twelve, run, caplog):
    options = ["--trainer.max_steps", "12", "--trainer.stop_after", "9", "--trainer.save_every", "4steps"]
    sculpt(parse_command_line([*TINY, *options, "--run_dir", str(run.path)]))
    assert steps_in(run) == pairs(9, 8)
    run.append_stats({"step": 9, "made": "up"})
    hurt(run.resume_path)
    going_on = ["--trainer.stop_after", "null", "--trainer.save_every", "600s"]
    caplog.clear()
    sculpt(parse_command_line(["--resume", str(run.path), *going_on, *QUIET]))
    (line,) = [record.getMessage() for record in caplog.records if "resume" in record.getMessage()]
    assert line.endswith("going on from resume.previous.pt of step 8")
    assert "\n" not in line
    assert same(read(run.resume_path.read_bytes()), read(twelve.resume_path.read_bytes()))
    assert load_run(run.path).origin["step"] == 12
    # what was damaged has not taken the place of the good one
    assert torch.load(last_two.previous(run.resume_path), weights_only=True)["steps_done"] == 8
    assert '"made"' not in (run.path / "stats.jsonl").read_text()
    assert [json.loads(line)["step"] for line in (run.path / "stats.jsonl").read_text().splitlines()] == [12]


def test_both_damaged_is_said_and_nothing_changes(run, saved):
    run.resume_path.write_bytes(saved[:1000])
    last_two.previous(run.resume_path).write_bytes(saved[:2000])
    with pytest.raises(RunError, match=r"resume\.pt: damaged.*and so is resume\.previous\.pt \(.+\)") as error:
        load_checkpoint(make(), run)
    assert "\n" not in str(error.value)
    assert len(run.resume_path.read_bytes()) == 1000


def test_the_one_before_may_be_of_another_resolution(run, caplog):
    """The newest is of the finer grid, and fails only when the volume has taken it."""

    def growing():
        return make(VoxelGrid(8, pyramid=[], grow_at=[4]))

    trainer = growing()
    for _ in range(3):
        trainer.step()
    coarse = written(trainer.state_dict())
    for _ in range(3):
        trainer.step()
    state = trainer.state_dict()
    state["volume_optimiser"]["state"][0]["exp_avg"] = torch.zeros(2, 4, 4, 4)
    run.resume_path.write_bytes(written(state))
    last_two.previous(run.resume_path).write_bytes(coarse)
    again, whole = growing(), growing()
    load_checkpoint(again, run)
    whole.load_state_dict(read(coarse))
    assert (again.steps_done, again.volume.resolution) == (3, (4, 4, 4))
    for each in (again, whole):
        for _ in range(3):
            each.step()
    assert again.volume.resolution == (8, 8, 8)
    assert same(again.state_dict(), whole.state_dict())
    assert "volume_optimiser.state.0.exp_avg is of shape (2, 4, 4, 4), must be (2, 8, 8, 8)" in caplog.text


def test_a_damaged_volume_is_not_shown_but_the_one_before(twelve, tmp_path, caplog):
    run = RunDirectory(shutil.copytree(twelve.path, tmp_path / "copy"))
    run.volume_path.rename(last_two.previous(run.volume_path))
    run.volume_path.write_bytes(b"damaged")
    found = load_run(run.path)
    assert found.origin["step"] == 12
    assert "volume.safetensors: not a volume file" in caplog.text
    assert "showing volume.previous.safetensors of step 12" in caplog.text
    damaged_too = last_two.previous(run.volume_path)
    damaged_too.write_bytes(b"damaged too")
    with pytest.raises(VolumeFileError, match=r"volume\.safetensors"):
        load_run(run.path)


# ---- nothing that is no number ----------------------------------------------------------------------------------
def poison(trainer, part):
    state = trainer.state_dict()
    with torch.no_grad():
        if part == "optimiser":
            next(iter(trainer.volume_optimiser.state.values()))["exp_avg_sq"].view(-1)[:2] = float("nan")
        elif part == "penalty":
            adversarial_of(trainer)._last_penalty = float("inf")
        elif part == "discriminator":
            state["objectives"]["adversarial.discriminator.score.bias"].fill_(float("nan"))
        else:
            state[part]["levels.0"].view(-1)[:2] = float("nan")


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("volume", "volume.levels.0 holds 2 NaN"),
        ("averaged", "averaged.levels.0 holds 2 NaN"),
        ("optimiser", "volume_optimiser.state.0.exp_avg_sq holds 2 NaN"),
        ("discriminator", "objectives.adversarial.discriminator.score.bias holds 1 NaN"),
        ("penalty", "objectives.adversarial._extra_state.last_penalty holds 1 Inf"),
    ],
)
def test_a_state_that_is_not_finite_is_in_no_file(part, named, run):
    trainer, said = make(), []
    saver = Checkpoints(run, "1steps", said.append)
    saver.begin(trainer)
    saver.after_step(trainer, trainer.step())
    files = {path.name: path.read_bytes() for path in run.path.iterdir()}
    report = trainer.step()
    poison(trainer, part)
    for _ in range(3):
        saver.after_step(trainer, report)
    line = f"step 2: {named}; not saved, the checkpoint of step 1 stays"
    assert said == [line]
    with pytest.raises(NotSaved) as error:
        saver.finish(trainer)
    assert str(error.value) == line
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == files


def test_scores_and_pictures_of_a_nan_hold_none(run):
    """With the watchdog off they are made of whatever the volume has become."""
    trainer = make()
    with torch.no_grad():
        for part in (trainer.volume, trainer.averaged):
            part.get_parameter("levels.0").fill_(float("nan"))
    report = StepReport(500, 1.0, {"volume_loss": float("nan"), "class_shares": [float("nan"), float("inf")]})
    readers = [build(3).eval().requires_grad_(False) for build in ARCHITECTURES]
    classifiers = Classifiers(readers, ["upright", "lying"], "untaught")
    callbacks = [Statistics(run), Pictures(run), Scores(run, classifiers, 1)]
    for callback in callbacks:
        callback.after_step(trainer, report)
        callback.finish(trainer)
    assert {path.name for path in (run.path / "pictures").iterdir()} >= {"views.png", "turntable.png"}

    def refuse(word):
        raise AssertionError(word)

    lines = (run.path / "stats.jsonl").read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        json.loads(line, parse_constant=refuse)


def test_infinities_that_a_run_began_with_are_saved_and_resumed(run):
    """Attenuation 0 is softplus(-inf): empty voxels of a file."""
    array = torch.zeros(2, 6, 6, 6)
    array[:, 2:4, 2:4, 2:4] = 0.5
    trainer = make(VoxelGrid.from_array(array), max_steps=4, stop_after=2)
    trainer.run([Checkpoints(run)])
    again = make(VoxelGrid.from_array(array), max_steps=4)
    load_checkpoint(again, run)
    assert same(again.state_dict(), trainer.state_dict())
    assert again.volume.get_parameter("levels.0").isinf().sum() > 100
    again.run([saver := Checkpoints(run)])
    assert saver.saved == 4


def test_every_callback_finishes_and_the_first_error_counts(caplog):
    class Failing:
        def __init__(self, error, at_step=False):
            self.error, self.at_step, self.finished = error, at_step, False

        def after_step(self, trainer, report):
            if self.at_step:
                raise self.error

        def finish(self, trainer):
            self.finished = True
            raise self.error

    first, second = Failing(OSError("disk full"), at_step=True), Failing(ValueError("second"))
    with pytest.raises(OSError, match="disk full"):
        make().run([second, first])
    assert (first.finished, second.finished) == (True, True)
    assert "second" in caplog.text


# ---- the option -------------------------------------------------------------------------------------------------
def test_an_interval_is_of_seconds_or_of_steps():
    assert Interval.of("60s") == Interval.of("60 s") == Interval(60.0, None)
    assert Interval.of("1.5m") == Interval.of("1.5 min") == Interval(90.0, None)
    assert Interval.of("2h") == Interval(7200.0, None)
    assert Interval.of("500steps") == Interval.of("500 steps") == Interval(None, 500)
    assert [step for step in range(1, 10) if Interval.of("3steps").is_over(1e9, step)] == [3, 6, 9]
    assert [seconds for seconds in (0.4, 0.5, 9.0) if Interval.of("0.5s").is_over(seconds, 1)] == [0.5, 9.0]


@pytest.mark.parametrize(
    "wrong", ["60", "0s", "0steps", "-5s", "1e3s", "inf s", "2.5steps", "60 minutes", "", "s", "5d"]
)
def test_an_interval_needs_a_unit_and_a_number(wrong):
    with pytest.raises(
        ConfigError, match=r"^trainer\.save_every=.*: must be a number > 0 with its unit, such as"
    ) as error:
        parse_command_line([f"--trainer.save_every={wrong}"])
    assert "\n" not in str(error.value)


def test_an_objective_whose_memory_nobody_could_load_again_is_refused_before_the_first_step(run):
    trainer = make()
    trainer.each_objective()[0].get_extra_state = lambda: {"best": np.float64(1.0)}
    with pytest.raises(ConfigError, match=r"_extra_state\.best: is a numpy\.float64; what is saved must be tensors"):
        trainer.run([Checkpoints(run)])
    assert trainer.steps_done == 0
    assert list(run.path.iterdir()) == []
