"""`mnist3d sweep` as somebody types it: its mistakes, two real runs, and what a sweep of somebody else may not do."""

import csv
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_sweep import Sessions, save  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn

from mnist3d.cli import sweep
from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.program import run_command_line
from mnist3d.data.images import ImageSet
from mnist3d.evaluation import Classifiers, learning, load_classifiers
from mnist3d.runs.config import Config
from mnist3d.sweeps import selection
from mnist3d.sweeps.folder import saved_step
from mnist3d.sweeps.selection import SEED, Selection

TINY = {"trainer.views": 4, "volume.resolution": 12, "data.limit": 40, "scorecard.every": 0}
PATIENCE = 240.0  # s that a test waits for what takes a few on a free machine
QUICK = {"base": {"trainer.max_steps": 100}, "score": "none"}


class Says(nn.Module):
    """A network that reads the first of two classes everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor([9.0, 0.0, 0.0]).expand(len(images), 3), images.flatten(1)[:, :4]


@pytest.fixture(autouse=True)
def quick_selection(monkeypatch):
    """Classifiers that need no training, and maps that need no thousand views."""

    def loaded(*images: Any, tell: Any, seed: int) -> Classifiers:
        assert seed == SEED > 1  # the scorecard's have 0 and 1
        return Classifiers([Says(), Says()], ["a", "b"], "told")

    monkeypatch.setattr(selection, "load_classifiers", loaded)
    monkeypatch.setattr(selection, "view_atlas", lambda *_: np.zeros((10, 2000, 3), np.uint8))


def spec_file(folder: Path, values: dict[str, Any], name: str = "spec.yaml") -> Path:
    file = folder / name
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def outcome(arguments: list[Any], capsys: Any) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_command_line(sweep.main, [*map(str, arguments)], "mnist3d")
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_two_real_runs_one_of_them_interrupted(tmp_path, monkeypatch):
    """The first is complete, and the second, which would never end, has saved what it had when Ctrl-C came."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spec_file(tmp_path, {"base": {**TINY, "trainer.save_every": "1steps"}, "grid": {"trainer.max_steps": [3, 10**7]}})
    folder = tmp_path / "sweeps" / "spec"
    runs = [folder / "runs" / name for name in ("001-max_steps_3-seed_0", "002-max_steps_10000000-seed_0")]

    def interrupt() -> None:
        end = time.monotonic() + PATIENCE
        while not saved_step(runs[1])[0]:
            if time.monotonic() > end:
                break
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        sweep.main(["spec.yaml", "--at_once", "1"])
    done, stopped = rows(folder)
    assert (done["state"], done["step"], done["error"]) == ("done", "3", "")
    assert float(done["score"]) == 0.5  # all views read as one of two classes
    assert (stopped["state"], stopped["error"]) == ("waiting", "")
    assert int(stopped["step"]) == saved_step(runs[1])[0] > 0
    assert "stopped and saved by SIGTERM" in (folder / "logs" / f"{runs[1].name}.txt").read_text()
    executor = Sessions(1)
    executor.hold = True
    monkeypatch.setattr(sweep, "executor_of", lambda *_: executor)
    sweep.main(["spec.yaml", "--at_once", "2", "--minutes", "1e-9"])
    assert executor.jobs == []
    monkeypatch.setattr(sweep.Sweep, "time_is_over", property(lambda self: len(executor.jobs) > 0))
    sweep.main(["--resume", "sweeps/spec"])
    (job,) = executor.jobs
    again = parse_command_line(job.words)  # the words are those of the real command
    assert again.resume == str(runs[1])
    assert again.config.trainer.max_steps == 10**7
    assert again.config.trainer.stop_after is None
    assert not again.config.viewer.enabled


@pytest.fixture
def sessions(monkeypatch) -> Sessions:
    executor = Sessions(2)
    monkeypatch.setattr(sweep, "executor_of", lambda *_: executor)
    return executor


def test_the_table_and_the_best_are_printed_and_the_same_command_does_nothing_again(
    tmp_path, monkeypatch, capsys, sessions
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep.Selection, "score", lambda self, path, config: {"1": 0.2, "2": 0.7}[path.name[2]])
    monkeypatch.setattr(sweep.Selection, "map", lambda self, path, config: b"map")
    spec_file(tmp_path, {"base": {"trainer.max_steps": 100}, "seeds": [5, 6]}, "my seeds.yaml")
    code, out, err = outcome(["my seeds.yaml"], capsys)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["run", "002-seed_6", "001-seed_5"]
    assert "The best of 2, balanced 0.700, lies in sweeps/my seeds/runs/002-seed_6." in out.splitlines()[-1]
    assert "view 'sweeps/my seeds/runs/002-seed_6'" in out.splitlines()[-1]
    assert "2 runs, 2 at a time; into sweeps/my seeds" in err
    assert (yaml.safe_load((tmp_path / "sweeps/my seeds/sweep.yaml").read_text()))["seeds"] == [5, 6]
    for words in (["my seeds.yaml"], ["--resume", "sweeps/my seeds"]):
        code, again, err = outcome(words, capsys)
        assert (code, again) == (0, out)
        assert "2 of them ready" in err
    assert len(sessions.jobs) == 2
    assert torch.get_num_threads() >= 1


