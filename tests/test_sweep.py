"""A sweep over made-up sessions: who runs, what is written, how it goes on, and how it ends."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist3d.errors import RunError, VolumeFileError
from mnist3d.evaluation import ImageScore
from mnist3d.runs.config import Config
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.sweeps import session
from mnist3d.sweeps.folder import Record, SweepFolder, last_progress, saved_step
from mnist3d.sweeps.jobs import Job, Outcome
from mnist3d.sweeps.options import HalvingOptions, SweepOptions
from mnist3d.sweeps.plan import planned
from mnist3d.sweeps.selection import figure
from mnist3d.sweeps.session import Sweep, final_table
from mnist3d.sweeps.telling import Telling, seconds_left
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes import VoxelGrid
from mnist3d.volumes.files import volume_bytes

STEPS = 100  # of a run


def save(run: Path, step: int) -> None:
    """What a session leaves."""
    run.mkdir(parents=True, exist_ok=True)
    content = volume_bytes(VoxelGrid(2), {"step": step, "complete": step >= STEPS, "renderer": {}})
    (run / "volume.safetensors").write_bytes(content)
    for name in ("resume.pt", "resume.previous.pt", "volume.previous.safetensors", "stats.jsonl"):
        (run / name).write_text("{}")


def given_to(job: Job) -> dict[str, str]:
    """The flags of a session that have a value."""
    return dict(word.lstrip("-").split("=", 1) for word in job.words if "=" in word)


def run_of(job: Job) -> Path:
    given = given_to(job)
    return Path(given.get("run_dir") or given["resume"])


class Sessions:
    """An executor whose sessions end one by one, each when it is asked for.

    Args:
        places: at the same time.
        fates: for a run, what becomes of its next sessions: an exit code, or "lost"; and the steps that it makes first.
    """

    def __init__(self, places: int = 2, **fates: list[tuple[Any, int]]) -> None:
        self.places, self.fates = places, fates
        self.jobs: list[Job] = []
        self.running: list[Job] = []
        self.cancelled: list[str] = []
        self.hold = False  # whether only those that are cancelled end
        self.closed = 0

    def submit(self, job: Job) -> None:
        assert len(self.running) < self.places
        assert job.name not in [each.name for each in self.running]
        assert ("resume" in given_to(job)) == (run_of(job) / "resume.pt").is_file()
        self.jobs.append(job)
        self.running.append(job)

    def poll(self) -> list[Outcome]:
        ended = [job for job in self.running if not self.hold or job.name in self.cancelled]
        if not ended:
            return []
        job = ended[0]
        self.running.remove(job)
        given = given_to(job)
        run = run_of(job)
        before, _ = saved_step(run)
        stop = given["trainer.stop_after"]
        fates = self.fates.get(job.name[:3].replace("00", "run"), [])
        code, steps = fates.pop(0) if fates else (0, STEPS - before if stop == "null" else int(stop))
        if job.name in self.cancelled:
            code, steps = 143, 1
        if steps:
            save(run, min(STEPS, before + steps))
        lost = code == "lost"
        return [Outcome(job.name, None if lost else code, "" if code == 0 else f"said {code}", 60.0, lost)]

    def cancel(self, name: str) -> None:
        self.cancelled.append(name)

    def close(self) -> None:
        self.closed += 1


LIKED = (0.3, 0.9, 0.5, 0.7)


@pytest.fixture
def drawn() -> list[str]:
    return []


@pytest.fixture
def begin(tmp_path: Path, drawn: list[str]) -> Callable[..., Sweep]:
    def build(executor: Sessions, liked=LIKED, steps: int | None = STEPS, said: Any = None, **options: Any) -> Sweep:
        spec = SweepOptions(seeds=len(liked), **options)
        runs = planned(spec)
        folder = SweepFolder(tmp_path / "sweep")
        records = [Record(run) for run in runs]
        seconds = folder.restore(records)
        config = Config(trainer=TrainerOptions(max_steps=steps))
        telling = Telling(said, [run.name for run in runs])
        ticks = iter(range(10**6))

        def score(path: Path, config: Config) -> float | None:
            return liked[int(path.name[:3]) - 1] + saved_step(path)[0] / 10_000

        def draw(path: Path, config: Config) -> bytes:
            drawn.append(path.name)
            return b"a map of " + path.name.encode()

        return Sweep(
            folder, spec, {run.name: config for run in runs}, records, executor, score, draw, telling, "train", seconds,
            clock=lambda: float(next(ticks)), sleep=lambda seconds: None,
        )  # fmt: skip

    return build


def finished(sweep: Sweep) -> Sweep:
    try:
        sweep.run()
    finally:
        sweep.folder.release()
    return sweep


def rows(sweep: Sweep) -> list[dict[str, str]]:
    with open(sweep.folder.path / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def states(sweep: Sweep) -> list[str]:
    return [row["state"] for row in rows(sweep)]


def test_all_runs_are_run_once_and_the_folder_says_what_came_of_them(begin, drawn):
    executor, said = Sessions(), io.StringIO()
    sweep = finished(begin(executor, said=said))
    assert [job.name for job in executor.jobs] == [f"00{k + 1}-seed_{k}" for k in range(4)]
    assert rows(sweep)[1] == {
        "name": "002-seed_1", "seed": "1", "state": "done", "step": "100", "score": "0.9100", "seconds": "60.0",
        "path": "runs/002-seed_1", "error": "",
    }  # fmt: skip
    assert sweep.best is sweep.records[1]
    page = (sweep.folder.path / "page.html").read_text()
    places = [page.index(f"<h2>00{k}-seed") for k in (2, 4, 3, 1)]  # the best first
    assert places == sorted(places)
    assert page.count('class="best"') == 1
    assert "http" not in page
    assert page.count("data:image/jpeg;base64,") == 4
    assert len(said.getvalue().splitlines()) == 5  # a title and a row a run
    assert [line.split()[0] for line in final_table(sweep.telling, sweep.records)][:3] == [
        "run",
        "002-seed_1",
        "004-seed_3",
    ]
    assert executor.closed
    again = Sessions()
    sweep = finished(begin(again))
    assert again.jobs == []
    assert states(sweep) == ["done"] * 4
    assert len(drawn) == 4


def test_a_job_has_its_cores_and_no_page(begin):
    executor = Sessions(1)
    finished(begin(executor, liked=(0.1,), cores=3))
    (job,) = executor.jobs
    assert job.variables["OMP_NUM_THREADS"] == "3"
    assert {"--viewer.enabled=false", "--trainer.stop_after=null"} <= {*job.words}
    assert Path(job.folder) == Path.cwd()


def test_halving_stops_at_rungs_and_lets_the_upper_half_go_on(begin, drawn):
    executor = Sessions(1)
    sweep = finished(begin(executor, halving=HalvingOptions([0.2, 0.6], 2.0)))
    assert states(sweep) == ["dropped", "done", "dropped", "dropped"]
    assert [len(record.standing.scores) for record in sweep.records] == [1, 3, 1, 2]
    sessions = [(job.name[:3], job.words[-1].rpartition("=")[2]) for job in executor.jobs]
    assert sessions[:2] == [("001", "20"), ("002", "20")]
    assert ("002", "40") in sessions
    assert sessions[-1] == ("002", "null")  # all that is left, whatever its last session was told
    assert len(sessions) == 4 + 2 + 1
    assert sorted(drawn) == [record.name for record in sweep.records]
    assert f"--config={sweep.folder.config(sweep.records[1].name)}" in executor.jobs[-1].words
    assert "--trust" not in executor.jobs[-1].words  # all that is read is in that file


def test_a_failing_run_stops_no_other_and_is_tried_again_next_time(begin):
    sweep = finished(begin(Sessions(run2=[(2, 0)])))
    assert states(sweep) == ["done", "failed", "done", "done"]
    assert rows(sweep)[1]["error"] == "said 2"
    assert rows(sweep)[1]["path"] == ""
    assert sweep.best is sweep.records[3]
    assert "said 2" in (sweep.folder.path / "page.html").read_text()
    again = Sessions()
    sweep = finished(begin(again))
    assert [job.name for job in again.jobs] == ["002-seed_1"]
    assert states(sweep) == ["done"] * 4
    assert rows(sweep)[1]["error"] == ""
    assert sweep.best is sweep.records[1]


@pytest.mark.parametrize("code", ["lost", -9, 143, 0])
def test_a_lost_session_goes_on_from_its_checkpoint(begin, code):
    executor, said = Sessions(1, run1=[(code, steps) for steps in (30, 20, 10, 5)]), io.StringIO()
    sweep = finished(begin(executor, liked=(0.1,), said=said))
    assert states(sweep) == ["done"]
    assert [job.words[0].partition("=")[0] for job in executor.jobs] == ["--run_dir", *["--resume"] * 4]
    assert "goes on from step 30" in said.getvalue()
    assert rows(sweep)[0]["seconds"] == "300.0"  # of all five


def test_a_run_that_is_lost_again_and_again_and_comes_no_further_has_failed(begin):
    executor = Sessions(1, run1=[("lost", 0)] * 9)
    sweep = finished(begin(executor, liked=(0.1, 0.2)))
    assert states(sweep) == ["failed", "done"]
    assert len(executor.jobs) == session.MOST_LOST + 1
    assert "said lost (3 times)" in rows(sweep)[0]["error"]


def test_a_killed_sweep_goes_on(begin, tmp_path):
    first = begin(Sessions())
    for record in first.records:
        record.standing.state = "running"
    first.folder.save(first.records, 100.0)
    save(first.folder.run("001-seed_0"), STEPS)  # complete, and nobody has noted it
    save(first.folder.run("002-seed_1"), 40)
    first.folder.run("003-seed_2").mkdir()
    (first.folder.run("003-seed_2") / "config.yaml").write_text("begun, and nothing saved")
    first.folder.release()
    executor = Sessions(1)
    sweep = finished(begin(executor))
    assert states(sweep) == ["done"] * 4
    assert [job.name for job in executor.jobs] == ["002-seed_1", "003-seed_2", "004-seed_3"]
    assert executor.jobs[0].words[0] == f"--resume={sweep.folder.run('002-seed_1')}"
    assert not (sweep.folder.run("003-seed_2") / "config.yaml").exists()
    assert sweep.seconds > 100.0


def test_a_run_in_which_a_killed_sweeps_process_still_works_is_waited_for(begin):
    executor = Sessions(1)
    sweep = begin(executor)
    save(sweep.folder.run("001-seed_0"), 40)
    other = RunDirectory(sweep.folder.run("001-seed_0"))
    other.take()

    def sleep(seconds: float) -> None:
        if len(executor.jobs) == 3:
            other.release()

    sweep.sleep = sleep
    finished(sweep)
    assert [job.name[:3] for job in executor.jobs] == ["002", "003", "004", "001"]
    assert states(sweep) == ["done"] * 4


def test_the_minutes_of_all_sessions_count(begin):
    executor = Sessions(1)
    sweep = finished(begin(executor, minutes=0.15))  # 9 s, and each look at the clock takes one
    assert sweep.time_is_over
    assert set(states(sweep)) == {"done", "waiting"}
    assert "dropped" not in states(sweep)
    left = states(sweep).count("waiting")
    nothing = Sessions()
    sweep = finished(begin(nothing, minutes=0.15))
    assert nothing.jobs == []
    assert states(sweep).count("waiting") == left
    assert states(finished(begin(Sessions(), minutes=60.0))) == ["done"] * 4


def test_when_time_is_over_what_runs_is_told_to_save_once(begin):
    executor = Sessions(2)
    executor.hold = True
    sweep = finished(begin(executor, minutes=0.5))
    assert executor.cancelled == ["001-seed_0", "002-seed_1"]
    assert states(sweep) == ["waiting"] * 4
    assert [row["step"] for row in rows(sweep)] == ["1", "1", "0", "0"]


def test_what_interrupts_a_sweep_leaves_it_ready_to_go_on(begin):
    executor = Sessions(2)
    executor.hold = True
    sweep = begin(executor)

    def interrupted(seconds: float) -> None:
        save(sweep.folder.run(executor.running[0].name), 7)
        raise KeyboardInterrupt

    sweep.sleep = interrupted
    with pytest.raises(KeyboardInterrupt):
        finished(sweep)
    assert executor.closed
    assert "running" not in states(sweep)
    assert "7" in [row["step"] for row in rows(sweep)]
    assert states(finished(begin(Sessions()))) == ["done"] * 4


def test_keep_best_removes_the_checkpoints_of_the_others_once_all_is_done(begin):
    sweep = finished(begin(Sessions(run2=[(2, 5)]), keep="best"))
    assert all((sweep.folder.run(record.name) / "resume.pt").is_file() for record in sweep.records)
    sweep = finished(begin(Sessions(), keep="best"))
    kept = {
        record.name[:3]: sorted(path.name for path in sweep.folder.run(record.name).iterdir())
        for record in sweep.records
    }
    assert kept["001"] == kept["004"] == ["stats.jsonl", "volume.safetensors"]
    assert "resume.pt" in kept["002"]


def test_two_sweeps_in_one_folder_are_refused(begin, tmp_path):
    sweep = begin(Sessions())
    with pytest.raises(RunError, match="another process sweeps there"):
        SweepFolder(tmp_path / "sweep")
    sweep.folder.release()


def test_a_folder_of_a_sweep_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "runs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is a symbolic link"):
        SweepFolder(tmp_path / "sweep")


@pytest.mark.parametrize(
    "damage",
    ["", "[1]", '{"format": 2}', '{"format": 1, "seconds": "x", "runs": {"001-seed_0": 3}}', "{" * 5000,
     '{"format": 1, "seconds": NaN, "runs": {"001-seed_0": {"state": "gone", "scores": []}}}'],
)  # fmt: skip
def test_a_damaged_state_begins_anew_with_what_lies_there(begin, tmp_path, damage):
    save(tmp_path / "sweep" / "runs" / "001-seed_0", STEPS)
    (tmp_path / "sweep" / "state.json").write_text(damage)
    executor = Sessions()
    sweep = finished(begin(executor))
    assert states(sweep) == ["done"] * 4
    assert len(executor.jobs) == 3


def test_what_runs_are_named_in_the_state_and_are_not_in_the_plan_is_passed_over(begin, tmp_path):
    sweep = begin(Sessions())
    sweep.folder.save(
        [
            *sweep.records,
            dataclasses.replace(sweep.records[0], planned=dataclasses.replace(sweep.records[0].planned, name="../x")),
        ],
        0.0,
    )
    sweep.folder.release()
    assert "../x" in json.loads((tmp_path / "sweep" / "state.json").read_text())["runs"]
    assert [row["name"] for row in rows(finished(begin(Sessions())))] == [record.name for record in sweep.records]


def test_progress_is_read_from_the_end_of_the_statistics(tmp_path):
    lines = [json.dumps({"step": step, "progress": step / 1000, "filler": "x" * 500}) for step in range(50)]
    (tmp_path / "stats.jsonl").write_text(
        "\n".join([*lines, json.dumps({"step": 50, "legible": 0.5}), '{"step": 51, "pro'])
    )
    assert last_progress(tmp_path) == 0.049
    (tmp_path / "stats.jsonl").write_text('{"progress": 1e99}\n[]\n')
    assert last_progress(tmp_path) == 0.0
    assert last_progress(tmp_path / "nowhere") == 0.0


def test_the_time_left_is_that_of_the_runs_that_are_done(begin):
    sweep = begin(Sessions())
    assert seconds_left(sweep.records, 2) is None
    sweep.records[0].standing.state, sweep.records[0].seconds = "done", 100.0
    sweep.records[1].standing.state, sweep.records[1].progress = "running", 0.5
    sweep.records[2].standing.state = "failed"
    assert seconds_left(sweep.records, 1) == 150.0  # half a run and a whole one, one after the other
    assert seconds_left(sweep.records, 2) == 100.0  # side by side: as long as the whole one
    assert seconds_left(sweep.records[:3], 8) == 50.0  # places for which there is no run do not help
    sweep.folder.release()


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_status_is_drawn_over_and_rows_stand_above_it(begin, monkeypatch):
    sweep = begin(Sessions())
    terminal = Terminal()
    telling = Telling(terminal, ["a"])
    monkeypatch.setattr("mnist3d.sweeps.telling.time.monotonic", iter(range(10**9, 2 * 10**9, 10)).__next__)
    telling.status("one running")
    telling.status("two running")
    telling.row(sweep.records[0])
    telling.status("three running")
    telling.close()
    left = ["".join(line.split("\r\x1b[K")[-1:]) for line in terminal.getvalue().split("\n")]
    assert [line.split()[:1] for line in left] == [["run"], ["001-seed_0"], []]
    sweep.folder.release()


def test_the_score_of_a_volume_that_shows_one_class_everywhere_is_low():
    collapsed = ImageScore(
        9, legible=1.0, clean=0.9, effective_classes=1.0, histogram={"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
    )
    diverse = dataclasses.replace(collapsed, legible=0.5, clean=0.2, effective_classes=4.0)
    assert (figure("balanced", collapsed), figure("balanced", diverse)) == (0.25, 0.5)
    assert (figure("legible", collapsed), figure("clean", diverse)) == (1.0, 0.2)
    assert figure("balanced", ImageScore(9)) is None


def test_a_run_that_cannot_be_scored_has_failed(begin):
    sweep = begin(Sessions())

    def damaged(path: Path, config: Config) -> float:
        raise VolumeFileError(f"{path.name}: damaged")

    sweep.score = damaged
    finished(sweep)
    assert states(sweep) == ["failed"] * 4
    assert rows(sweep)[0]["error"] == "001-seed_0: damaged"
