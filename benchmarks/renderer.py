"""Speed and memory of the absorption kernels against the PyTorch reference and its peers, on the CPU.

    python benchmarks/renderer.py --output renderer.json

Each setting renders forward and backward with the gradient to both channels of the volume. Every variant is
warmed up, then all take turns in one process, so that a busy machine slows all alike: trust the ratios (the
median over the rounds of the fastest reference's time through the variant's in the same round), not the
milliseconds. Peak memory is measured in a process of its own a variant, as the rise of the resident set over
what it was before the call. Peers that are not installed are left out:
`pip install nerfacc warp-lang diffdrr` adds them, a C++ compiler adds torch.compile.

Written: one JSON with metadata, every time measured and the summaries that the table shows.
"""

import argparse
import json
import os

# As in train.py: threads of torch that wait by spinning would take the cores from those that are timed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
from _peers import OURS, REFERENCES, Render, peers
from torch import Tensor


class Setting(NamedTuple):
    """What is rendered."""

    views: int
    image_size: int
    edge: int
    """voxels along each edge of the grid"""
    num_samples: int


SETTINGS = {
    "A": Setting(32, 32, 32, 32),
    "B": Setting(16, 64, 64, 64),
    "C": Setting(4, 128, 128, 128),
}
TINY = Setting(2, 8, 8, 8)


def scene(setting: Setting) -> tuple[Tensor, Tensor, Tensor]:
    """A random volume, of medium density so that rays go through it, and uniform rotations."""
    generator = torch.Generator().manual_seed(0)
    attenuation, absorbance = torch.rand((2, *[setting.edge] * 3), generator=generator)
    rotation, upper = torch.linalg.qr(torch.randn(setting.views, 3, 3, generator=generator))
    rotation = rotation * torch.diagonal(upper, dim1=-2, dim2=-1).sign()[:, None, :]
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    return (5.0 * attenuation).requires_grad_(), absorbance.requires_grad_(), rotation


