"""Records what tinycudann computes, on a machine with an NVIDIA GPU and a build of it, for a test that needs neither.

    python benchmarks/record_tinycudann.py --output tests/golden/tinycudann.npz

Written: points, our parameters, and tinycudann's answer in half precision (encoding and network fused) and in full
(its encoding, our network). `tests/test_hash_grid.py` compares both with the plain PyTorch implementation.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mnist3d.kernels.hash_encoding import tinycudann_obstacle
from mnist3d.volumes.hash_grid import HashGrid

OPTIONS: dict[str, Any] = {"num_levels": 8, "hidden_dim": 32, "num_layers": 3}
POINTS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    output = parser.parse_args().output
    if obstacle := tinycudann_obstacle():
        sys.exit(f"record_tinycudann.py: {obstacle}; see docs/hash_grid.md")
    torch.manual_seed(0)
    volume = HashGrid(**OPTIONS, implementation="tinycudann").cuda()
    points = 2.0 * torch.rand(POINTS, 3) - 1.0
    answers = {}
    with torch.no_grad():
        for name in ("half_precision", "full_precision"):
            volume.full_precision = name == "full_precision"
            answers[name] = volume.raw(points.cuda()).float().cpu().numpy()
        volume.implementation = "torch"
        plain = volume.raw(points.cuda()).cpu().numpy()
    for name, allowed in (("half_precision", 2e-3), ("full_precision", 1e-5)):
        off = np.abs(answers[name] - plain).max()
        print(f"{name}: largest difference to PyTorch {off:.2e}, it must be <= {allowed:g}")
    arrays: dict[str, Any] = {
        f"weight_{index}": weight.detach().cpu().numpy() for index, weight in enumerate(volume.weights)
    }
    arrays |= answers | {f"option_{key}": np.array(value) for key, value in OPTIONS.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        output,
        points=points.numpy(),
        table=volume.table.detach().cpu().numpy(),
        **arrays,
    )
    print(output)


if __name__ == "__main__":
    main()
