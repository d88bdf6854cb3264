"""One run on several processes: the same volume as on one; a process that ends or is silent ends all."""

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from fork_server import ForkServer
from shares import KINDS, build

from mnist3d.errors import ConfigError
from mnist3d.runs.launcher import began_here, place
from mnist3d.training.processes import Processes

if os.name != "posix":
    pytest.skip("the processes are forks", allow_module_level=True)

TESTS = Path(__file__).parent
# Twenty steps in double precision: each sum in another order is off by 1e-16 of itself, and Adam, which divides by a
# gradient's own size, makes of that 1e-11 in weights of about 1. A row that is missing, or counted twice, makes 1e-2.
TOLERANCE = 1e-8
COUNTS = (2, 1, 3)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the command does before torch is imported
        running = ForkServer(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def found(server, tmp_path_factory):
    """What the runs of one, two and three processes came to, by (count, rank)."""
    folder = tmp_path_factory.mktemp("shares")
    results = {}
    for count in COUNTS:
        code = f"import sys, os; sys.path.insert(0, {str(TESTS)!r}); import shares; "
        started = [
            server.start(patch=f"{code}shares.main({str(folder)!r}, {rank}, {count}); os._exit(0)")
            for rank in range(count)
        ]
        for rank, each in enumerate(started):
            assert each.end() == 0, each.said()
            results[count, rank] = torch.load(folder / f"{count}.{rank}.pt", weights_only=True)
    return results


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_give_the_volume_that_one_gives(found, kind, count):
    expected = found[1, 0][kind]
    for rank in range(count):
        torch.testing.assert_close(found[count, rank][kind], expected, rtol=0.0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3])
def test_all_processes_have_the_same_bits(found, kind, count):
    assert all(torch.equal(found[count, rank][kind], found[count, 0][kind]) for rank in range(1, count))


def test_kinds_of_runs_differ(found):
    """Or the tests above would compare one run with itself. Only a step in parts is the same step."""
    alone = [found[1, 0][kind] for kind in KINDS if kind != "in parts"]
    torch.testing.assert_close(found[1, 0]["in parts"], found[1, 0]["default"], rtol=0.0, atol=TOLERANCE)
    assert all(a.shape != b.shape or (a - b).abs().max() > 1e-3 for k, a in enumerate(alone) for b in alone[:k])


def test_a_run_of_two_then_one_then_three_processes_is_the_run_of_one(found):
    for rank in range(3):
        torch.testing.assert_close(found[3, rank]["resumed"], found[1, 0]["default"], rtol=0.0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, "environment variable WORLD_SIZE=two: must be a whole number >= 1"),
        ({"WORLD_SIZE": "2"}, "environment variable RANK is not set: must be a whole number in [0, 1]"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "MASTER_PORT": "1"},
            "environment variable RANK=2: must be a whole number in",
        ),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "0"}, "environment variable MASTER_PORT=0: must be a whole"),
    ],
)
def test_an_environment_that_names_no_place_is_refused(monkeypatch, environment, message):
    for name in ("WORLD_SIZE", "RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert place() is None
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=re.escape(message)):
        place()


