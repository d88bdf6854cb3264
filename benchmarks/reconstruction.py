"""How good `mnist3d reconstruct` is on objects that are known: correlation, FSC, poses, seconds, one line a case.

    python benchmarks/reconstruction.py --output reconstruction.jsonl
    python benchmarks/reconstruction.py --table reconstruction.jsonl

Each case runs `mnist3d project` and `mnist3d reconstruct` on one thread, and lays the volume on the true one (mirror
images count as the same). A case whose line is there already is left out, so a run that was stopped goes on. The brain
is `anatomical.nii` of nibabel's own tests, 33 x 41 x 25 voxels of 3 mm, which its wheel holds.
"""

import argparse
import contextlib
import io
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mnist3d.cli import project, reconstruct
from mnist3d.reconstruction import unknown_views
from mnist3d.reconstruction.ab_initio import CLEAR, Annealing
from mnist3d.reconstruction.alignment import align
from mnist3d.reconstruction.fourier import resized
from mnist3d.reconstruction.fsc import HALF, correlation, crossing, shell_correlation
from mnist3d.reconstruction.stack_files import read_stack
from mnist3d.volumes import VoxelGrid, load_volume

SIZE, FINE = 32, 64  # voxels of what is reconstructed, and of the object
FULL = 4000
CASES = {  # flags of `project`, flags of `reconstruct`
    "200 images": (["--views", "200"], []),
    "no noise": (["--views", str(FULL)], []),
    "front preferred": (["--views", str(FULL), "--poses", "euler_normal"], []),
    "SNR 1": (["--views", str(FULL), "--snr", "1"], []),
    "shifts of 2 pixels": (["--views", str(FULL), "--max_shift", "2"], ["--max_shift", "3"]),
    "SNR 0.1": (["--views", str(FULL), "--snr", "0.1"], []),
    "SNR 0.1, shifts": (["--views", str(FULL), "--snr", "0.1", "--max_shift", "2"], ["--max_shift", "3"]),
    "GAN start": (["--views", "1000"], ["--start", "gan"]),
}
WRONG = {  # ways to fail, which must be said
    "ten images": (["--views", "10"], []),
    "wrong input": (["--views", "300"], ["--input", "line_integral"]),  # of transmissions
    "shifts not told": (["--views", "300", "--max_shift", "4"], []),
    "5 iterations": (["--views", "300"], []),
    "SNR 0.02": (["--views", "300", "--snr", "0.02"], []),
    "two objects": (["--views", "300"], ["--input", "line_integral"]),  # as many images of the next object
}
ORDER = ["200 images", *WRONG, *(case for case in CASES if case != "200 images")]  # the cheapest first
RIGHT = 0.9  # correlation from which a volume counts as right, where it is counted how many wrong ones are told


