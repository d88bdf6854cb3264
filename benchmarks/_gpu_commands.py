"""The stages of `gpu.py` that run programs: short runs and their resumes, the tests, a sculpture with its scorecard."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from _gpu_report import ROOT, Done, Report, Setup

SECONDS = re.compile(r"([\d.]+)/s")
TAKEN = re.compile(r"^(\S+: (?:impl='auto'|implementation=auto)) takes (the reference|\w+)(.*)$", re.MULTILINE)
RUNS = {"default": (), "hash_grid_gpu, torch": ("--config", "hash_grid_gpu", "--volume.implementation", "torch")}
QUIET = ("--viewer.enabled", "false", "--scorecard.every", "0")
STEPS, SMALL_STEPS = 80, 3
TINY_DATA = ("--data.limit", "100", "--trainer.views", "4")
TINY = {
    "default": (*TINY_DATA, "--volume.resolution", "8"),
    "hash_grid_gpu, torch": (*TINY_DATA, "--renderer.samples_per_ray", "8", "--volume.log2_hashmap_size", "8"),
}
# A right and a wrong answer of the kernel must both end within what memcheck makes of it, which is some fifty times as
# slow: unequal, odd and single-voxel axes, and no more.
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
SANITIZER_SECONDS = 60.0


def short_runs(report: Report, setup: Setup) -> None:
    """80 steps and as many after a resume, of the default and of `hash_grid_gpu` with PyTorch."""
    with report.part("mnist3d doctor"):
        report.check("mnist3d doctor ends with 0", _ended(setup.mnist3d("doctor")))
    for name in RUNS:
        with report.part(name):
            _run_and_resume(name, report, setup)


def _run_and_resume(name: str, report: Report, setup: Setup) -> None:
    steps, run = SMALL_STEPS if setup.small else STEPS, setup.folder / name.partition(",")[0]
    shape = (*RUNS[name], *(TINY[name] if setup.small else ()), "--trainer.max_steps", str(2 * steps))
    begun = setup.mnist3d(
        "train", "--run_dir", str(run), *shape, *QUIET, "--trainer.stop_after", str(steps), "--device", setup.device
    )
    report.check(f"{name}: {steps} steps", _ended(begun), _last_line(begun))
    if not _ended(begun):
        return
    first = _read_stats(report, f"{name}: the first half", run, steps)
    resumed = setup.mnist3d("train", "--resume", str(run), *QUIET, "--device", setup.device)
    report.check(f"{name}: {steps} steps after a resume", _ended(resumed), _last_line(resumed))
    second = _read_stats(report, f"{name}: the second half", run, 2 * steps)
    report.figure(f"{name}: steps/s, and after the resume", [first, second])
    said = [dict((what, taken) for what, taken, _ in TAKEN.findall(done.output)) for done in (begun, resumed)]
    lines = ["".join(line) for line in (" takes ".join(found[:2]) + found[2] for found in TAKEN.findall(begun.output))]
    report.figure(f"{name}: auto", lines)
    report.check(f"{name}: auto takes the same after the resume", said[0] == said[1], f"{said[0]}, {said[1]}")


def _read_stats(report: Report, what: str, run: Path, until: int) -> float | None:
    """Steps a second between the first and the last line of a session; checks that its figures are finite numbers."""
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if line.get("step", 0) <= until and "volume_loss" in line]
    steps = [line for line in steps if 2 * line["step"] > until or line["step"] == until or until <= STEPS]
    wrong = sorted({key for line in steps for key, value in line.items() if not _finite(value)})
    report.check(f"{what}: finite figures", bool(steps) and not wrong, ", ".join(wrong) or f"{len(steps)} lines")
    if len(steps) < 2 or steps[-1]["seconds"] <= steps[0]["seconds"]:
        return None
    return round((steps[-1]["step"] - steps[0]["step"]) / (steps[-1]["seconds"] - steps[0]["seconds"]), 2)


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_finite(each) for each in value)
    return isinstance(value, int | float) and math.isfinite(value)


def gpu_tests(report: Report, setup: Setup) -> None:
    """Every test that skips without a GPU, then memory accesses under compute-sanitizer."""
    with report.part("tests"):
        _run_tests(report, setup)
    with report.part("compute-sanitizer"):
        _check_memory(report, setup)


def test_files() -> list[Path]:
    """Those with a test that skips without a GPU."""
    mark = "skipif(not torch.cuda.is_available()"
    return [path for path in sorted((ROOT / "tests").glob("test_*.py")) if mark in path.read_text(encoding="utf-8")]


def _run_tests(report: Report, setup: Setup) -> None:
    written, files = setup.folder / "tests.xml", [str(path) for path in test_files()]
    words = ["-m", "pytest", "-o", "addopts=", "-p", "benchmarks._gpu_tests", "-q", "-rA", f"--junitxml={written}"]
    done = setup.command([*words, *files], setup.left())
    cases = [] if not written.exists() else list(ElementTree.parse(written).iter("testcase"))
    ended = {f"{case.get('classname')}.{case.get('name')}": {child.tag for child in case} for case in cases}
    failed = sorted(name for name, tags in ended.items() if tags & {"failure", "error"})
    skipped = sorted(name for name, tags in ended.items() if "skipped" in tags)
    counts = {"passed": len(ended) - len(failed) - len(skipped), "failed": failed, "skipped": skipped}
    report.figure("tests that skip without a GPU", counts)
    right = done.code == 0 and bool(ended) and not failed
    report.check("tests", right, ", ".join(failed) or (f"{len(ended)} found" if right else _last_line(done)))
    if setup.on_gpu:
        report.check("none of them skipped", not skipped, ", ".join(skipped))
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
    flags = ["--tool", "memcheck", "--target-processes", "all", "--error-exitcode", "99", "--print-limit", "20"]
    code = setup.folder / "memory_check.py"
    code.write_text(MEMORY_CHECK, encoding="utf-8")
    # run_python's path is a word here: compute-sanitizer starts the interpreter. Torch's cache would hide what is read
    # beyond a tensor's end.
    import sys

    words = [found, *flags, sys.executable, str(code)]
    done = setup.command(["-c", _WITHOUT_CACHE, *words], min(SANITIZER_SECONDS, setup.left()))
    if done.code is None:
        report.remark(f"compute-sanitizer did not end within {done.seconds:.0f} s")
        return
    clean = done.code == 0 and "rendered" in done.output and "ERROR SUMMARY: 0 errors" in done.output
    report.check("memory accesses of the Triton kernel", clean, _last_line(done))


_WITHOUT_CACHE = """
import os, subprocess, sys
sys.exit(subprocess.run(sys.argv[1:], env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}).returncode)
"""


def sculpture(report: Report, setup: Setup) -> None:
    """A run of two minutes at the default settings, and how good it is."""
