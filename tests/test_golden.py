"""The encoders against what tiny-cuda-nn's own arithmetic answers; `golden/README.md` says what each number is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mnist3d.kernels.hash_encoding import HashLevels, hash_encode
from mnist3d.kernels.hash_encoding.layout import LAST_BITS

GOLDEN = Path(__file__).parent / "golden" / "tcnn_grid_encoding.npz"
CONFIGURATIONS = 15
OFF_BORDERS = slice(5, 48)  # elsewhere the slope is that of either side


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as numbers:
        return dict(numbers)


def levels_of(golden: dict[str, np.ndarray], which: int) -> tuple[HashLevels, dict[str, Any]]:
    """The levels of a configuration, and what was answered."""
    own = {name[3:]: value for name, value in golden.items() if name.startswith(f"{which:02d}_")}
    count, features, log2_size, base = (int(value) for value in own["config"])
    return HashLevels(count, features, log2_size, base, float(own["per_level_scale"])), own


def table_of(levels: HashLevels) -> Tensor:
    number = np.arange(levels.entries * levels.features_per_level, dtype=np.uint32)  # the product wraps at 2^32
    values = (number * np.uint32(2654435761) >> np.uint32(8)).astype(np.float32) / np.float32(2**24) - np.float32(0.5)
    return torch.from_numpy(values).reshape(levels.entries, levels.features_per_level)


def test_all_configurations_are_there(golden: dict[str, np.ndarray]) -> None:
    assert {name[:2] for name in golden} == {f"{which:02d}" for which in range(CONFIGURATIONS)}


@pytest.mark.parametrize("which", range(CONFIGURATIONS))
def test_the_levels_numbers(golden: dict[str, np.ndarray], which: int) -> None:
    levels, own = levels_of(golden, which)
    assert np.float32(levels.growth) == own["growth_given"]
    assert [*levels.offsets, levels.entries] == own["offsets"].tolist()
    assert list(levels.resolutions) == own["resolutions"].tolist()
    # exp2 of another library, and its log2, which is one ulp off once a level: as far as a GPU may be, too
    ulp = np.spacing(np.float32(np.log2(np.float32(levels.growth)))) if levels.growth > 1.0 else 0.0
    allowed = LAST_BITS + np.arange(levels.num_levels) * ulp * np.log(2.0)
    assert (np.abs(np.array(levels.scales) - own["scales"]) <= allowed * (own["scales"] + 1.0)).all()


@pytest.mark.parametrize("which", range(CONFIGURATIONS))
def test_the_encoders(golden: dict[str, np.ndarray], which: int) -> None:
    levels, own = levels_of(golden, which)
    table = table_of(levels)
    for impl, dtype in (("torch", torch.float32), ("numba", torch.float32), ("torch", torch.float64)):
        points = torch.from_numpy(own["points"]).to(dtype).requires_grad_()
        encoded = hash_encode(points, table.to(dtype), levels, impl)
        # A place in a cell is rounded like scale + 1 (6e-8, and as much in exp2), and neighbours differ by up to 1;
        # then eight products of at most .5 are rounded. A wrong entry is off by .1 or more.
        scale = np.repeat(np.array(levels.scales), levels.features_per_level)
        off = np.abs(encoded.detach().numpy() - own["encoded"])
        assert (off <= 1.5e-6 * (scale + 1.0) + 2e-7).all()
        upstream = torch.linspace(-1.0, 1.0, encoded.numel(), dtype=torch.float64).to(dtype).view_as(encoded)
        (slope,) = torch.autograd.grad(encoded, points, upstream)
        # of numbers up to 1,000, which are summed over up to 32 columns and cancel
        expected = own["to_points"][OFF_BORDERS]
        assert np.abs(slope.numpy()[OFF_BORDERS] - expected).max() <= 2e-4 * np.abs(expected).max()