def axes(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """World coordinates z, y, x of the voxels."""
    axis = (2.0 * torch.arange(size) + 1.0) / size - 1.0
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return z, y, x


def blobs() -> Tensor:
    """Fourteen Gaussian balls of several sizes."""
    z, y, x = axes(FINE)
    generator, total = torch.Generator().manual_seed(5), torch.zeros(FINE, FINE, FINE)
    for _ in range(14):
        centre = (
            F.normalize(torch.randn(3, generator=generator), dim=0) * torch.rand(1, generator=generator) ** 0.5 * 0.65
        )
        width = 0.06 + 0.1 * torch.rand(1, generator=generator)
        squared = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
        total += (1.0 + 2.0 * torch.rand(1, generator=generator)) * torch.exp(-squared / 2.0 / width**2)
    return total


def chair() -> Tensor:
    """Seat, back and four legs of different lengths: flat faces, sharp edges."""
    z, y, x = axes(FINE)

    def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Tensor:
        inside = [(axis > a) & (axis < b) for axis, a, b in zip((x, y, z), low, high, strict=True)]
        return (inside[0] & inside[1] & inside[2]).float()

    total = box((-0.4, 0.0, -0.4), (0.4, 0.1, 0.4)) + box((-0.4, -0.65, 0.3), (0.4, 0.0, 0.4))
    for number, (a, b) in enumerate([(-0.4, -0.4), (0.3, -0.4), (-0.4, 0.3), (0.3, 0.3)]):
        total += box((a, 0.1, b), (a + 0.1, 0.6 - 0.06 * number, b + 0.1))
    return F.avg_pool3d(3.0 * total.clamp(max=1.0)[None, None], 3, 1, 1)[0, 0]


def spiral() -> Tensor:
    """A tube that winds up and out, and a ball."""
    z, y, x = axes(FINE)
    along = torch.linspace(0.0, 1.0, 500)
    out = 0.6 * (0.4 + 0.6 * along)
    path = torch.stack([out * torch.cos(9.0 * along), out * torch.sin(9.0 * along), 1.2 * along - 0.6], dim=-1)
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    far = torch.cat([torch.cdist(part, path).amin(1) for part in points.split(20000)]).reshape(x.shape)
    ball = ((x - 0.2) ** 2 + (y - 0.1) ** 2 + (z + 0.35) ** 2).sqrt() < 0.15
    return 3.0 * torch.sigmoid((0.1 - far) / 0.02) + 2.0 * ball.float()


def brain() -> Tensor:
    """A real scan: a head, T1-weighted, from nibabel's own tests."""
    import nibabel

    image = nibabel.load(Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii")  # pyright: ignore
    values = torch.from_numpy(np.asarray(image.dataobj, np.float32))  # pyright: ignore[reportAttributeAccessIssue]
    values = (values / float(np.percentile(values.numpy(), 99)) - 0.12).clamp_min(0.0)
    edges = [count * step for count, step in zip(values.shape, image.header.get_zooms()[:3], strict=True)]  # pyright: ignore
    width = max(edges) * 1.12
    z, y, x = axes(FINE)
    places = torch.stack([z * width / edges[2], y * width / edges[1], x * width / edges[0]], dim=-1)
    return 2.0 * F.grid_sample(values[None, None], places[None], align_corners=False)[0, 0]


OBJECTS: dict[str, Callable[[], Tensor]] = {"blobs": blobs, "chair": chair, "spiral": spiral, "brain": brain}


def in_the_ball(values: Tensor) -> Tensor:
    """Nothing near the rim of the world."""
    z, y, x = axes(FINE)
    return values * torch.sigmoid((0.88 - (x * x + y * y + z * z).sqrt()) / 0.02)


def projected(truth: Tensor, stack: Path, seed: int, flags: list[str]) -> Path:
    """Images of an object, as `mnist3d project` makes them."""
    VoxelGrid.from_array(truth).save(stack.with_suffix(".safetensors"))
    project.main([str(stack.with_suffix(".safetensors")), "--output", str(stack), "--size", str(SIZE),
                  "--seed", str(seed), *flags])  # fmt: skip
    return stack


def run_case(name: str, case: str, seed: int, starts: int) -> dict[str, object]:
    """Simulate, reconstruct, compare: one line of the results."""
    given, asked = {**CASES, **WRONG}[case]
    truth = in_the_ball(OBJECTS[name]())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            stack = projected(truth, place / "stack.mrcs", seed, given)
            if case == "wrong input":
                np.save(place / "stack.npy", np.exp(-read_stack(stack).values))
                stack = place / "stack.npy"
            elif case == "two objects":
                names = [*OBJECTS]
                another = in_the_ball(OBJECTS[names[(names.index(name) + 1) % len(names)]]())
                both = stack, projected(another, place / "another.mrcs", seed + 100, given)
                stack = place / "stack.npy"
                np.save(stack, np.concatenate([read_stack(each).values for each in both]))
            began, cpu = time.perf_counter(), time.process_time()
            unknown_views.CLEAR = Annealing(iterations=5) if case == "5 iterations" else CLEAR
            reconstruct.main([str(stack), "--output", str(place / "out"), "--seeds", str(starts),
                              "--viewer.enabled", "false", *asked])  # fmt: skip
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        report = json.loads((place / "out" / "report.json").read_text())
        grid = load_volume(place / "out" / "volume.safetensors").dense()
    assert grid is not None, said.getvalue()
    wanted = resized(truth, SIZE, 3)
    laid = align(grid[0].detach(), wanted).apply(grid[0].detach())
    shell = crossing(shell_correlation(laid, wanted), HALF)
    return {
        "object": name,
        "case": case,
        "seed": seed,
        "starts": starts,
        "correlation": correlation(laid, wanted),
        "fsc_half_shell": shell,
        "nyquist": shell / (SIZE / 2),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "unexplained": report["unexplained"],
        "noise_share": report["noise_share"],
        "coverage": report["coverage"],
        "agreement": report["agreement_of_starts"],
        "warnings": len(report["warnings"]),
    }


def wanted_cases(seeds: int) -> Iterator[tuple[str, str, int]]:
    """The cheapest first, all objects before the next seed."""
    for case in ORDER:
        for name in OBJECTS:
            yield name, case, 0
    for seed in range(1, seeds):
        for case in CASES:
            for name in OBJECTS:
                yield name, case, seed


def table(lines: list[dict[str, float]]) -> str:
    """Median and worst of each case, in Markdown."""
    rows = [
        "| images | correlation | FSC .5, share of Nyquist | CPU seconds | warned | runs |",
        "|---|---|---|---|---|---|",
    ]
    for case in [*CASES, *WRONG]:
        found = [line for line in lines if line["case"] == case]
        if found:
            cells = [
                f"{statistics.median(line[key] for line in found):{form}} ({worst(line[key] for line in found):{form}})"
                for key, form, worst in (
                    ("correlation", ".3f", min),
                    ("nyquist", ".0%", min),
                    ("cpu_seconds", ".0f", max),
                )
            ]
            warned = sum(line["warnings"] > 0 for line in found)
            rows.append(f"| {case} | {' | '.join(cells)} | {warned} | {len(found)} |")
    told = []
    for cases, words in ((CASES, ">="), (WRONG, "<"), (WRONG, ">=")):
        some = [line for line in lines if line["case"] in cases and (line["correlation"] >= RIGHT) is (words == ">=")]
        warned = sum(line["warnings"] > 0 for line in some)
        made = "made to fail" if cases is WRONG else "good"
        told.append(f"{warned} of {len(some)} runs {made}, with a correlation {words} {RIGHT:g}")
    return "\n".join([*rows, "", f"warned: {', '.join(told)}"])


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file of results, a line of JSON each; is added to")
    parser.add_argument("--table", type=Path, help="print the table of such a file")
    parser.add_argument("--seeds", type=int, default=3, help="data seeds, >= 1")
    parser.add_argument("--starts", type=int, default=3, help="starts of a reconstruction, >= 1")
    parser.add_argument("--cases", nargs="*", choices=ORDER, help="only these; default all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.table or options.output
    done = [json.loads(line) for line in path.read_text().splitlines()] if path and path.is_file() else []
    if options.table:
        print(table(done))
        return
    known = {(line["object"], line["case"], line["seed"]) for line in done}
    for name, case, seed in wanted_cases(options.seeds):
        if (name, case, seed) in known or case not in (options.cases or ORDER):
            continue
        line = run_case(name, case, seed, options.starts)
        print(
            name, case, seed, f"{line['correlation']:.3f} {line['nyquist']:.0%} {line['cpu_seconds']:.0f} s", flush=True
        )
        if options.output:
            with open(options.output, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            assert math.isfinite(float(str(line["correlation"])))


if __name__ == "__main__":
    main()
