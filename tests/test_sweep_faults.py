"""A sweep that meets what it did not make or cannot help: strangers' folders, full disks, kills, other launchers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import test_sweep  # pyright: ignore[reportMissingImports]
import yaml
from test_sweep import Sessions, finished, rows, save, states  # pyright: ignore[reportMissingImports]

from mnist3d.cli import sweep as command
from mnist3d.cli.parser import parse_command_line
from mnist3d.data.options import DataOptions
from mnist3d.errors import ConfigError, RunError, UserError, WriteError
from mnist3d.runs.config import Config
from mnist3d.runs.signals import Ended
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.sweeps import folder as of_folder
from mnist3d.sweeps.folder import SweepFolder, is_unused
from mnist3d.sweeps.options import SweepOptions
from mnist3d.sweeps.session import in_words
from mnist3d.training.options import TrainerOptions

begin, drawn = test_sweep.begin, test_sweep.drawn  # fixtures
FIRST = "001-seed_0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"trainer": {"max_steps": 10**9}}, ""),
        ({"data": {"name": "images", "path": "/secret"}}, "data.path=/own: a resumed run keeps its data.path=/secret"),
        ({"data": {"name": "fashion_mnist"}}, "a resumed run keeps its data.name=fashion_mnist"),
        ({"start_from": "/secret.npz"}, "start_from=null: a resumed run keeps its start_from=/secret.npz"),
        ({"volume": {"class_path": "evil.Volume", "init_args": {}}}, "its volume is a evil.Volume"),
    ],
)
def test_a_run_that_goes_on_is_what_the_sweep_says_and_not_what_its_folder_says(begin, change, words):
    executor = Sessions(1)
    sweep = begin(executor, liked=(0.1,))
    own = DataOptions("images", path="/own")  # which the user's sweep names, so that no --trust is needed
    said, run = Config(data=own, trainer=TrainerOptions(max_steps=100)).to_yaml(), sweep.folder.run(FIRST)
    sweep.folder.write_configs({FIRST: said})
    save(run, 40)
    (run / "config.yaml").write_text(yaml.safe_dump({**yaml.safe_load(said), **change}))
    finished(sweep)
    (job,) = executor.jobs
    if words:
        with pytest.raises(UserError, match=re.escape(words)):
            parse_command_line(job.words)
    else:
        again = parse_command_line(job.words)
        assert (again.resume, again.config.trainer.max_steps) == (str(run), 100)


def test_whatever_goes_wrong_with_the_views_of_one_run_ends_no_other(begin):
    sweep, told = begin(Sessions(), liked=(0.1, 0.2)), []
    score, draw = sweep.score, sweep.draw

    def fails(name: str, function: Any) -> Any:
        def call(path: Path, config: Config) -> Any:
            if path.name == name:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return function(path, config)

        return call

    sweep.score, sweep.draw, sweep.telling.line = fails(FIRST, score), fails("002-seed_1", draw), told.append
    finished(sweep)
    assert states(sweep) == ["failed", "done"]
    assert rows(sweep)[0]["error"] == "out of memory on the GPU (2.00 GiB more were asked for)"
    assert any(line.startswith("002-seed_1: no view atlas (out of memory on the GPU") for line in told)
    assert states(finished(begin(Sessions(), liked=(0.1, 0.2)))) == ["done"] * 2


def test_what_goes_wrong_with_one_run_has_words():
    assert in_words(MemoryError()) == "out of memory"
    assert in_words(ZeroDivisionError("x")) == "ZeroDivisionError: x"
    assert in_words(WriteError("full")) == "full"


def test_a_volume_without_a_checkpoint_is_never_removed(begin):
    sweep = begin(Sessions(), liked=(0.1, 0.2))
    save(sweep.folder.run(FIRST), 40)
    (sweep.folder.run(FIRST) / "resume.pt").unlink()
    (sweep.folder.run(FIRST) / "resume.previous.pt").unlink()
    finished(sweep)
    assert states(sweep) == ["failed", "done"]
    assert "holds a volume and no checkpoint to go on from" in rows(sweep)[0]["error"]
    assert (sweep.folder.run(FIRST) / "volume.safetensors").is_file()


def test_a_run_that_another_process_has_begun_is_not_removed_however_long_that_takes(begin):
    sweep = begin(Sessions(), liked=(0.1, 0.2))
    run = sweep.folder.run(FIRST)
    run.mkdir()
    other = RunDirectory(run)
    other.take()
    (run / "config.yaml").write_text("begun")
    finished(sweep)  # each look at the clock takes a second
    other.release()
    assert states(sweep) == ["failed", "done"]
    assert "in use by another process" in rows(sweep)[0]["error"]
    assert (run / "config.yaml").read_text() == "begun"


def test_a_sweep_that_is_killed_has_noted_how_far_its_runs_are(begin):
    executor = Sessions(1)
    executor.hold = True
    sweep, looks, noted = begin(executor, liked=(0.1,)), iter(range(1000)), {}

    def sleep(seconds: float) -> None:
        if next(looks) == 0:
            save(sweep.folder.run(FIRST), 7)
        noted.update(json.loads((sweep.folder.path / "state.json").read_text()))
        if noted["runs"][FIRST]["step"]:
            raise KeyboardInterrupt

    sweep.sleep = sleep
    with pytest.raises(KeyboardInterrupt):
        finished(sweep)
    assert noted["runs"][FIRST]["state"] == "running"
    assert (noted["runs"][FIRST]["step"], rows(sweep)[0]["step"]) == (7, "7")
    assert 50.0 < noted["runs"][FIRST]["seconds"] <= noted["seconds"] < 100.0  # a minute, less a look's interval


def test_notes_of_many_runs_come_no_more_often_than_they_can_be_written(begin, monkeypatch):
    saved, save_all = [], SweepFolder.save

    def counted(folder: SweepFolder, records: Any, seconds: float) -> None:
        saved.append(seconds)
        save_all(folder, records, seconds)

    monkeypatch.setattr(SweepFolder, "save", counted)
    sweep, ticks = begin(Sessions()), iter(range(10**6))
    sweep.clock = lambda: next(ticks) * 1e-6
    assert states(finished(sweep)) == ["done"] * 4
    assert len(saved) == 1  # at the end, as all is over before the first is due


def test_the_configurations_of_all_runs_are_written_at_once(tmp_path, monkeypatch):
    begun, whole_files = [], of_folder.whole_files

    def counted(path: Path) -> Any:
        begun.append(path)
        return whole_files(path)

    monkeypatch.setattr(of_folder, "whole_files", counted)
    folder = SweepFolder(tmp_path / "sweep")
    folder.write_configs({})
    folder.write_configs({"a": "x: 1", "b": "y: 2"})
    folder.release()
    assert len(begun) == 1
    assert [(file.name, file.read_text()) for file in sorted((tmp_path / "sweep/configs").iterdir())] == [
        ("a.yaml", "x: 1"),
        ("b.yaml", "y: 2"),
    ]


def test_a_folder_in_which_nothing_was_written_is_unused(tmp_path):
    place = tmp_path / "sweep"
    assert is_unused(place)
    SweepFolder(place).release()
    assert not place.exists()  # what was made for nothing goes again
    for name in ("runs", "configs"):
        (place / name).mkdir(parents=True)
    SweepFolder(place).release()
    assert sorted(path.name for path in place.iterdir()) == ["configs", "runs"]  # they were there before
    (place / ".sweep.yaml.abcd1234").mkdir()
    (place / ".sweep.yaml.abcd1234" / "sweep.yaml").write_text("cut o")
    assert is_unused(place)
    for name in ("configs/a.yaml", "mine.txt", ".mine.txt.abcd1234"):
        (place / name).write_text("x")
        assert not is_unused(place)
        (place / name).unlink()
    assert is_unused(place)
    (tmp_path / "file").write_text("")
    assert not is_unused(tmp_path / "file")


@pytest.fixture
def spec(tmp_path, monkeypatch) -> list[str]:
    """What is typed for a sweep of one run that takes no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "executor_of", lambda *_: Sessions(1))
    monkeypatch.setattr(command.Selection, "map", lambda *_: b"map")
    values = {"base": {"trainer.max_steps": 100}, "score": "none"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(values))
    return ["spec.yaml", "--output", "sweep"]


