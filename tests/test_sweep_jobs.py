"""Sessions as processes, on this machine and through what a cluster does: Ray is played here by a module of its words.

`benchmarks/ray_cluster.py` has a real one lose a node.
"""

import importlib.machinery
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mnist3d.errors import ConfigError
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.sweeps import jobs, local
from mnist3d.sweeps.cluster import RayExecutor
from mnist3d.sweeps.jobs import Executor, Job, Outcome, is_free, run_job
from mnist3d.sweeps.local import LocalExecutor, gpu_places

PATIENCE = 60.0  # s that a test waits for what comes at once on a free machine


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """A session that runs a few lines of Python in place of a training."""

    def make(name: str, program: str, *words: str, **variables: str) -> Job:
        (tmp_path / f"{name}.py").write_text("import os, sys, time\n" + textwrap.dedent(program))
        return Job(name, name, words, str(tmp_path), str(tmp_path / f"{name}.txt"), variables)

    return make


WAITS = """
    print("begun", flush=True)
    while os.read(0, 1):
        pass
    print("mnist3d train: stopped and saved", flush=True)
    sys.exit(143)
"""


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def all_of(executor: Executor, count: int) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}

    def poll() -> bool:
        found.update({outcome.name: outcome for outcome in executor.poll()})
        return len(found) == count

    until(poll)
    return found


def test_a_session_has_its_words_its_variables_and_a_log(job, tmp_path):
    program = "print(sys.argv[1:], os.environ['OMP_NUM_THREADS'], os.getcwd())"
    outcome = run_job(job("first", program, "--a=b", OMP_NUM_THREADS="3"))
    assert (outcome.code, outcome.error, outcome.lost) == (0, "", False)
    assert outcome.seconds > 0.0
    assert (tmp_path / "first.txt").read_text() == f"['--a=b'] 3 {tmp_path}\n"


def test_a_session_is_in_none_of_the_places_that_a_launcher_gave_the_sweep(job, tmp_path, monkeypatch):
    names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "ROLE_NAME", "TORCHELASTIC_RUN_ID"]
    names += [f"{group}_{what}" for group in ("LOCAL", "GROUP", "ROLE") for what in ("RANK", "WORLD_SIZE")]
    others = ["LOCAL_NAME", "RANKING"]
    for name in [*names, *others]:
        monkeypatch.setenv(name, "1")
    run_job(job("alone", f"print([name for name in {[*names, *others]} if name in os.environ])"))
    assert (tmp_path / "alone.txt").read_text() == f"{others}\n"


def test_what_failed_says_its_last_line_and_no_older_one(job, tmp_path):
    program = "print('mnist3d train: error: seed=x: must be a whole number', file=sys.stderr); sys.exit(2)"
    first = job("wrong", program)
    outcome = run_job(first)
    assert (outcome.code, outcome.error, outcome.lost) == (2, "seed=x: must be a whole number", False)
    (tmp_path / "wrong.py").write_text("import sys; sys.exit(3)")
    assert run_job(first).error == ""
    (tmp_path / "wrong.py").write_text("1/0")
    assert run_job(first).error == "ZeroDivisionError: division by zero"
    (tmp_path / "wrong.py").write_text("print('\\x1b[2J' + 10_000 * 'x'); 1/0")
    assert run_job(first).error.startswith("ZeroDivisionError")


def test_a_session_that_is_told_to_stop_can_save_first(job, tmp_path):
    stop, found = threading.Event(), []
    waits = job("waits", WAITS)
    thread = threading.Thread(target=lambda: found.append(run_job(waits, stop)))
    thread.start()
    until(lambda: (tmp_path / "waits.txt").is_file() and "begun" in (tmp_path / "waits.txt").read_text())
    stop.set()
    thread.join()
    assert (found[0].code, found[0].error) == (143, "stopped and saved")


def test_one_that_does_not_stop_is_killed(job, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "GRACE", 0.05)
    stop = threading.Event()
    stop.set()
    outcome = run_job(job("deaf", "time.sleep(600)"), stop)
    assert outcome.code is not None
    assert outcome.code != 0