def test_failed_runs_are_said_in_the_last_line_and_the_exit_code(tmp_path, monkeypatch, capsys, sessions):
    monkeypatch.chdir(tmp_path)
    sessions.fates = {"run1": [(2, 0)]}
    spec_file(tmp_path, {**QUICK, "seeds": 2})
    monkeypatch.setattr(sweep.Selection, "map", lambda self, path, config: b"map")
    code, _, err = outcome(["spec.yaml"], capsys)
    assert code == 1
    last = "mnist3d: 1 of 2 runs failed (001-seed_0: said 2); the same command tries them again"
    assert err.splitlines()[-1] == last


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "SPEC.yaml and resume: one of the two must be given"),
        (["spec.yaml", "--resume", "x"], "SPEC.yaml and resume: one of the two"),
        (["--resume", "x", "--output", "y"], "output and resume: a sweep goes on in its own folder"),
        (["--resume", "x"], "resume=x: no sweep lies there, sweep.yaml is missing"),
        (["spec.yaml", "--trust"], "trust: is for a sweep that is there already"),
        (["gone.yaml"], "gone.yaml: no such file"),
        (["spec.yaml", "--cores", "x"], "cores=x: must be a whole number"),
        (["spec.yaml", "--cores", "100000"], "cores=100000: this machine has"),
        (["spec.yaml", "--keep", "non"], "keep=non: must be one of all, best"),
        (["spec.yaml", "--minutes", "0"], "minutes=0: must be finite and > 0"),
        (["spec.yaml", "--mintes", "3"], "--mintes: no such flag, did you mean --minutes?"),
        (["spec.yaml", "--output", "spec.yaml"], "output=spec.yaml: holds something else"),
        (["key.yaml"], "001-resoluton_8-seed_0: volume.resoluton: no such key, did you mean volume.resolution?"),
        (["value.yaml"], "002-views_1-seed_0: trainer.views=1: must be >= 2"),
        (["preset.yaml"], "config=countr: no such preset or file, did you mean counter?"),
        (["length.yaml"], "halving.rungs are shares of trainer.max_steps, which is null"),
        (["unread.yaml"], "the images of data.name=images have no classes; must be none"),
        (["spec.yaml", "--address", "auto"], "address=auto: needs ray: pip install"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    unlabelled = ImageSet(torch.zeros(4, 1, 28, 28), None, [])
    monkeypatch.setattr(selection, "load_images", lambda *_: unlabelled)
    specs = {
        "spec": QUICK,
        "key": {"grid": {"volume.resoluton": [8]}, "score": "none"},
        "value": {"grid": {"trainer.views": [8, 1]}, "score": "none"},
        "preset": {"base": {"config": "countr"}},
        "length": {"halving": {"rungs": [0.5]}},
        "unread": {"base": {"data.name": "images", "data.path": "."}, "keep": "best"},
    }
    for name, values in specs.items():
        spec_file(tmp_path, values, f"{name}.yaml")
    before = sorted(tmp_path.iterdir())
    code, _, err = outcome(arguments, capsys)
    assert code == 2
    assert err.count("\n") == 1, err
    assert words in err
    assert sorted(tmp_path.iterdir()) == before


def test_the_help_names_every_key_that_can_change(capsys):
    with pytest.raises(SystemExit):
        sweep.main(["--help"])
    said = capsys.readouterr().out
    assert all(f"--{name} " in said for name in (*sweep.IN_PLACE, "output", "resume", "address"))
    assert "seeds: 4" in said


@pytest.fixture
def stopped(tmp_path, monkeypatch, capsys, sessions) -> Path:
    """The folder of a sweep that has not run at all, and the spec.yaml beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep.Selection, "map", lambda self, path, config: b"map")
    spec_file(tmp_path, {**QUICK, "minutes": 1e-9})
    code, _, err = outcome(["spec.yaml", "--output", "sweep"], capsys)
    assert (code, sessions.jobs) == (0, [])
    assert "minutes are over with 1 of 1 runs unfinished; go on with: " in err
    return tmp_path / "sweep"


def test_what_is_printed_to_go_on_works_as_it_stands(tmp_path, monkeypatch, capsys, sessions):
    """It trusts the files that the sweep has named, and where a class is not ours, it names the SPEC.yaml again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent / "third_party")
    np.save(tmp_path / "ball.npy", np.full((8, 8, 8), 0.1, np.float32))
    short = ["--minutes", "1e-9"]
    spec_file(tmp_path, {**QUICK, "base": {"start_from": "ball.npy"}})
    _, _, err = outcome(["spec.yaml", "--output", "a", "--address", "x:1", *short], capsys)
    assert "sweep --resume a --trust --address x:1 --minutes MORE" in err
    assert outcome(["--resume", "a", "--trust", *short], capsys)[0] == 0
    spec_file(tmp_path, {**QUICK, "base": {"volume": "glass_beads.Beads"}})
    _, _, err = outcome(["spec.yaml", "--output", "b", "--cores", "1", *short], capsys)
    assert "sweep spec.yaml --output b --cores 1 --minutes 1e-9 --minutes MORE" in err
    assert outcome(["spec.yaml", "--output", "b", "--cores", "1", *short, "--minutes", "2e-9"], capsys)[0] == 0


