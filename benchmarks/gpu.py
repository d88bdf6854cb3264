"""All that only a GPU can tell, in one run of at most eight minutes: right numbers, tests, speed, memory, a sculpture.

    python benchmarks/gpu.py --output gpu.json

Six stages, each a process of its own with a part of the time. What a stage finds is on disk as soon as it is found, so
a run that is cut short still says something: the JSON is whole after each stage. Beside it a folder takes each stage's
output, the recording of tinycudann and the sculpture. A stage for which no time is left is recorded as left out.
Nothing is downloaded and nothing is asked.

`--small --device cpu` walks the same paths with tiny sizes; what only a GPU could answer is listed as such.
Exit code 0: nothing wrong was found; 1: a stage found something wrong or broke; 2: a wrong argument.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

# The stages and the package are found whoever imports this and whatever is installed.
sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in train.py, for this process and all that it starts

from _gpu_report import ROOT, Report, Setup, write_json

from mnist3d.cli.tool_parser import OneLineParser, in_range
from mnist3d.errors import ExportError, WriteError, one_line
from mnist3d.storage.atomic import check_output

KEPT_OUTPUT = 30_000  # characters of what a stage said that the JSON takes; all of it lies in the folder
GRACE = 2.0  # seconds that it takes to end a stage and to write the JSON
# A stage stops the program that it waits for so many seconds before it is ended itself, to say which one took too long.
EARLIER = 4.0
Begin = Callable[[int, float], dict[str, Any]]


class Stage(NamedTuple):
    """A part of the run.

    Args:
        title: in the table.
        where: module and function, called with a `Report` and a `Setup`.
        share: of the minutes that it has for sure; what earlier stages leave over comes on top.
        least: seconds on a GPU without which it is not begun.
    """

    title: str
    where: tuple[str, str]
    share: float
    least: float


STAGES = {
    1: Stage("80 steps and a resume", ("_gpu_commands", "short_runs"), 0.21, 30.0),
    2: Stage("tests that need a GPU", ("_gpu_commands", "gpu_tests"), 0.17, 20.0),
    3: Stage("golden numbers", ("_gpu_numbers", "golden_numbers"), 0.05, 10.0),
    4: Stage("gradients at 10^6 points", ("_gpu_numbers", "gradients"), 0.05, 10.0),
    5: Stage("launches, waits, speed, memory", ("_gpu_speed", "speed"), 0.17, 20.0),
    6: Stage("a sculpture of two minutes", ("_gpu_commands", "sculpture"), 0.35, 150.0),
}
WRONG = ("wrong", "broken", "cut")


def run_stages(
    numbers: Sequence[int],
    budget: float,
    begin: Begin,
    keep: Callable[[dict[int, dict[str, Any]]], None],
    clock: Callable[[], float] = time.monotonic,
    small: bool = False,
) -> dict[int, dict[str, Any]]:
    """Each stage in turn within its part of the time.

    Args:
        numbers: of the stages.
        budget: seconds for all together.
        begin: runs a stage in so many seconds at most and says what came of it.
        keep: writes what is known; called before and after each stage.
        clock: seconds.
        small: whether tiny sizes need next to no time.

    Returns:
        What came of each stage.
    """
    ends, found = clock() + budget, {}
    for place, number in enumerate(numbers):
        shares = [STAGES[each].share for each in numbers[place:]]
        # of what is left a stage has all that is not promised to later ones
        promised = budget * sum(shares[1:]) / sum(STAGES[each].share for each in numbers)
        limit, least = ends - clock() - promised - GRACE, 1.0 if small else STAGES[number].least
        if limit < least:
            reason = f"it takes {least:.0f} s at least, and {max(limit, 0.0):.0f} s are left for it"
            found[number] = {"title": STAGES[number].title, "status": "left out", "reason": reason}
        else:
            found[number] = {"title": STAGES[number].title, "status": "running", "limit": round(limit, 1)}
            keep(found)
            began = clock()
            outcome = begin(number, limit)
            found[number] |= {"seconds": round(clock() - began, 1), **outcome}
        keep(found)
    return found


def in_a_process(number: int, limit: float, folder: Path, device: str, small: bool) -> dict[str, Any]:
    """Run a stage as a process that is ended, with all that it started, when its time is over."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    words = [sys.executable, __file__, "--run-stage", str(number), "--device", device, "--folder", str(folder)]
    words += ["--seconds", str(limit), *(["--small"] if small else [])]
    code: int | None = None
    with open(folder / "output.txt", "wb") as said:
        process = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return outcome_of(folder, code, limit)


