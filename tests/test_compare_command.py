"""`mnist3d compare` as somebody types it, over made-up sessions: what is written, how it goes on, and how it ends."""

import csv
import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_compare import Says, outcome  # pyright: ignore[reportMissingImports]
from test_sweep import Sessions, run_of, save  # pyright: ignore[reportMissingImports]

from mnist3d.cli import compare, compare_child
from mnist3d.cli.parser import parse_command_line
from mnist3d.comparisons import figure, measuring, report
from mnist3d.comparisons.measuring import Measured, Measuring
from mnist3d.comparisons.options import CompareOptions
from mnist3d.comparisons.warming_up import one_step_each
from mnist3d.data.images import ImageSet
from mnist3d.errors import ConfigError, DataError
from mnist3d.evaluation import Classifiers
from mnist3d.evaluation import scores as scorecard
from mnist3d.runs import building
from mnist3d.runs.config import Config
from mnist3d.sweeps import local
from mnist3d.sweeps.folder import SweepFolder
from mnist3d.sweeps.jobs import Job, Outcome
from mnist3d.sweeps.local import LocalExecutor
from mnist3d.sweeps.selection import Selection
from mnist3d.volumes import VoxelGrid

THIRD_PARTY = Path(__file__).parent / "third_party"


class Trained(Sessions):
    """Sessions that leave what a run leaves beside its volume: its configuration and its records."""

    def __init__(self, places: int) -> None:
        super().__init__(places)
        self.steps: list[tuple[Job, Config]] = []  # the processes that made a step, and of what
        self.ends: dict[str, tuple[int, str]] = {}  # how that of a run ends: its code and its last line
        self._stepping: list[Job] = []

    def submit(self, job: Job) -> None:
        if job.module != compare.STEP:
            super().submit(job)
            return
        self._stepping.append(job)
        assert len(self._stepping) <= self.places
        self.steps.append((job, parse_command_line(job.words).config))

    def poll(self) -> Any:
        if self._stepping:
            job = self._stepping.pop()
            return [Outcome(job.name, *self.ends.get(job.name, (0, "")))]
        found = super().poll()
        for job in (job for job in self.jobs if job.name in {each.name for each in found}):
            (config,) = [word.partition("=")[2] for word in job.words if word.startswith("--config=")]
            if run_of(job).is_dir():
                shutil.copy(config, run_of(job) / "config.yaml")
                lines = [
                    {"step": 50, "legible": 0.5, "clean": 0.0, "effective_classes": 1.0, "seconds": 30.0},
                    {"step": 100, "progress": 1.0, "seconds": 60.0, "peak_memory": 2**30},
                ]
                (run_of(job) / "stats.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return found


@pytest.fixture
def sessions(monkeypatch, tmp_path) -> Trained:
    executor = Trained(2)
    few = ImageSet(torch.rand(12, 1, 28, 28), torch.arange(12) % 2, ["a", "b"])
    monkeypatch.setattr(compare, "executor_of", lambda *_: executor)
    monkeypatch.setattr(measuring, "VIEWS", 6)
    monkeypatch.setattr(measuring, "TURN_VIEWS", 4)
    monkeypatch.setattr(measuring, "load_images", lambda *_: few)
    monkeypatch.setattr(measuring, "load_classifiers", lambda *_, **__: Classifiers([Says(), Says()], ["a", "b"], "v"))
    versions = {"packages": {"torch": "2", "numba": "1"}, "git_commit": None, "python": "3"}
    monkeypatch.setattr(report, "environment", lambda device: versions)  # git takes a second
    for module in (measuring, scorecard):  # no kernel is loaded: what views look like is of no interest here
        monkeypatch.setattr(module, "render_views", lambda volume, renderer, poses: torch.zeros(len(poses), 1, 28, 28))
    monkeypatch.setattr(figure, "learning_curves", lambda *args: np.zeros((args[4], args[3], 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(THIRD_PARTY)
    return executor


WORDS = ["--volumes", "VoxelGrid,glass_beads.Beads", "--steps", "100", "--seeds", "0,1"]


def test_a_class_of_others_beside_ours_and_the_same_command_does_nothing_again(tmp_path, capsys, sessions):
    code, out, err = outcome(WORDS, capsys)
    assert code == 0, err
    folder = tmp_path / "comparisons" / "VoxelGrid-glass_beads.Beads-100_steps"
    assert f"4 runs of 100 steps, 2 at a time, 1 core each; into {folder.relative_to(tmp_path)}" in err
    assert {path.name for path in folder.iterdir()} == {
        *("comparison.yaml", "comparison.csv", "comparison.md", "comparison.png"),
        *("runs", "configs", "logs", "state.json", "table.csv", ".lock"),
    }
    assert [line.split()[0] for line in out.splitlines()] == ["variant", "VoxelGrid", "Beads", "The"]
    assert out.splitlines()[1].split()[1:4] == ["1.00", "1.00", "1.0"]  # all views read as one of two classes
    config = parse_command_line(sessions.jobs[1].words).config
    assert config.volume["class_path"] == "glass_beads.beads.Beads"
    with open(folder / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seconds_to_half"] for row in rows] == ["30"] * 10
    assert rows[-1]["path"] == "runs/004-Beads-seed_1"
    page = (folder / "comparison.md").read_text()
    assert "| VoxelGrid | `digits` | 1.00 | 1.00 | 1.0 |" in page
    typed = "mnist3d compare --volumes VoxelGrid,glass_beads.Beads --steps 100 --seeds 0,1"
    assert f"`{typed}`" in page
    assert "100 steps of training a run, seeds 0, 1; 1 core a run, 2 at a time." in page
    assert "(euler_normal), read by the scorecard's classifiers (`v`)" in page
    assert (folder / "runs" / "001-VoxelGrid-seed_0" / "scorecard.json").is_file()
    assert outcome(WORDS, capsys)[:2] == (0, out)
    assert len(sessions.jobs) == 4
    code, _, err = outcome([*WORDS[:-1], "0", "--output", str(folder)], capsys)
    assert (code, "holds a comparison with another seeds; give another --output FOLDER" in err) == (2, True)
    code, _, err = outcome(["--resume", str(folder)], capsys)
    assert code == 2
    assert "imports glass_beads.beads.Beads; go on with the command that names it, and --output" in err


def test_a_run_that_fails_stops_no_other_and_is_tried_again(tmp_path, capsys, sessions):
    sessions.fates = {"run2": [(2, 0)]}
    words = ["--vary", "adversarial.pairing=relativistic,hinge,wasserstein", "--steps", "100", "--seeds", "7"]
    code, out, err = outcome([*words, "--output", "here"], capsys)
    assert code == 1
    assert err.splitlines()[-1].startswith("mnist3d: 1 of 3 runs failed (002-pairing_hinge-seed_7: said 2)")
    assert out.splitlines()[2].split() == ["pairing", "hinge", *"-" * 9]
    page = (tmp_path / "here" / "comparison.md").read_text()
    assert "- 002-pairing_hinge-seed_7: said 2" in page
    (tmp_path / "here" / "runs" / "003-pairing_wasserstein-seed_7" / "volume.safetensors").write_bytes(b"damaged")
    code, out, err = outcome(["--resume", "here", "--at_once", "1"], capsys)
    assert [job.name for job in sessions.jobs[3:]] == ["002-pairing_hinge-seed_7"]
    assert code == 1
    assert "(003-pairing_wasserstein-seed_7: " in err.splitlines()[-1]  # it could not be measured
    assert out.splitlines()[2].split()[2:4] == ["1.00", "1.00"]


def interrupted(self: Any, job: Any) -> None:
    raise KeyboardInterrupt


def test_a_stopped_comparison_says_how_it_goes_on(capsys, sessions, monkeypatch):
    monkeypatch.setattr(Trained, "submit", interrupted)
    code, _, err = outcome([*WORDS, "--output", "a b"], capsys)
    assert code == 130
    assert "go on with: " in err
    assert "compare --volumes VoxelGrid,glass_beads.Beads --steps 100 --seeds 0,1 --output 'a b'" in err
    code, _, err = outcome(["--volumes", "VoxelGrid", "--steps", "9", "--output", "ours"], capsys)
    assert "compare --resume ours" in err


TIMED = ["--volumes", "VoxelGrid,VMGrid", "--seeds", "0", "--minutes", "1.5", "--output", "here"]


def test_each_variant_makes_a_step_before_time_counts_and_none_that_is_done(tmp_path, capsys, sessions):
    sessions.ends = {"001-VoxelGrid-seed_0": (2, "volume.x=0: must be another")}
    code, _, err = outcome(TIMED, capsys)
    assert (code, err.strip()) == (2, "mnist3d: error: VoxelGrid: volume.x=0: must be another")
    assert [*tmp_path.iterdir()] == []  # nothing has begun
    assert (len(sessions.steps), sessions.jobs) == (2, [])
    sessions.ends = {}
    code, _, err = outcome(TIMED, capsys)
    assert code == 0
    made = [(job.name, config.volume["class_path"].rpartition(".")[2]) for job, config in sessions.steps[2:]]
    assert made == [("001-VoxelGrid-seed_0", "VoxelGrid"), ("002-VMGrid-seed_0", "VMGrid")]
    assert "2 runs of 1.5 minutes, 2 at a time, 1 core each; into here; about 2 minutes and the measuring" in err
    assert outcome(TIMED, capsys)[0] == 0
    assert len(sessions.steps) == 4


def test_a_variant_whose_first_step_fails_is_said_and_its_runs_fail_alone(capsys, sessions):
    sessions.ends = {"002-VMGrid-seed_0": (1, "RuntimeError: boom")}
    sessions.fates = {"run2": [(1, 0)]}
    code, out, err = outcome(TIMED, capsys)
    assert code == 1
    assert "VMGrid: its first step failed: RuntimeError: boom" in err.splitlines()
    assert err.splitlines()[-1].startswith("mnist3d: 1 of 2 runs failed (002-VMGrid-seed_0: said 1)")
    assert out.splitlines()[1].split()[1:3] == ["1.00", "1.00"]
    sessions.ends = {"002-VMGrid-seed_0": (2, "start_from=gone.npy: no such file")}
    code, _, err = outcome(TIMED, capsys)  # what has begun is not refused as a whole
    assert (code, "VMGrid: its first step failed: start_from=gone.npy: no such file" in err) == (0, True)


def test_a_run_with_a_checkpoint_needs_the_file_that_it_started_from_no_more(tmp_path, capsys, sessions):
    np.save(tmp_path / "ball.npy", np.full((8, 8, 8), 0.1, np.float32))
    words = [*TIMED, "--set", "start_from=ball.npy"]
    sessions.fates = {"run1": [(1, 40)]}
    assert outcome(words, capsys)[0] == 1
    assert [config.start_from for _, config in sessions.steps] == ["ball.npy"] * 2
    assert outcome(words, capsys)[0] == 0
    assert [(job.name, config.start_from) for job, config in sessions.steps[2:]] == [("001-VoxelGrid-seed_0", None)]


def test_a_step_is_made_where_the_runs_are_made(tmp_path, monkeypatch):
    """By a process that sees what a run sees, and that says what is wrong as a run does."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    seen: list[Job] = []

    def done(job: Job, stop: Any) -> Outcome:
        seen.append(job)
        return Outcome(job.name, 0)

    monkeypatch.setattr(local, "run_job", done)
    config = parse_command_line(["--volume.resolution=8", "--device=cpu"]).config
    found = one_step_each({"a": config, "b": config}, frozenset(), LocalExecutor(at_once=1), compare.STEP, 3)
    assert [found[name].code for name in "ab"] == [0, 0]
    assert [job.variables for job in seen] == [
        {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": ""}
    ] * 2


def test_the_process_that_makes_a_step_ends_as_a_run_would(capsys, monkeypatch):
    made: list[Config] = []

    class OneStep:
        def __init__(self, config: Config) -> None:
            if config.trainer.views == 3:
                raise ConfigError("trainer.views=3: must be another")
            self.config = config

        def step(self) -> None:
            made.append(self.config)

    monkeypatch.setattr(building, "build_trainer", OneStep)
    monkeypatch.setattr(threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    for views, code in ((3, 2), (4, 0)):
        with pytest.raises(SystemExit) as ended:
            compare_child.main([f"--trainer.views={views}"])
        assert ended.value.code == code
    assert capsys.readouterr().err == "mnist3d train: error: trainer.views=3: must be another\n"
    assert [config.trainer.views for config in made] == [4]


def test_a_second_start_on_one_folder_does_no_work(tmp_path, capsys, sessions, monkeypatch):
    prepared: list[Any] = []
    monkeypatch.setattr(compare.Measuring, "prepare", lambda self, config: prepared.append(config))
    first = SweepFolder(tmp_path / "here", report.FOLDERS)
    try:
        code, _, err = outcome(TIMED, capsys)
    finally:
        first.release(compare.SPEC_FILE)
    assert (code, "output=here: another process sweeps there; wait" in err) == (2, True)
    assert (prepared, sessions.steps, sessions.jobs) == ([], [], [])
    assert not (tmp_path / "here").exists()  # that nothing has begun in goes again


def test_images_without_any_for_the_scores_leave_only_the_scores_empty(tmp_path, capsys, sessions, monkeypatch):
    def read(data: Any, size: int, part: str) -> ImageSet:
        if part == "held_out":
            raise DataError("data.held_out=0: keeps none")
        return ImageSet(torch.rand(12, 1, 28, 28), torch.arange(12) % 2, ["a", "b"])

    monkeypatch.setattr(measuring, "load_images", read)
    code, out, err = outcome([*WORDS, "--set", "data.held_out=0", "--output", "here"], capsys)
    assert code == 0, err
    assert "001-VoxelGrid-seed_0 and 3 more: no scores: data.held_out=0: keeps none" in err.splitlines()
    assert out.splitlines()[0].split()[:3] == ["variant", "weights", "on"]
    page = (tmp_path / "here" / "comparison.md").read_text()
    assert "No scores of 001-VoxelGrid-seed_0: data.held_out=0: keeps none. Memory: the most that" in page
    assert "scorecard's classifiers" not in page
    assert (tmp_path / "here" / "comparison.png").is_file()


def test_letters_are_not_read_as_digits(tmp_path):
    config = parse_command_line(["--config=letters"]).config
    assert "the targets are letters or image files" in (why := Measuring().prepare(config))
    save(tmp_path, 100)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    found = Measured("run", 0)
    Measuring().measure(tmp_path, config, found)
    assert (found.scores, found.unread, found.weights) == ({}, why, sum(p.numel() for p in VoxelGrid(2).parameters()))
    assert Measuring().class_names(config) == []
    assert Selection("balanced").score(tmp_path, config) is None
    with pytest.raises(ConfigError, match="score=balanced: the letters or image files have no classes; must be none"):
        Selection("balanced").prepare(config, must=True)


def test_what_is_printed_to_go_on_says_where_and_trusts_what_was_named(tmp_path, capsys, sessions, monkeypatch):
    monkeypatch.setattr(Trained, "submit", interrupted)
    np.save(tmp_path / "ball.npy", np.full((8, 8, 8), 0.1, np.float32))
    steps = ["--volumes", "VoxelGrid", "--steps", "9"]
    _, _, err = outcome([*steps, "--set", "start_from=ball.npy", "--output", "a", "--address", "x:1"], capsys)
    assert "compare --resume a --trust --address x:1\n" in err
    assert outcome(["--resume", "a", "--trust"], capsys)[0] == 130
    more = ["--cores", "2", "--gpus", "0.5", "--at_once", "3"]
    _, _, err = outcome(["--volumes", "glass_beads.Beads", *steps[2:], *more, "--output", "b"], capsys)
    assert "--volumes glass_beads.Beads --steps 9 --seeds 0,1,2 --cores 2 --gpus 0.5 --at_once 3 --output b\n" in err


def test_in_equal_time_all_sessions_have_the_same_cores_and_gpus(capsys, sessions, monkeypatch):
    monkeypatch.setattr(compare, "one_step_each", lambda configs, *_: {name: Outcome(name, 0) for name in configs})
    monkeypatch.setattr(Trained, "submit", interrupted)
    for length, refused in (("--minutes", True), ("--steps", False)):
        words = ["--volumes", "VoxelGrid", length, "9", "--output", length[2:]]
        assert outcome([*words, "--gpus", "1"], capsys)[0] == 130
        for again in (words, ["--resume", length[2:], "--gpus", "0"]):
            code, _, err = outcome(again, capsys)
            assert code == (2 if refused else 130)
            assert ("gpus=0: the comparison in minutes was begun with 1, and in equal time" in err) == refused
            if refused:
                assert "give --gpus 1, or begin anew with another --output FOLDER" in err
        assert outcome([*words, "--gpus", "1", "--at_once", "1"], capsys)[0] == 130


def test_a_page_says_what_a_run_has():
    options = CompareOptions(volumes=["VoxelGrid"], cores=2, gpus=1.0)
    assert options.places_in_words == "2 cores and 1 GPU"
    assert CompareOptions(volumes=["VoxelGrid"], gpus=0.5).places_in_words == "1 core and 0.5 GPU"
    assert options.words()[-4:] == ["--cores", "2", "--gpus", "1"]
