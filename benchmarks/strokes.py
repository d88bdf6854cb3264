"""How smooth the strokes of runs' views are: python benchmarks/strokes.py RUN [RUN ...]

Two figures of an image, each relative to its brightness: how much of it a median filter of 3 x 3 pixels takes away
(specks, gaps and ragged edges go, strokes stay), and the mean |Laplacian| (specks and edges, sharp ones too). Printed:
medians, over the held-out real digits and over 1,000 views of each run, poses from the default distribution.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mnist3d import load_run
from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions
from mnist3d.geometry.rotations import PoseOptions, sample_rotations
from mnist3d.rendering.renderer import render_views

VIEWS, VIEW_SEED = 1000, 5
LAPLACIAN = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]


def taken_by_the_median(images: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B,): sum |image - median of its 3 x 3 neighbourhood| / sum image."""
    neighbours = F.unfold(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3)
    median = neighbours.median(dim=1).values.reshape(images.shape)
    return (images - median).abs().mean((1, 2, 3)) / images.mean((1, 2, 3)).clamp_min(1e-3)


def roughness(images: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B,): mean |Laplacian| / mean brightness."""
    return F.conv2d(images, LAPLACIAN).abs().mean((1, 2, 3)) / images.mean((1, 2, 3)).clamp_min(1e-3)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories of digits, 28 x 28 pixels")
    runs = [load_run(path) for path in parser.parse_args().runs]
    rotations = sample_rotations(VIEWS, Generator().manual_seed(VIEW_SEED), PoseOptions())

    def line(name: str, images: Tensor) -> None:
        taken, rough = (measure(images).median().item() for measure in (taken_by_the_median, roughness))
        print(f"{name:40}  taken by the median {taken:.3f}  roughness {rough:.2f}", flush=True)

    line("real digits", load_images(DataOptions(), 28, "held_out").images)
    for run in runs:
        line(str(run.path), render_views(run.volume, run.renderer, rotations).cpu())


if __name__ == "__main__":
    main()
