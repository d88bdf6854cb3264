"""The stages of `gpu.py` that run programs: short runs and their resumes, the tests, a sculpture with its scorecard."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from _gpu_report import ROOT, Done, Report, Setup

TAKEN = re.compile(r"^(\S+: (?:impl='auto'|implementation=auto)) takes (the reference|\w+)", re.MULTILINE)
RUNS = {"default": (), "hash_grid_gpu, torch": ("--config", "hash_grid_gpu", "--volume.implementation", "torch")}
QUIET = ("--viewer.enabled", "false", "--scorecard.every", "0")
STEPS, SMALL_STEPS = 80, 20  # figures are kept every 20 steps
FEW = ("--data.limit", "100", "--trainer.views", "4")
TINY = {
    "default": (*FEW, "--volume.resolution", "8"),
    "hash_grid_gpu, torch": (*FEW, "--renderer.samples_per_ray", "8", "--volume.log2_hashmap_size", "8"),
}
# Unequal, odd and single-voxel axes, and no more: memcheck makes kernels some fifty times as slow.
MEMORY_CHECK = """
import torch
from mnist3d.kernels.absorption import render_grid
for shape, views, size, samples in (((7, 4, 9), 2, 11, 29), ((1, 6, 5), 2, 7, 9), ((1, 1, 1), 1, 5, 1)):
    grids = torch.rand(2, *shape, device="cuda").requires_grad_()
    rotation = torch.eye(3, device="cuda").repeat(views, 1, 1).requires_grad_()
    render_grid(grids[0], grids[1], rotation, size, samples, impl="triton").sum().backward()