def test_after_a_full_disk_the_same_command_begins(spec, monkeypatch):
    def full(*_: Any) -> None:
        raise WriteError("sweep.yaml: cannot be written (No space left on device)")

    with monkeypatch.context() as patch:
        patch.setattr(SweepFolder, "write", full)
        with pytest.raises(WriteError):
            command.main(spec)
    assert not Path("sweep").exists()
    command.main(spec)
    assert ",done," in Path("sweep/table.csv").read_text()


def test_a_second_start_in_one_folder_does_no_work(spec, monkeypatch):
    prepared: list[Any] = []
    monkeypatch.setattr(command.Selection, "prepare", lambda self, config, must: prepared.append(config))
    first = SweepFolder(Path("sweep"))
    try:
        with pytest.raises(RunError, match="output=sweep: another process sweeps there"):
            command.main(spec)
    finally:
        first.release()
    assert prepared == []


def test_of_two_sweeps_that_begin_at_once_in_one_folder_the_second_is_refused(spec, monkeypatch):
    def late(path: Path) -> SweepFolder:
        folder = SweepFolder(path)
        (path / "sweep.yaml").write_text(SweepOptions(seeds=3).to_yaml())  # another has come, and gone
        return folder

    with monkeypatch.context() as patch:
        patch.setattr(command, "SweepFolder", late)
        with pytest.raises(ConfigError, match="output=sweep: holds a sweep with another"):
            command.main(spec)
    SweepFolder(Path("sweep")).release()  # is free
    assert not any(Path("sweep/configs").iterdir())


@pytest.mark.parametrize(
    ("error", "saved"), [(KeyboardInterrupt(), True), (Ended(15), True), (WriteError("full"), False)]
)
def test_only_who_is_asked_to_stop_has_saved_all(spec, monkeypatch, capsys, error, saved):
    def ends(*_: Any) -> None:
        raise error

    monkeypatch.setattr(command.Sweep, "run", ends)
    with pytest.raises(type(error)):
        command.main(spec)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("stopped")
    assert ("what the runs had reached is saved" in said) == saved
    assert "go on with: " in said
    assert "--resume sweep" in said
