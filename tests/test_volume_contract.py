"""The check that authors of backends run passes for good ones and catches each of these mutants."""

from typing import Any

import pytest
import torch
from volume_mutants import MUTANTS, Honest, Made

from mnist3d.testing import check_volume
from mnist3d.testing._asking import hostile_points, points_inside
from mnist3d.volumes import FourierMLP, HashGrid, TriPlane, VMGrid, VoxelGrid
from tests.third_party.glass_beads import Beads

FIELD: dict[str, Any] = {"num_levels": 3, "log2_hashmap_size": 8, "max_resolution": 12, "hidden_dim": 16}
NETWORK: dict[str, Any] = {"num_frequencies": 6, "hidden_dim": 16, "num_layers": 3}


@pytest.fixture(autouse=True)
def _the_same_start():
    """Weights that do not depend on which tests came before."""
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "volume",
    [
        VoxelGrid(6),
        VoxelGrid([5, 6, 9], grow_at=[0.2, 0.5]),
        VMGrid([5, 6, 7], 3),
        VMGrid([1, 4, 1], 1),
        HashGrid(**FIELD),
        HashGrid(**FIELD, bake_resolution=9, grow_at=[3, 6]),
        HashGrid(**FIELD, bake_resolution=9, levels_at=[0.3]),
        FourierMLP("relu", **NETWORK, bake_resolution=9, grow_at=[3]),
        FourierMLP("sine", **NETWORK),
        TriPlane(6, 4, "sum", bake_resolution=9, grow_at=[0.3]),
        TriPlane(5, 3, "product", num_layers=1, bake_resolution=4),
        Beads(4),
    ],
    ids=lambda volume: (
        f"{type(volume).__name__}{volume.init_args.get('resolution', '')}{volume.init_args.get('grow_at')}"
        f"{volume.init_args.get('levels_at', '')}"
    ),
)
def test_good_backends_pass_and_stay_as_they_are(volume):
    before = {key: value.clone() for key, value in volume.state_dict().items()}
    random = torch.get_rng_state()
    check_volume(volume)
    assert all(torch.equal(value, before[key]) for key, value in volume.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_mutants_are_made_of_something_good():
    check_volume(Honest())
    check_volume(Made())


@pytest.mark.parametrize(("mutant", "message"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_mutant_is_caught_for_what_it_is(mutant, message):
    with pytest.raises(AssertionError, match=message) as caught:
        check_volume(mutant())
    assert mutant.__name__ in str(caught.value)


def test_a_volume_is_asked_where_its_weights_are():
    like = torch.zeros((), dtype=torch.float64, device="meta")
    for points in (points_inside(like), *hostile_points(like).values()):
        assert (points.device.type, points.dtype) == ("meta", torch.float64)