def test_a_sweep_is_never_mixed_with_another(stopped, capsys, sessions):
    spec_file(stopped.parent, {**QUICK, "seeds": 3})
    code, _, err = outcome(["spec.yaml", "--output", "sweep"], capsys)
    assert code == 2
    assert "output=sweep: holds a sweep with another seeds; give another --output FOLDER" in err
    spec_file(stopped.parent, {**QUICK, "base": {"trainer.max_steps": 100, "config": "my.yaml"}}, "mine.yaml")
    for steps in (8, 16):
        spec_file(stopped.parent, {"trainer": {"views": steps}}, "my.yaml")
        code, _, err = outcome(["mine.yaml", "--output", "second", "--minutes", "1e-9"], capsys)
    assert code == 2
    assert "the presets or files that it names have changed since the sweep in second began" in err
    assert outcome(["--resume", "second", "--minutes", "1e-9"], capsys)[0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"volume": {"class_path": "evil.Volume", "init_args": {}}}, "001-seed_0 imports evil.Volume"),
        ({"objectives": [{"class_path": "evil.Loss", "init_args": {}}]}, "001-seed_0 imports evil.Loss"),
        (
            {"data": {"name": "images", "path": "/secret"}},
            "the data.path of 001-seed_0 is /secret, which would be read",
        ),
        ({"data": {"name": "fashion_mnist"}}, "the data.name of 001-seed_0 is fashion_mnist"),
        ({"start_from": "/secret.npz"}, "the start_from of 001-seed_0 is /secret.npz"),
        ({"seed": "x"}, "seed=x: must be a whole number"),
    ],
)
def test_a_strangers_sweep_imports_and_reads_nothing_that_its_user_has_not_said(
    stopped, capsys, sessions, change, words
):
    file = stopped / "configs" / "001-seed_0.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **change}))
    code, _, err = outcome(["--resume", "sweep", "--minutes", "5"], capsys)
    assert code == 2
    assert words in err
    assert "evil" not in sys.modules
    assert sessions.jobs == []
    if "start_from" in change:
        assert outcome(["--resume", "sweep", "--minutes", "5", "--trust"], capsys)[0] == 0
        assert len(sessions.jobs) == 1


@pytest.mark.parametrize("content", [None, b"\xff\xfe\0", b"a: [", b"3"])
def test_a_damaged_configuration_is_one_line(stopped, capsys, content):
    file = stopped / "configs" / "001-seed_0.yaml"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    code, _, err = outcome(["--resume", "sweep", "--minutes", "5"], capsys)
    assert (code, err.count("\n")) == (2, 1), err
    shutil.rmtree(stopped / "configs")
    assert outcome(["spec.yaml", "--output", "sweep", "--minutes", "5"], capsys)[0] == 0


def test_what_others_see_of_a_run_is_scored_as_the_selection_says(tmp_path):
    save(tmp_path / "run", 100)
    (tmp_path / "run" / "config.yaml").write_text(Config().to_yaml())
    compared = Selection("balanced")
    assert compared.score(tmp_path / "run", Config()) == 0.5
    assert compared.map(tmp_path / "run", Config())[:2] == b"\xff\xd8"  # a JPEG
    assert Selection("none").score(tmp_path / "run", Config()) is None


def test_the_pair_for_selection_is_never_the_scorecards(tmp_path, monkeypatch):
    """It is trained with seeds of its own, and kept under a name of its own."""
    seeds: list[int] = []

    def trained(
        build: Any, images: Tensor, classes: Tensor, outputs: int, steps: int, seed: int, tell: Any
    ) -> nn.Module:
        seeds.append(seed)
        return build(outputs)

    monkeypatch.setattr(learning, "_trained", trained)
    images, labels = torch.rand(12, 1, 28, 28), torch.arange(12) % 2
    for _ in range(2):
        pairs = [load_classifiers(images, labels, ["a", "b"], tmp_path, 1, seed=seed) for seed in (0, SEED)]
        assert len({pair.version for pair in pairs}) == 2
    assert seeds == [0, 1, SEED, SEED + 1]  # each pair once: the second time they lie in the cache
    assert len([*tmp_path.iterdir()]) == 2
