"""The stages of `gpu.py` about right numbers: what tiny-cuda-nn answers, and gradients of many points."""

import sys
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from _gpu_report import ROOT, Report, Setup
from hash_encoding import LEVELS
from torch import Tensor

from mnist3d.kernels.choice import Tolerance
from mnist3d.kernels.hash_encoding import HashLevels, encode_and_evaluate, hash_encode, tinycudann_obstacle
from mnist3d.kernels.hash_encoding.field import FULL, HALF
from mnist3d.kernels.hash_encoding.tiny_cuda_nn import WIDEST_IN_FULL, encode_in_full_precision

POINTS, FEW_POINTS = 10**6, 2000
HIDDEN = 32
RECORDED = "tinycudann.npz"
Encode = Callable[[Tensor, Tensor, HashLevels], Tensor]


def golden_numbers(report: Report, setup: Setup) -> None:
    """The encoders on the device against tests/golden, and a recording of tinycudann where it can be imported."""
    with report.part("torch against tests/golden"):
        _against_golden("torch", _by_torch, None, report, setup)
    if obstacle := tinycudann_obstacle():
        _without_tinycudann("tinycudann against tests/golden, and its recording", obstacle, report, setup)
        return
    with report.part("tinycudann against tests/golden"):
        _against_golden("tinycudann", _by_tinycudann, WIDEST_IN_FULL, report, setup)
    with report.part("recording of tinycudann"):
        written = setup.folder / RECORDED
        done = setup.command(["benchmarks/record_tinycudann.py", "--output", str(written)], setup.left())
        report.figure("recording of tinycudann", done.output.splitlines())
        report.check("recording of tinycudann", done.code == 0 and written.exists(), f"exit code {done.code}")
        if written.exists():
            report.remark(f"copy {RECORDED} to tests/golden/: a test waits for it")


def _by_torch(points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    return hash_encode(points, table, levels, "torch")


def _by_tinycudann(points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    return encode_in_full_precision(points.float(), table.float(), levels)


def _against_golden(name: str, encode: Encode, widest: int | None, report: Report, setup: Setup) -> None:
    """The test of the encoders, with an encoder on the device in place of theirs, within the test's tolerance."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.append(str(ROOT / "tests"))
    import test_golden  # pyright: ignore[reportMissingImports]

    off = 0.0

    def on_device(points: Tensor, table: Tensor, levels: HashLevels, _: str) -> Tensor:
        nonlocal off
        found = encode(points.to(setup.device), table.to(setup.device), levels).to("cpu", points.dtype)
        off = max(off, (found - _by_torch(points, table, levels)).detach().abs().max().item())
        return found

    with np.load(test_golden.GOLDEN) as numbers:
        golden = dict(numbers)
    widths = [test_golden.levels_of(golden, which)[0].width for which in range(test_golden.CONFIGURATIONS)]
    taken = [which for which, width in enumerate(widths) if widest is None or width <= widest]
    wrong = []
    with mock.patch.object(test_golden, "hash_encode", on_device):
        for which in taken:
            try:
                test_golden.test_the_encoders(golden, which)
            except AssertionError:
                wrong.append(which)
    report.figure(f"{name}, largest difference to torch on the CPU", off)
    said = f"configurations {wrong} are off" if wrong else f"{len(taken)} configurations"
    report.check(f"{name} against tests/golden", bool(taken) and not wrong, said)


def gradients(report: Report, setup: Setup) -> None:
    """Gradients of the hash encoding and its network at a million points, against torch in double precision."""
    variants: dict[str, tuple[str, torch.dtype, bool, Tolerance]] = {
        "torch, float32": ("torch", torch.float32, False, FULL),
        "tinycudann, half": ("tinycudann", torch.float32, False, HALF),
        "tinycudann, full": ("tinycudann", torch.float32, True, FULL),
    }
    obstacle = tinycudann_obstacle()
    inputs = _inputs(FEW_POINTS if setup.small else POINTS)
    exact = _gradients(inputs, "torch", torch.float64, False, setup.device)
    for name, (impl, dtype, full, tolerance) in variants.items():
        if impl == "tinycudann" and obstacle:
            _without_tinycudann(f"gradients of {name}", obstacle, report, setup)
            continue
        with report.part(name):
            found = _gradients(inputs, impl, dtype, full, setup.device)
            for quantity, truth in exact.items():
                errors = relative_errors(found[quantity], truth)
                report.figure(f"{name}, {quantity}", errors)
                # As a whole, as a ReLU or the border of a cell that rounding crosses changes the gradient of one point.
                right = errors["as a whole"] <= tolerance.gradient  # NaN fails too
                said = f"{errors['as a whole']:.2g}, allowed {tolerance.gradient:g}"
                report.check(f"{name}, gradient to {quantity}", right, said)


def relative_errors(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Of a gradient: the largest error relative to the largest element, the median of the relative errors of elements
    that are not 0, and the root mean square relative to that of the truth."""
    off, size = (found.double() - truth).abs().flatten(), truth.abs().flatten()
    there = size > 0.0
    return {
        "largest": (off.max() / size.max()).item(),
        "median": (off[there] / size[there]).median().item(),
        "as a whole": (off.square().mean() / size.square().mean()).sqrt().item(),
    }


def _inputs(count: int) -> list[Tensor]:
    """Points, table and the network's two matrices, float64 on the CPU, as large as in a fresh volume."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    points = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    table = 0.3 * normal(LEVELS.entries, LEVELS.features_per_level)
    weights = normal(HIDDEN, LEVELS.width) / LEVELS.width**0.5, normal(2, HIDDEN) / HIDDEN**0.5
    return [each.float().double() for each in (points, table, *weights)]  # the same numbers in each precision


def _gradients(inputs: list[Tensor], impl: str, dtype: torch.dtype, full: bool, device: str) -> dict[str, Tensor]:
    points, table, *weights = (each.to(device, dtype).requires_grad_() for each in inputs)
    answer = encode_and_evaluate(points, table, weights, LEVELS, impl, full)
    upstream = torch.sin(torch.arange(answer.numel(), dtype=torch.float64)).to(answer).view_as(answer)
    found = torch.autograd.grad(answer, [points, table, *weights], upstream)
    return dict(zip(("points", "table", "first layer", "last layer"), found, strict=True))


def _without_tinycudann(what: str, obstacle: str, report: Report, setup: Setup) -> None:
    if setup.on_gpu:
        report.remark(f"{what}: left out, as {obstacle}")
    else:
        report.skip_on_cpu(what)