def test_whatever_ends_the_function_ends_the_process(job, tmp_path, monkeypatch):
    """As a cluster does that cancels a task."""
    waits, waited = job("cancelled", WAITS), jobs._waited

    def interrupted(process: Any, seconds: float) -> int | None:
        if seconds == jobs.BEAT and "begun" in (tmp_path / "cancelled.txt").read_text():
            raise KeyboardInterrupt
        return waited(process, seconds)

    monkeypatch.setattr(jobs, "_waited", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_job(waits)
    assert "stopped and saved" in (tmp_path / "cancelled.txt").read_text()


def test_a_node_that_does_not_see_the_folder_says_so(job, tmp_path):
    here = job("elsewhere", "pass")
    outcome = run_job(Job(here.name, here.module, (), str(tmp_path), str(tmp_path / "gone" / "log.txt")))
    assert outcome.code is None
    assert "a disk that all nodes share" in outcome.error


def test_a_run_directory_is_free_once_its_process_has_ended(tmp_path):
    assert is_free(tmp_path / "run")
    (tmp_path / "run").mkdir()
    other = RunDirectory(tmp_path / "run")
    other.take()
    assert not is_free(tmp_path / "run")
    other.release()
    assert is_free(tmp_path / "run")
    (tmp_path / "in use").mkdir()
    (tmp_path / "in use" / "stats.jsonl").mkdir()  # is refused for another reason, in whose words the path stands
    assert is_free(tmp_path / "in use")


def test_sessions_on_this_machine(job, tmp_path):
    executor = LocalExecutor(1, at_once=2)
    assert executor.places == 2
    executor.submit(job("waits", WAITS))
    executor.submit(job("seen", "print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"))
    assert all_of(executor, 1)["seen"].code == 0
    assert (tmp_path / "seen.txt").read_text() == "''\n"  # a run without GPUs sees none
    executor.cancel("waits")
    assert all_of(executor, 1)["waits"].code == 143
    executor.submit(job("again", WAITS))
    executor.close()
    assert [outcome.code for outcome in executor.poll()] == [143]


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.setattr(local, "usable_cores", lambda: 5)
    assert LocalExecutor(2).places == 2
    assert LocalExecutor(2, at_once=7).places == 7
    with pytest.raises(ConfigError, match="cores=6: this machine has 5; must be 5 or less"):
        LocalExecutor(6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert LocalExecutor(1, 1.0).places == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="gpus=1: this machine has 0"):
        LocalExecutor(1, 1.0)
    assert gpu_places(2.0, ["0", "1", "2", "3", "4"]) == ["0,1", "2,3"]
    assert gpu_places(0.5, ["0", "1"]) == ["0", "1", "0", "1"]


class Reference:
    """Of a task; a key of dictionaries, as Ray's are."""

    def __init__(self, function: Any, job: Job) -> None:
        self.function, self.job = function, job


class FakeRay(ModuleType):
    """What Ray's functions do for us, in this process: a task runs when it is waited for."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.__spec__ = importlib.machinery.ModuleSpec("ray", None)
        names = ("TaskCancelledError", "RayTaskError", "NodeDiedError")
        base = type("RayError", (Exception,), {})
        self.exceptions = SimpleNamespace(RayError=base, **{name: type(name, (base,), {}) for name in names})
        self.began: dict[str, Any] = {}
        self.options: list[dict[str, Any]] = []
        self.fails: dict[str, Exception] = {}
        self.resources = {"CPU": 7.0, "GPU": 2.0}
        self.cancelled: list[Any] = []
        self.ended = False

    def init(self, **given: Any) -> None:
        if given["address"] == "nowhere:1":
            raise ConnectionError("Could not find any\nrunning Ray instance")
        self.began = given

    def remote(self, **given: Any) -> Callable[[Any], Any]:
        assert given == {"max_retries": 0}
        return lambda function: SimpleNamespace(options=lambda **options: self._task(function, options))

    def _task(self, function: Any, options: dict[str, Any]) -> Any:
        self.options.append(options)
        return SimpleNamespace(remote=lambda job: Reference(function, job))

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert (num_returns, timeout) == (len(references), 0)
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        job = reference.job
        if reference in self.cancelled:
            raise self.exceptions.TaskCancelledError
        if job.name in self.fails:
            raise self.fails[job.name]
        return reference.function(job)

    def cancel(self, reference: Any) -> None:
        self.cancelled.append(reference)

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def shutdown(self) -> None:
        self.ended = True


@pytest.fixture
def ray(monkeypatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def test_sessions_on_a_cluster(ray, job):
    executor = RayExecutor("auto", cores=2, gpus=0.5)
    assert ray.began["address"] == "auto"
    assert executor.places == 3  # seven cores, two GPUs
    ray.resources = {"CPU": 7.0}
    assert executor.places == 1  # no GPU any more: one is waited for
    ray.resources = {"CPU": 64.0, "GPU": 1.0}
    assert executor.places == 2
    assert executor.poll() == []
    names = ("good", "bad", "cancelled", "lost", "wrong")
    for name in names:
        executor.submit(job(name, "sys.exit(0)" if name == "good" else "print('why'); sys.exit(2)"))
    assert ray.options[0] == {"name": "good", "num_cpus": 2, "num_gpus": 0.5}
    executor.cancel("cancelled")
    ray.fails = {
        "lost": ray.exceptions.NodeDiedError("The node is dead. This can happen\nif it is."),
        "wrong": ray.exceptions.RayTaskError("Traceback:\n  line 1\nValueError: x"),
    }
    found = all_of(executor, len(names))
    assert {name: (found[name].code, found[name].error, found[name].lost) for name in names} == {
        "good": (0, "", False),
        "bad": (2, "why", False),
        "cancelled": (None, "stopped", False),
        "lost": (None, "NodeDiedError: The node is dead", True),
        "wrong": (None, "ValueError: x", False),
    }
    executor.close()
    assert ray.ended


def test_what_still_runs_is_cancelled_when_the_cluster_is_left(ray, job):
    executor = RayExecutor("local", at_once=4)
    assert executor.places == 4
    executor.submit(job("one", "pass"))
    executor.close()
    assert [reference.job.name for reference in ray.cancelled] == ["one"]
    assert ray.ended


def test_a_cluster_that_does_not_answer_is_one_line(ray):
    with pytest.raises(
        ConfigError, match=r"address=nowhere:1: no Ray cluster answers there \(Could not find any running"
    ):
        RayExecutor("nowhere:1")


def test_without_ray_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'^address=auto: needs ray: pip install .*\[cluster\]"$'):
        RayExecutor("auto")


def test_a_task_can_be_sent_to_a_node_that_has_this_package():
    """By name, as all that is at the top of a module; and what is sent imports no torch."""
    assert getattr(sys.modules[run_job.__module__], run_job.__qualname__) is run_job
    code = "import sys, mnist3d.sweeps.jobs; sys.exit('torch' in sys.modules)"
    assert os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-c", code], dict(os.environ)) == 0