def outcome_of(folder: Path, code: int | None, limit: float) -> dict[str, Any]:
    """What a stage found, from its files and its exit code; None where its time was over."""
    findings, output = folder / "findings.json", (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
    found = json.loads(findings.read_text(encoding="utf-8")) if findings.exists() else Report().found()
    if code is None:
        status, reason = "cut", f"its {limit:.0f} s were over; what it had found by then is here"
    elif code != 0:
        status, reason = "broken", f"exit code {code}: {one_line((output.strip().splitlines() or [''])[-1])}"
    else:
        status, reason = "wrong" if any(not each["right"] for each in found["checks"]) else "passed", ""
        if not found["checks"]:
            status, reason = "broken", "it checked nothing"
    return {"status": status, "reason": reason, **found, "output": output[-KEPT_OUTPUT:]}


def perform(number: int, setup: Setup) -> None:
    """A stage in this process; what it finds goes into its folder."""
    module, name = STAGES[number].where
    report = Report(setup.folder / "findings.json")
    with report.part(STAGES[number].title):
        getattr(importlib.import_module(module), name)(report, setup)


def machine_now() -> dict[str, Any]:
    """Processor, versions and GPUs. This process leaves them alone, as some let one process in at a time."""
    import torch
    from renderer import machine

    found = machine(torch.get_num_threads()) | {"cuda_of_torch": torch.version.cuda}
    if tool := shutil.which("nvidia-smi"):
        asked = [tool, "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader"]
        with suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20.0)
            found["gpus"] = told.stdout.splitlines()
    return found


def table(found: dict[int, dict[str, Any]]) -> list[str]:
    """For people: what passed, what to look at, the figures."""
    lines = []
    for number, each in found.items():
        checks = each.get("checks", [])
        right = f"{sum(check['right'] for check in checks)} of {len(checks)} right" if checks else ""
        took = f"{each['seconds']:.0f} s" if "seconds" in each else ""
        head = f"{number}  {each['title']:32} {each['status']:9} {took:>6}  {right}  {each.get('reason', '')}"
        lines.append(head.rstrip())
        lines += [f"   LOOK AT {check['what']}: {check['said']}" for check in checks if not check["right"]]
        lines += [f"   {remark}" for remark in each.get("remarks", [])]
        lines += [f"   needs a GPU: {what}" for what in each.get("needs_a_gpu", [])]
        for name, value in each.get("figures", {}).items():
            text = json.dumps(value)
            lines.append(f"   {name}: {text if len(text) <= 160 else f'{text[:150]} ... (in the JSON)'}")
    return lines


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the stages, write the JSON, print the table."""
    parser = OneLineParser("gpu.py", description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("gpu.json"), help="JSON file to write (default %(default)s)"
    )
    parser.add_argument("--minutes", type=in_range(float, 0.05, 600.0), default=8.0, help="for all (default 8)")
    parser.add_argument("--stages", default="1,2,3,4,5,6", help="which, separated by commas (default all)")
    parser.add_argument("--small", action="store_true", help="tiny sizes, whose figures say nothing: a rehearsal")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only with --small")
    for name, kind in (("--run-stage", int), ("--folder", Path), ("--seconds", float)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.run_stage is not None:
        if given.run_stage not in STAGES or given.folder is None or given.seconds is None:
            parser.error("--run-stage: is what gpu.py itself starts; --stages says which to run")
        ends = time.monotonic() + given.seconds - EARLIER
        perform(given.run_stage, Setup(given.device, given.small, given.folder, ends))
        sys.exit(0)
    numbers = _numbers(given.stages, parser)
    if given.device == "cpu" and not given.small:
        parser.error("device=cpu: must come with --small, as the stages are sized for a GPU")
    output = given.output.absolute()
    try:
        check_output(output, [".json"])
    except ExportError as error:
        parser.error(str(error))
    if given.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("device=cuda: torch sees no CUDA GPU here; --small --device cpu rehearses on a CPU")
    try:
        write_json(output, {"complete": False})
        _folder(output).mkdir(exist_ok=True)
    except (WriteError, OSError) as error:  # told before eight minutes are spent
        parser.error(f"output={output}: {one_line(str(error))}")
    sys.exit(_run(given, numbers, output))


def _folder(output: Path) -> Path:
    """Of a run's files, beside its JSON."""
    return output.with_name(f"{output.stem}_files")


def _run(given: argparse.Namespace, numbers: list[int], output: Path) -> int:
    folder = _folder(output)
    content = {"command": sys.argv, "small": given.small, "device": given.device, "minutes": given.minutes}
    content |= {"complete": False, "machine": machine_now(), "stages": {}}

    def keep(found: dict[int, dict[str, Any]]) -> None:
        content["stages"] = found
        write_json(output, content)
        last = list(found.values())[-1]
        print(f"{list(found)[-1]}  {last['title']}: {last['status']} {last.get('reason', '')}".rstrip(), flush=True)

    def begin(number: int, limit: float) -> dict[str, Any]:
        return in_a_process(number, limit, folder / f"stage{number}", given.device, given.small)

    with _ended_by_signals():
        found = run_stages(numbers, 60.0 * given.minutes, begin, keep, small=given.small)
    lines = table(found)
    write_json(output, {**content, "complete": True, "table": lines})
    print("\n".join(["", *lines, "", f"all of it: {output}; files: {folder}"]))
    return 1 if any(each["status"] in WRONG for each in found.values()) else 0


def _numbers(text: str, parser: OneLineParser) -> list[int]:
    """The stages that `--stages` names, in their order."""
    known, words = [str(number) for number in STAGES], [word.strip() for word in text.split(",")]
    if not {*words} <= {*known} or len({*words}) < len(words):
        parser.error(f"stages={text}: must be some of {','.join(known)}, each once")
    return sorted(int(word) for word in words)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A stage does not outlive a run that is told to end."""

    def end(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
