"""`benchmarks/gpu.py`, which is run once where a GPU is: within its time, and nothing that it found is lost."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import gpu  # pyright: ignore[reportMissingImports]
from _gpu_report import Report, Setup, run_command, write_json  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0  # s for what comes at once on a free machine


def small(folder: Path, device: str = "cpu", **asked: Any) -> Setup:
    return Setup(device, True, folder, **asked)


def right(report: Report) -> dict[str, bool]:
    return {each["what"]: each["right"] for each in report.checks}


# ---- the time, and what becomes of a stage


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(takes: dict[int, float], budget: float = 480.0, wanted: tuple[int, ...] = (1, 2, 3, 4, 5, 6)):
    """What came of stages that take so long, or are ended at their limits, and what each was given."""
    clock, limits, kept = Clock(), {}, []

    def begin(number: int, limit: float) -> dict[str, Any]:
        limits[number] = limit
        clock.now += min(takes.get(number, 1.0), limit)
        return {"status": "cut" if takes.get(number, 1.0) > limit else "passed"}

    found = gpu.run_stages(wanted, budget, begin, lambda now: kept.append(json.dumps(now)), clock)
    assert clock.now <= budget
    return found, limits, kept


def test_eight_minutes_have_room_for_each_stage_even_if_all_take_their_whole_time():
    assert sum(stage.share for stage in gpu.STAGES.values()) == pytest.approx(1.0)
    found, limits, _ = run(dict.fromkeys(gpu.STAGES, math.inf))
    assert [each["status"] for each in found.values()] == ["cut"] * 6
    assert all(limits[number] >= stage.least for number, stage in gpu.STAGES.items())


def test_what_a_stage_leaves_over_is_for_those_after_it():
    _, limits, _ = run({})
    assert limits[1] == pytest.approx(480.0 * gpu.STAGES[1].share - gpu.GRACE)
    assert limits[6] == pytest.approx(480.0 - 5.0 - gpu.GRACE)


def test_a_stage_that_does_not_fit_any_more_is_left_out_with_the_reason_and_a_shorter_one_is_not():
    found, _, _ = run({}, budget=100.0)
    assert found[1]["status"] == "left out"
    assert found[1]["reason"] == "it takes 30 s at least, and 19 s are left for it"
    assert found[2]["status"] == "passed"
    assert found[6] == {
        "title": "a sculpture of two minutes",
        "status": "left out",
        "reason": "it takes 150 s at least, and 94 s are left for it",
    }


def test_only_the_stages_that_are_asked_for_share_the_time():
    found, limits, _ = run({}, wanted=(4,))
    assert [*found] == [4]
    assert limits[4] == 480.0 - gpu.GRACE


def test_what_is_known_is_kept_before_and_after_each_stage():
    _, _, kept = run({}, wanted=(3, 4))
    states = [[each["status"] for each in json.loads(text).values()] for text in kept]
    assert states == [["running"], ["passed"], ["passed", "running"], ["passed", "passed"]]


@pytest.mark.parametrize(
    ("checks", "code", "status", "reason"),
    [
        ([True, True], 0, "passed", ""),
        ([True, False], 0, "wrong", ""),
        ([True], None, "cut", "its 9 s were over"),
        ([True], -11, "broken", "exit code -11: the last line"),
        ([], 0, "broken", "it checked nothing"),
        (None, 1, "broken", "exit code 1: the last line"),
    ],
)
def test_what_came_of_a_stage(tmp_path: Path, checks, code, status, reason):
    (tmp_path / "output.txt").write_text("a line\nthe last line\n")
    if checks is not None:
        report = Report(tmp_path / "findings.json")
        report.figure("figure", 1.0)
        for each in checks:
            report.check("a check", each)
    found = gpu.outcome_of(tmp_path, code, 9.0)
    assert found["status"] == status
    assert found["reason"].startswith(reason)
    assert [each["right"] for each in found["checks"]] == (checks or [])
    assert found["figures"] == ({} if checks is None else {"figure": 1.0})
    assert found["output"] == "a line\nthe last line\n"


def test_a_part_that_fails_is_a_finding_and_the_next_goes_on(tmp_path: Path, capsys):
    report = Report(tmp_path / "found.json")
    with report.part("the first"):
        raise RuntimeError("CUDA error:\n an illegal memory access")
    with report.part("the second"):
        report.check("the second", True)
    assert right(report) == {"the first": False, "the second": True}
    assert json.loads((tmp_path / "found.json").read_text()) == report.found()
    assert report.checks[0]["said"] == "RuntimeError: CUDA error: an illegal memory access"
    assert "Traceback" in capsys.readouterr().out


def test_a_stage_that_cannot_even_be_imported_is_a_finding(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(gpu.STAGES, 3, gpu.STAGES[3]._replace(where=("no_such_module", "nothing")))
    gpu.perform(3, small(tmp_path))
    (check,) = json.loads((tmp_path / "findings.json").read_text())["checks"]
    assert check["said"] == "ModuleNotFoundError: No module named 'no_such_module'"


def test_what_is_not_finite_is_a_word_in_the_json(tmp_path: Path):
    write_json(tmp_path / "a.json", {"figures": [math.nan, (math.inf, 1.0)], "stages": {3: True}})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"figures": ["nan", ["inf", 1.0]], "stages": {"3": True}}


# ---- processes

HANGS = """
import json, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--folder") + 1])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
found = {"checks": [], "figures": {"child": child.pid}, "needs_a_gpu": [], "remarks": []}
(folder / "findings.json").write_text(json.dumps(found))
(folder / "ready").touch()
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="process groups and /proc")
def test_a_stage_that_hangs_is_ended_with_all_that_it_started_and_what_it_found_stays(tmp_path: Path, monkeypatch):
    (tmp_path / "hangs.py").write_text(HANGS)
    folder = tmp_path / "stage3"

    class Popen(subprocess.Popen):
        """Its time is over as soon as it hangs, on however slow a machine."""

        def wait(self, timeout: float | None = None) -> int:
            while timeout is not None:
                if (folder / "ready").exists():
                    raise subprocess.TimeoutExpired(self.args, timeout)
            return super().wait(timeout)

    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "hangs.py"))
    monkeypatch.setattr(gpu, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": Popen}))
    (folder / "old").mkdir(parents=True)
    found = gpu.in_a_process(3, 7.0, folder, "cpu", True)
    assert found["status"] == "cut"
    assert not (folder / "old").exists()
    child, began = found["figures"]["child"], time.monotonic()
    try:
        while alive(child):  # killed, it ends in its own time
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.01)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


