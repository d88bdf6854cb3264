"""What the processes of `test_processes.py` do: small runs in double precision, alone or as one of several.

In double precision, as Adam divides each gradient by its own size: one that is nothing but rounding moves its weight
as far as any other. In single precision a sum in another order would send such weights another way at once.
"""

import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mnist3d.data.images import ImageSet
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.training.objectives.base import Objective
from mnist3d.training.objectives.build import build_objectives
from mnist3d.training.objectives.class_balance import ClassBalanceOptions
from mnist3d.training.objectives.nearest_image import NearestImageOptions
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import Targets
from mnist3d.training.options import TrainerOptions
from mnist3d.training.processes import ALONE, Processes
from mnist3d.training.trainer import Trainer
from mnist3d.volumes import HashGrid, VoxelGrid

SIZE, VIEWS, STEPS = 12, 7, 12  # 7: no multiple of 2 or 3 processes
KINDS = ("default", "hash grid", "targets", "class balance", "growth", "somebody else's", "goes back", "in parts")
STOPS = {2: 4, 1: 8, 3: STEPS}  # processes of the sessions of one run: the step at which each ends


class Smooth(Objective):
    """Somebody else's, who knows nothing of processes: it reaches the weights directly, by way of views of its own,
    fewer than there are processes, and by way of some of the batch's."""

    name = "smooth"

    def loss(self, batch):
        """Felt, and no more."""
        grid = batch.volume.dense()
        assert grid is not None
        direct = grid.diff(dim=1).abs().mean()
        return direct + batch.render(batch.rotations[:2]).mean() + batch.views[3:5].square().mean()


class GoesBack:
    """A callback that does what the watchdog may: at step 9 back to step 5, once."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def after_step(self, trainer: Trainer, report: Any) -> None:
        """Keep a state, or go back to it."""
        if trainer.steps_done == 5 and not self.state:
            self.state = copy.deepcopy(trainer.state_dict())
        elif trainer.steps_done == 9 and trainer.rate_scale == 1.0:
            trainer.rewind(self.state, 0.5)

    def finish(self, trainer: Trainer) -> None:
        """Nothing is left to do."""


def images() -> ImageSet:
    """Two classes: a bright bar, upright or lying."""
    found = torch.zeros(24, 1, SIZE, SIZE, dtype=torch.float64)
    found[::2, :, 3:9, 5:7] = 1.0
    found[1::2, :, 5:7, 3:9] = 1.0
    return ImageSet(found, torch.arange(24) % 2, ["upright", "lying"])


def build(kind: str, processes: Processes = ALONE, **options: Any) -> Trainer:
    """A trainer of one kind of run. Of processes that are not the first the weights begin elsewhere: they are sent."""
    torch.manual_seed(processes.rank)
    volume = VoxelGrid(8, grow_at=[0.3] if kind == "growth" else []).double()
    if kind == "hash grid":
        volume = HashGrid(num_levels=2, log2_hashmap_size=7, hidden_dim=8, implementation="torch").double()
    real, targets = images(), None
    if kind == "targets":
        angles = torch.tensor([0.0, 1.5, 3.0], dtype=torch.float64)
        asked = TargetOptions(views=[{"digit": 1}], views_per_step=5)
        targets = Targets(angles, torch.zeros_like(angles), real.images[:3], asked).double()
    balance = ClassBalanceOptions(0.3 if kind == "class balance" else 0.0)
    nearest = NearestImageOptions(start=0.1)
    objectives = build_objectives(real, class_balance=balance, nearest_image=nearest, targets=targets, max_tilt=30.0)
    if kind == "somebody else's":
        objectives.append(Smooth())
    if kind == "in parts":
        options["views_at_once"] = 2
    settings = TrainerOptions(**{"max_steps": STEPS, "views": VIEWS, "max_tilt": 30.0, **options})
    renderer = AbsorptionRenderer(SIZE, samples_per_ray=8, impl="reference")
    return Trainer(volume, renderer, real, objectives, options=settings, processes=processes)


def numbers(trainer: Trainer) -> Tensor:
    """All that is kept of what was learned, in a row."""
    modules = (trainer.volume, trainer.averaged, trainer.objectives)
    values = [value for module in modules for value in module.state_dict().values() if isinstance(value, Tensor)]
    return torch.cat([value.detach().double().flatten() for value in values])


def main(folder: str, rank: int, count: int) -> None:
    """All runs of one process; what they came to lies in `COUNT.RANK.pt`.

    Args:
        folder: where the processes meet, and where files lie.
        rank: of this process.
        count: of processes.
    """
    place = Path(folder)
    if count > 1:
        store = f"file://{place / f'store{count}'}"
        patience = timedelta(seconds=240)  # of one exchange: processes that do not make the same calls fail then
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count, timeout=patience)
    processes = Processes(rank, count) if count > 1 else ALONE
    found: dict[str, Tensor] = {}
    for kind in KINDS:
        trainer = build(kind, processes)
        trainer.run([GoesBack()] if kind == "goes back" and rank == 0 else [])
        found[kind] = numbers(trainer)
    # A run of three sessions, each on another number of processes; only the first of them reads the file.
    trainer = build("default", processes, stop_after=4 if STOPS[count] < STEPS else None)
    if count != 2 and rank == 0:
        trainer.load_state_dict(torch.load(place / "resume.pt", weights_only=True))
    trainer.run()
    assert trainer.steps_done == STOPS[count], trainer.steps_done
    if rank == 0:
        torch.save(trainer.state_dict(), place / "resume.pt")
    found["resumed"] = numbers(trainer)
    # The mean, where some processes have none; and none where none has one, so that Adam leaves the weight alone.
    idle, uneven = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    uneven.grad = torch.full((2,), 6.0) if rank == 0 else None
    processes.average_gradients([idle, uneven])
    assert idle.grad is None
    assert uneven.grad is not None
    assert uneven.grad.tolist() == [6.0 / count] * 2
    assert processes.largest([rank, -rank]) == [count - 1, 0]
    assert processes.handed_out(b"" if rank else b"told") == b"told"
    odd = {
        "a": [torch.arange(6.0).reshape(2, 3).T, (torch.tensor(True), "word")],
        "b": {3: torch.zeros(0, 4), "c": None},
    }
    told = processes.handed_out_state({} if rank else odd)
    assert torch.equal(told["a"][0], odd["a"][0])
    assert told["a"][1] == odd["a"][1]
    assert told["b"][3].shape == (0, 4)
    assert told["b"]["c"] is None
    torch.save(found, place / f"{count}.{rank}.pt")