torch.cuda.synchronize()
print("rendered")
"""
MEMORY_CHECK_SECONDS = 60.0
KEPT_SCORES = ("legible", "clean", "effective_classes", "rarest_share", "frechet_distance")


def short_runs(report: Report, setup: Setup) -> None:
    """80 steps and as many after a resume, of the default and of `hash_grid_gpu` with PyTorch."""
    with report.part("mnist3d doctor"):
        done = setup.mnist3d("doctor")
        report.check("mnist3d doctor", done.code == 0, "" if done.code == 0 else _how(done))
        report.figure("mnist3d doctor", done.output.splitlines())
    for name in RUNS:
        with report.part(name):
            _run_and_resume(name, report, setup)


def _run_and_resume(name: str, report: Report, setup: Setup) -> None:
    steps, run = SMALL_STEPS if setup.small else STEPS, setup.folder / name.partition(",")[0]
    same = (*QUIET, "--device", setup.device)
    length = ("--trainer.max_steps", str(2 * steps), "--trainer.stop_after", str(steps))
    shape = (*RUNS[name], *(TINY[name] if setup.small else ()))
    rates, taken = [], []
    for label, after, asked in (
        (f"{name}, {steps} steps", 0, ("--run_dir", str(run), *shape, *length)),
        (f"{name}, {steps} steps after a resume", steps, ("--resume", str(run))),
    ):
        done = setup.mnist3d("train", *asked, *same)
        report.check(label, done.code == 0, _how(done))
        if done.code != 0:
            return  # nothing to resume
        rates.append(_rate(report, label, run, after, after + steps))
        taken.append(dict(TAKEN.findall(done.output)))
    report.figure(f"{name}, steps/s before and after the resume", rates)
    report.figure(f"{name}, auto takes", taken[0])
    report.check(f"{name}, auto takes the same after the resume", taken[0] == taken[1], f"{taken[0]}, {taken[1]}")
    _drop_checkpoints(run)


def _rate(report: Report, label: str, run: Path, after: int, until: int) -> float | None:
    """Steps a second between the first and the last line of a session; checks that all figures are finite numbers."""
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if after < line.get("step", 0) <= until and "volume_loss" in line]
    wrong = sorted({key for line in lines for key, value in line.items() if not _finite(value)})
    whole = bool(lines) and lines[-1]["step"] == until
    said = f"not finite: {', '.join(wrong)}" if wrong else "" if whole else f"stats.jsonl has no step {until}"
    report.check(f"{label}, finite losses", whole and not wrong, said)
    if len(lines) < 2 or lines[-1]["seconds"] <= lines[0]["seconds"]:
        return None
    return round((lines[-1]["step"] - lines[0]["step"]) / (lines[-1]["seconds"] - lines[0]["seconds"]), 2)


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_finite(each) for each in value)
    return isinstance(value, int | float) and math.isfinite(value)  # stats.jsonl has null for NaN


def _how(done: Done) -> str:
    """How a command ended."""
    last = (done.output.split("\n") if not done.output.strip() else done.output.strip().splitlines())[-1]
    ended = "stopped, as the time of the stage was over" if done.code is None else f"exit code {done.code}"
    return f"{ended} after {done.seconds:.0f} s" + (f": {last}" if done.code != 0 and last else "")


def gpu_tests(report: Report, setup: Setup) -> None:
    """Every test that skips without a GPU, then memory accesses under compute-sanitizer."""
    with report.part("tests"):
        _run_tests(report, setup)
    with report.part("compute-sanitizer"):
        _check_memory(report, setup)


def files_with_gpu_tests() -> list[Path]:
    """Test files with a test that skips without a GPU."""
    asked = "not torch.cuda.is_available()"
    return [path for path in sorted((ROOT / "tests").glob("test_*.py")) if asked in path.read_text(encoding="utf-8")]


def _run_tests(report: Report, setup: Setup) -> None:
    written, files = setup.folder / "tests.xml", [str(path) for path in files_with_gpu_tests()]
    words = ["-m", "pytest", "-o", "addopts=", "-p", "benchmarks._gpu_tests", "-q", "-rA", f"--junitxml={written}"]
    done = setup.command([*words, *files], setup.left())
    if not written.exists():
        report.check("tests", False, _how(done))
        return
    ended = {
        f"{case.get('classname')}.{case.get('name')}": {child.tag for child in case}
        for case in ElementTree.parse(written).iter("testcase")
    }
    failed = sorted(name for name, tags in ended.items() if tags & {"failure", "error"})
    skipped = sorted(name for name, tags in ended.items() if "skipped" in tags)
    passed = sorted({*ended} - {*failed} - {*skipped})
    report.figure("tests that skip without a GPU", {"passed": passed, "failed": failed, "skipped": skipped})
    report.check("tests, none failed", done.code == 0 and bool(ended) and not failed, ", ".join(failed) or _how(done))
    if setup.on_gpu:
        report.check("tests, all ran", not skipped, f"{len(passed)} of {len(ended)}")
    for name in () if setup.on_gpu else skipped:
        report.skip_on_cpu(name)


def _check_memory(report: Report, setup: Setup) -> None:
    if not setup.on_gpu:
        report.skip_on_cpu("the Triton kernel under compute-sanitizer")
        return
    found = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if found is None:
        report.remark("compute-sanitizer is not on PATH: memory accesses were not checked")
        return
    code = setup.folder / "memory_check.py"
    code.write_text(MEMORY_CHECK, encoding="utf-8")
    flags = ["--tool", "memcheck", "--target-processes", "all", "--error-exitcode", "99", "--print-limit", "20"]
    words = [found, *flags, sys.executable, str(code)]
    # torch's cache would hide what is read beyond the end of a tensor
    done = setup.command(words, min(MEMORY_CHECK_SECONDS, setup.left()), PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    if done.code is None:
        report.remark(f"compute-sanitizer did not end within {done.seconds:.0f} s: memory accesses were not checked")
        return
    clean = done.code == 0 and "rendered" in done.output and "ERROR SUMMARY: 0 errors" in done.output
    report.check("memory accesses of the Triton kernel", clean, _how(done))


def sculpture(report: Report, setup: Setup) -> None:
    """A run of two minutes at the default settings, and how good its views are."""
    run = setup.folder / "run"
    # A session that is limited by steps may take longer than one that is limited by time, and then nothing is scored.
    length = ("--trainer.max_steps", "4") if setup.small else ("--trainer.max_minutes", "2")
    shape = ("--trainer.views", "4", "--volume.resolution", "8") if setup.small else ()
    trained = setup.mnist3d("train", "--run_dir", str(run), *shape, *length, *QUIET, "--device", setup.device)
    report.check("sculpture", trained.code == 0, _how(trained))
    if trained.code != 0:
        return
    last = json.loads((run / "stats.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    report.figure("steps", last["step"])
    report.figure("auto takes", dict(TAKEN.findall(trained.output)))
    scored = setup.mnist3d("score", str(run), "--views", "20" if setup.small else "500")
    report.check("scorecard", scored.code == 0, _how(scored))
    if scored.code == 0:
        scores = json.loads((run / "scorecard.json").read_text(encoding="utf-8"))["poses"]
        for poses, found in scores.items():
            report.figure(poses, {name: found[name] for name in KEPT_SCORES})
    _drop_checkpoints(run)


def _drop_checkpoints(run: Path) -> None:
    """What is left is to be taken home, and these are the most of it."""
    for path in run.glob("resume*.pt"):
        path.unlink()