KILLED = """
import sys
sys.path.append(sys.argv[1])
import gpu, time
gpu.machine_now = dict
def in_a_process(number, *_):
    if number == 4:
        print("HANGS", flush=True)
        time.sleep(600)
    return {"status": "passed", "checks": [{"what": "it", "right": True, "said": ""}]}
gpu.in_a_process = in_a_process
gpu.main(["--small", "--device", "cpu", "--stages", "3,4,5", "--output", sys.argv[2]])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_killed_run_leaves_a_whole_json_of_the_finished_stages(tmp_path: Path, number, code):
    output = tmp_path / "found.json"
    words = [sys.executable, "-c", KILLED, str(ROOT / "benchmarks"), str(output)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    with process.stdout:
        assert any(line == "HANGS\n" for line in process.stdout)
        process.send_signal(number)
        assert process.wait() == code
    content = json.loads(output.read_text())
    assert {key: each["status"] for key, each in content["stages"].items()} == {"3": "passed", "4": "running"}
    assert not content["complete"]
    assert content["small"]


def test_a_run_of_one_stage(tmp_path: Path, capsys):
    """The whole way: the script, a stage in a process, its findings, JSON and table."""
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--small", "--device", "cpu", "--stages", "4", "--output", str(tmp_path / "found.json")])
    assert ended.value.code == 0
    content = json.loads((tmp_path / "found.json").read_text())
    stage = content["stages"]["4"]
    assert content["complete"]
    assert stage["status"] == "passed"
    assert len(stage["checks"]) == 4
    assert stage["needs_a_gpu"] == ["gradients of tinycudann, half", "gradients of tinycudann, full"]
    assert "right: torch, float32, gradient to table" in stage["output"]
    assert torch.__version__.startswith(content["machine"]["packages"]["torch"].partition("+")[0])
    said = capsys.readouterr().out
    assert re.search(r"^4  gradients at 10\^6 points +passed +\d+ s  4 of 4 right$", said, re.MULTILINE)
    assert content["table"][0] in said


@pytest.mark.parametrize(("status", "code"), [("passed", 0), ("left out", 0), ("wrong", 1), ("broken", 1), ("cut", 1)])
def test_the_exit_code_and_the_table_say_that_something_is_wrong(tmp_path: Path, monkeypatch, capsys, status, code):
    check = {"what": "the image", "right": status == "passed", "said": "off by 2"}
    outcome = {"status": status, "checks": [check], "remarks": ["a remark"], "figures": {"many": [1.0] * 100}}
    monkeypatch.setattr(gpu, "in_a_process", lambda *_: outcome)
    monkeypatch.setattr(gpu, "machine_now", dict)
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--small", "--device", "cpu", "--stages", "3,4", "--output", str(tmp_path / "found.json")])
    assert ended.value.code == code
    said = capsys.readouterr().out
    assert said.count("   LOOK AT the image: off by 2\n") == (0 if status == "passed" else 2)
    assert "   a remark\n" in said
    assert said.count(" ... (in the JSON)\n") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "7"], "stages=7: must be some of 1,2,3,4,5,6, each once"),
        (["--stages", "1,1"], "stages=1,1: must be some of"),
        (["--stages", ""], "stages=: must be some of"),
        (["--minutes", "0"], "'0': must be a number from 0.05 to 600.0"),
        (["--device", "cpu"], "device=cpu: must come with --small"),
        (["--device", "tpu"], "tpu"),
        (["--output", "no/such/folder/a.json"], "no/such/folder does not exist"),
        (["--output", "a.txt"], "suffix .txt; must be one of .json"),
        ([], "device=cuda: torch sees no CUDA GPU here; --small --device cpu rehearses on a CPU"),
        (["--run-stage", "9"], "--stages says which to run"),
        (["--run-stage", "4"], "--stages says which to run"),
        (["--small"], "device=cuda: torch sees no CUDA GPU here"),
    ],
)
def test_a_wrong_argument_is_one_line_and_2(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        gpu.main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("gpu.py: error: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_place_that_cannot_be_written_is_told_before_a_stage_is_begun(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "in_a_process", None)
    (tmp_path / "found_files").write_text("a file where the folder belongs")
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--small", "--device", "cpu", "--output", str(tmp_path / "found.json")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("gpu.py: error: output=")
    assert said.count("\n") == 1


def test_a_program_is_run_to_its_end_or_until_its_time_is_over(tmp_path: Path):
    done = run_command(["-c", "import os, sys; print(os.environ['ASKED']); sys.exit(3)"], 600.0, ASKED="for")
    assert (done.code, done.output.strip()) == (3, "for")
    assert run_command(["-c", "import time; time.sleep(600)"], 0.0).code is None