def step(render: Render, setting: Setting, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    inputs[0].grad = inputs[1].grad = None
    start = time.perf_counter()
    image = render(*inputs, setting.image_size, setting.num_samples)
    middle = time.perf_counter()
    image.backward(torch.ones_like(image))
    return middle - start, time.perf_counter() - middle


def interleaved(
    jobs: dict[str, Callable[[], tuple[float, float]]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Each job once to warm up, then `rounds` times in turn."""
    for job in jobs.values():
        job()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(job())
    return times


def summarise(times: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, Any]]:
    totals = {name: [forward + backward for forward, backward in each] for name, each in times.items()}
    fastest = min((name for name in totals if name in REFERENCES), key=lambda name: median(totals[name]))
    summary = {}
    for name, each in totals.items():
        low, _, high = quantiles(each, n=4)
        summary[name] = {
            "median_ms": 1e3 * median(each),
            "quartiles_ms": [1e3 * low, 1e3 * high],
            "forward_ms": 1e3 * median(forward for forward, _ in times[name]),
            "backward_ms": 1e3 * median(backward for _, backward in times[name]),
            "ratio_to_fastest_reference": median(ours / own for ours, own in zip(totals[fastest], each, strict=True)),
            "times_ms": [1e3 * value for value in each],
        }
    return summary


def _resident(key: str) -> int:
    """VmRSS or VmHWM, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {key} in /proc/self/status: peak memory is measured on Linux only")


def peak_rise(render: Render, setting: Setting) -> int:
    """Bytes by which one forward and backward pass raises the resident set at its peak."""
    step(render, TINY, scene(TINY))  # imports and compilation
    inputs = scene(setting)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before = _resident("VmRSS")
    step(render, setting, inputs)
    return _resident("VmHWM") - before


def measure_peaks(names: list[str], settings: dict[str, Setting], threads: int) -> dict[str, dict[str, float]]:
    """MiB for each setting and variant, each in a fresh process."""
    found: dict[str, dict[str, float]] = {}
    for label, setting in settings.items():
        found[label] = {}
        for name in names:
            command = [
                sys.executable,
                __file__,
                "--peak-of",
                name,
                "--threads",
                str(threads),
                "--setting",
                *map(str, setting),
            ]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            found[label][name] = int(result.stdout) / 2**20
    return found


def machine(threads: int) -> dict[str, Any]:
    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line.split(":")[1].strip() for line in information.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    packages = {}
    for package in ("torch", "numba", "numpy", "nerfacc", "warp-lang", "diffdrr"):
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            packages[package] = None
    return {
        "processor": processor,
        "processors": os.cpu_count(),
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": packages,
        "date": time.strftime("%Y-%m-%d"),
    }


def two_threads(rounds: int) -> dict[str, dict[str, float]]:
    """How many times faster two threads are than one at B: median of the pairs, and of the fastest times.

    The first falls when anything else wants a core, the second hardly.
    """
    setting = SETTINGS["B"]
    inputs = scene(setting)

    def job(name: str, threads: int) -> Callable[[], tuple[float, float]]:
        def run() -> tuple[float, float]:
            torch.set_num_threads(threads)
            return step(OURS[name], setting, inputs)

        return run

    times = interleaved({f"{name} {threads}": job(name, threads) for name in OURS for threads in (1, 2)}, rounds)
    found = {}
    for name in OURS:
        one, two = ([sum(each) for each in times[f"{name} {threads}"]] for threads in (1, 2))
        found[name] = {
            "median": median(single / both for single, both in zip(one, two, strict=True)),
            "fastest": min(one) / min(two),
        }
    return found


def show(label: str, setting: Setting, summary: dict[str, dict[str, Any]], peaks: dict[str, float]) -> None:
    print(
        f"\n{label}: {setting.views} views of {setting.image_size}^2, grid {setting.edge}^3, "
        f"{setting.num_samples} samples"
    )
    print(f"{'variant':28} {'ms':>9} {'quartiles':>17} {'forward':>9} {'backward':>9} {'ratio':>7} {'peak MiB':>9}")
    for name, row in summary.items():
        low, high = row["quartiles_ms"]
        print(
            f"{name:28} {row['median_ms']:9.1f} {low:8.1f}-{high:8.1f} {row['forward_ms']:9.1f} "
            f"{row['backward_ms']:9.1f} {row['ratio_to_fastest_reference']:7.2f} {peaks.get(name, float('nan')):9.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--rounds", type=int, default=9, help="times every variant is run (default 9)")
    parser.add_argument("--quick", action="store_true", help="three rounds, settings A and B, no peers")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    variants = REFERENCES | OURS | ({} if arguments.quick else peers())
    if arguments.peak_of:
        print(peak_rise(variants[arguments.peak_of], Setting(*arguments.setting)))
        return
    rounds = 3 if arguments.quick else arguments.rounds
    settings = {label: SETTINGS[label] for label in ("AB" if arguments.quick else "ABC")}
    many = {f"B, {samples} samples": SETTINGS["B"]._replace(num_samples=samples) for samples in (64, 256)}
    peaks = measure_peaks(list(variants), settings, arguments.threads) | measure_peaks(
        list(OURS), many, arguments.threads
    )

    # First: peers bring OpenMP runtimes of their own, after which two threads wait for each other.
    speedup = two_threads(4 * rounds)
    torch.set_num_threads(arguments.threads)
    results = {}
    for label, setting in settings.items():
        inputs = scene(setting)
        jobs = {
            name: lambda render=render, setting=setting, inputs=inputs: step(render, setting, inputs)
            for name, render in variants.items()
        }
        results[label] = {"setting": setting._asdict(), "variants": summarise(interleaved(jobs, rounds))}
        show(label, setting, results[label]["variants"], peaks[label])
    print("\ntwo threads at B, times as fast as one (median of pairs, fastest times):")
    print(", ".join(f"{name} {ratio['median']:.2f}, {ratio['fastest']:.2f}" for name, ratio in speedup.items()))
    for label in many:
        print(f"peak at {label}:", ", ".join(f"{name} {value:.1f} MiB" for name, value in peaks[label].items()))
    if arguments.output:
        report = {
            "machine": machine(arguments.threads),
            "rounds": rounds,
            "settings": results,
            "peak_rise_mib": peaks,
            "two_threads_at_b": speedup,
        }
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