def test_a_name_of_nobody_is_no_job(monkeypatch, tmp_path):
    """What torchrun calls a job by default says nothing, but after a failure of that very torchrun."""
    (tmp_path / "environment.json").write_text('{"job": "none"}')
    assert not began_here(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert not began_here(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert began_here(tmp_path)
    (tmp_path / "environment.json").write_text("[]")
    assert not began_here(tmp_path)


def test_fewer_views_than_processes_are_refused():
    with pytest.raises(ValueError, match=r"trainer.views=7: must be >= the number of processes, 8"):
        build("default", Processes(0, 8))


@pytest.mark.parametrize(("total", "count"), [(7, 3), (2, 3), (32, 3), (6, 2), (1, 1)])
def test_each_row_is_one_process_s(total, count):
    rows = [range(total)[Processes(rank, count).own(total)] for rank in range(count)]
    assert [row for part in rows for row in part] == [*range(total)]
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


TINY = "--trainer.views 4 --volume.resolution 8 --renderer.image_size 12 --data.limit 40 --viewer.enabled false"
TRAIN = ["train", *TINY.split(), "--discriminator.channels", "[4,8]", "--scorecard.every", "0"]
ENDLESS = [*TRAIN, "--trainer.max_steps", "1000000", "--trainer.save_every", "1steps"]
# Counts of .1 s, so that nothing takes long; limits that no process passes that lives, on a busy machine neither.
LIMITS = "beat=0.1, after_error=4.0, grace=1.0, goodbye=20.0, join=240.0"
# s of silence; the second where a process is killed: gloo may wait on for what was closed, and then silence tells;
# the third where one is silent.
PATIENT, KILLED, IMPATIENT = 60.0, 20.0, 8.0


class Group:
    """Processes of one run, started as torchrun starts them."""

    def __init__(
        self,
        server: ForkServer,
        count: int,
        *arguments: object,
        patch: str = "",
        silent: float = PATIENT,
        **environment: object,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        known = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        self.processes = []
        for rank in range(count):
            told = {**known, "RANK": rank, "LOCAL_RANK": rank, **environment}
            told_first = f"""import os; os.environ.update({ {key: str(value) for key, value in told.items()} })
import mnist3d.runs.joining as joining, mnist3d.runs.watch as watch
joining.Limits = lambda: watch.Limits({LIMITS}, silent={silent})\n"""
            self.processes.append(server.start(*arguments, patch=told_first + patch))

    @property
    def said(self) -> str:
        """What the first has said so far."""
        return self.processes[0].said()

    def until_step(self, step: int, run: Path) -> None:
        """Wait for a save."""
        self.processes[0].until(lambda: (run / "resume.pt").is_file() and f"step {step} " in self.said)

    def ended(self) -> list[int]:
        """The exit codes, by rank; those that are not the first must have been silent."""
        codes = [each.end() for each in self.processes]
        assert all("Traceback" not in each.said() for each in self.processes), [e.said() for e in self.processes]
        return codes

    def silent(self, *but: int) -> bool:
        """Whether all others than the first, and those named, have said nothing."""
        others = [each for rank, each in enumerate(self.processes) if rank not in (0, *but)]
        return all(each.said() == "" == each.out.read_text() for each in others)


def last_line(said):
    """The last line of stderr."""
    return said.strip().splitlines()[-1]


def steps_of(run):
    """The step of a run's checkpoint."""
    return torch.load(run / "resume.pt", weights_only=True)["steps_done"]


def test_the_first_of_two_writes_and_speaks_and_a_run_goes_on_with_one_and_with_three(server, tmp_path):
    run = tmp_path / "run"
    two = Group(server, 2, *TRAIN, "--trainer.max_steps", "6", "--trainer.stop_after", "2", "--run_dir", run)
    assert two.ended() == [0, 0], two.said
    assert two.silent()
    assert "2 processes, each on cpu" in two.said
    assert "go on with: mnist3d train --resume" in two.said
    assert steps_of(run) == 2
    code, _, said = server.run("train", "--resume", run, "--trainer.stop_after", "2")
    assert (code, steps_of(run)) == (0, 4), said
    three = Group(server, 3, "train", "--resume", run, "--trainer.stop_after", "null")
    assert three.ended() == [0, 0, 0], three.said
    assert three.silent()
    assert steps_of(run) == 6


@pytest.mark.parametrize("arguments", [["--trainer.view", "3"], ["--trainer.views", "2"]])
def test_a_mistake_is_said_once_and_ends_all_with_2(server, tmp_path, arguments):
    three = Group(server, 3, *TRAIN, *arguments, "--run_dir", tmp_path / "run")
    assert three.ended() == [2, 2, 2]
    assert last_line(three.said).startswith(f"mnist3d train: error: {arguments[0].removeprefix('--')}")
    assert three.silent()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", [1, 0])
def test_a_killed_process_ends_all_and_the_run_goes_on(server, tmp_path, rank):
    run = tmp_path / "run"
    three = Group(server, 3, *ENDLESS, "--run_dir", run, silent=KILLED)
    three.until_step(1, run)
    three.processes[rank].send(signal.SIGKILL)
    codes = three.ended()
    assert codes == [-signal.SIGKILL if k == rank else 2 for k in range(3)]
    speaker = three.processes[1 if rank == 0 else 0]
    assert f"mnist3d train: error: rank {rank} of 3 (on {socket.gethostname()}, process " in last_line(speaker.said())
    assert "has ended or does not answer" in last_line(speaker.said())
    assert three.silent(1 if rank == 0 else 0), [each.said() for each in three.processes]
    assert not list(run.glob("*.tmp*")) or rank == 0
    done = steps_of(run)
    code, _, said = server.run("train", "--resume", run, "--trainer.stop_after", "1")
    assert (code, steps_of(run)) == (0, done + 1), said


def test_a_silent_process_ends_the_others(server, tmp_path):
    run = tmp_path / "run"
    three = Group(server, 3, *ENDLESS, "--run_dir", run, silent=IMPATIENT)
    three.until_step(1, run)
    began = time.monotonic()
    three.processes[2].send(signal.SIGSTOP)
    assert [each.end() for each in three.processes[:2]] == [2, 2]
    assert time.monotonic() - began > IMPATIENT / 2  # by its silence, and by no lost connection
    assert "error: rank 2 of 3 (" in last_line(three.said)
    three.processes[2].send(signal.SIGKILL)
    assert three.ended()[2] == -signal.SIGKILL
    assert steps_of(run) >= 1


def test_a_signal_to_one_process_saves_once_and_ends_all(server, tmp_path):
    run = tmp_path / "run"
    two = Group(server, 2, *ENDLESS, "--run_dir", run)
    two.until_step(1, run)
    two.processes[1].send(signal.SIGTERM)
    assert two.ended() == [143, 143]
    assert last_line(two.said) == "mnist3d train: stopped and saved by SIGTERM"
    assert two.silent()
    assert steps_of(run) >= 1


def test_a_failure_of_one_process_is_said_by_the_first(server, tmp_path):
    run = tmp_path / "run"
    code = "import mnist3d.training.trainer as t, os; step = t.Trainer._step\n"
    code += "def failing(self):\n if self.steps_done == 2: raise MemoryError('of that machine')\n"
    code += " return step(self)\nif os.environ['RANK'] == '1': t.Trainer._step = failing"
    two = Group(server, 2, *TRAIN, "--trainer.max_steps", "50", "--run_dir", run, patch=code)
    assert two.ended() == [2, 2]
    assert "error: rank 1 of 2 (" in last_line(two.said)
    assert "memory" in last_line(two.said)


def test_a_restarted_job_goes_on_with_what_is_there(server, tmp_path):
    run = tmp_path / "run"
    job = {"TORCHELASTIC_RUN_ID": "job7", "TORCHELASTIC_MAX_RESTARTS": 3}
    command = [*TRAIN, "--trainer.max_steps", "4", "--trainer.stop_after", "2", "--run_dir", run]
    first = Group(server, 2, *command, **job)
    assert first.ended() == [0, 0], first.said
    again = Group(server, 2, *command, **job, TORCHELASTIC_RESTART_COUNT=1)
    assert again.ended() == [0, 0], again.said
    assert steps_of(run) == 4
    other = Group(server, 2, *command, **{**job, "TORCHELASTIC_RUN_ID": "job8"})
    assert other.ended() == [2, 2]
    assert "not empty" in other.said
    nameless = Group(server, 2, *TRAIN, "--trainer.max_steps", "4", **job)
    assert nameless.ended() == [2, 2]
    assert "error: run_dir: must be given with --max-restarts" in nameless.said
