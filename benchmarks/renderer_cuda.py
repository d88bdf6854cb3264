"""Speed and memory of the trilinear renderer on a CUDA GPU: the reference, torch.compile of it, and Triton.

    python benchmarks/renderer_cuda.py --output renderer_cuda.json

Settings A, B and C of `renderer.py`, and D, forward and backward with the gradient to both channels of the
volume. First every variant's image and gradients, that to the rotation too, are compared with the reference's
in float64. Then each is warmed up and all take turns; trust the ratios. A variant that does not fit into the
memory is shown as such.

`impl="auto"` makes a smaller comparison of its own between the reference and Triton on the machine that it runs on.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from _peers import Render
from renderer import SETTINGS, Setting, machine, scene
from torch import Tensor

from mnist3d.kernels.absorption import render_grid
from mnist3d.testing.kernels import TOLERANCES

CUDA_SETTINGS = SETTINGS | {"D": Setting(64, 128, 128, 128)}


def reference(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """Plain PyTorch."""
    return render_grid(attenuation, absorbance, rotation, size, samples, impl="reference")


def looped(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """Plain PyTorch, one view at a time: fits where all views at once do not."""
    return torch.cat([reference(attenuation, absorbance, turn[None], size, samples) for turn in rotation])


def triton(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """The fused kernel."""
    return render_grid(attenuation, absorbance, rotation, size, samples, impl="triton")


VARIANTS = {
    "reference": reference,
    "reference, looped": looped,
    "reference, torch.compile": torch.compile(reference, dynamic=False),
    "triton": triton,
}


def errors(name: str) -> tuple[float, float]:
    """Of the image, and of the gradients as a share of their largest element, against float64 at setting A."""
    setting = CUDA_SETTINGS["A"]
    found = [view_and_gradients(VARIANTS[name], setting, torch.float32)]
    found.append(view_and_gradients(reference, setting, torch.float64))
    off = [(ours.double() - theirs).abs().max().item() for ours, theirs in zip(*found, strict=True)]
    return off[0], max(each / theirs.abs().max().item() for each, theirs in zip(off[1:], found[1][1:], strict=True))


def view_and_gradients(render: Render, setting: Setting, dtype: torch.dtype) -> list[Tensor]:
    grid, absorbance, rotation = (tensor.detach().to("cuda", dtype).requires_grad_() for tensor in scene(setting))
    image = render(grid, absorbance, rotation, setting.image_size, setting.num_samples)
    upstream = torch.linspace(-1.0, 1.0, image.numel(), dtype=dtype, device="cuda").view_as(image)
    return [image.detach(), *torch.autograd.grad(image, (grid, absorbance, rotation), upstream)]


def step(name: str, setting: Setting, inputs: tuple[Tensor, Tensor, Tensor]) -> float | None:
    """Milliseconds of a forward and a backward pass; None where the memory does not suffice."""
    inputs[0].grad = inputs[1].grad = None
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    try:
        start.record()
        image = VARIANTS[name](*inputs, setting.image_size, setting.num_samples)
        image.backward(torch.ones_like(image))
        end.record()
        torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    return start.elapsed_time(end)


def measure(setting: Setting, names: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    attenuation, absorbance, rotation = (tensor.detach().cuda() for tensor in scene(setting))
    inputs = (attenuation.requires_grad_(), absorbance.requires_grad_(), rotation)
    peaks, times = {}, {name: [] for name in names}
    for name in names:  # warm-up, compilation
        if step(name, setting, inputs) is None:
            del times[name]
            continue
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(name, setting, inputs)
        peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    for _ in range(rounds):
        for name, each in times.items():
            if (value := step(name, setting, inputs)) is not None:
                each.append(value)
    references = [median(each) for name, each in times.items() if name.startswith("reference")]
    return {
        name: {
            "median_ms": median(each),
            "quartiles_ms": quantiles(each, n=4)[::2],
            "ratio_to_fastest_reference": min(references, default=float("nan")) / median(each),
            "peak_mib": peaks[name],
            "times_ms": each,
        }
        for name, each in times.items()
    }


def show(label: str, setting: Setting, rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{label}: {setting.views} views of {setting.image_size}^2, grid {setting.edge}^3", end="")
    print(f", {setting.num_samples} samples")
    print(f"{'variant':26} {'ms':>9} {'quartiles':>17} {'ratio':>7} {'peak MiB':>9}")
    for name in VARIANTS:
        if name not in rows:
            print(f"{name:26} not enough memory")
            continue
        row, (low, high) = rows[name], rows[name]["quartiles_ms"]
        print(
            f"{name:26} {row['median_ms']:9.2f} {low:8.2f}-{high:8.2f} {row['ratio_to_fastest_reference']:7.2f} "
            f"{row['peak_mib']:9.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=21, help="times every variant is run (default 21)")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("renderer_cuda.py needs a CUDA GPU and found none; benchmarks/renderer.py measures the CPU")
    accuracy = {name: errors(name) for name in VARIANTS}
    for name, (image, gradient) in accuracy.items():
        right = image <= TOLERANCES[torch.float32][0] and gradient <= TOLERANCES[torch.float32][1]
        verdict = "within" if right else "OUTSIDE"
        print(f"{name}: off by {image:.1e} (image), {gradient:.1e} (gradients), {verdict} the contract")
    results = {}
    for label, setting in CUDA_SETTINGS.items():
        rows = measure(setting, list(VARIANTS), max(2, arguments.rounds))
        results[label] = {"setting": setting._asdict(), "variants": rows}
        show(label, setting, rows)
    if arguments.output:
        report = {
            "machine": machine(torch.get_num_threads()) | {"gpu": torch.cuda.get_device_name()},
            "errors_at_a": accuracy,
            "settings": results,
        }
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
