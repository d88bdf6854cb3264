"""What one volume knows, in another of its class: the weights of a file as the start of a run."""

import torch

from ..errors import shown
from .base import Volume

PROBES = 2000  # points in the ball where both must answer alike
ALIKE = 1e-3  # of the largest attenuation: rounding of another implementation, such as half precision, lies below
HOW_IT_STARTS = "initial_"  # arguments that say how the weights begin: other weights take their place


@torch.no_grad()
def take_weights(volume: Volume, other: Volume) -> None:
    """Let a volume show what another one of its class shows, by its weights. A volume that grows goes to their stage;
    what else is to come (`RUNS_OWN`, such as when a SparseGrid is pruned) stays what it was.

    Args:
        volume: takes them; after an error it may hold some of them.
        other: stays what it is.

    Raises:
        ValueError: another class, or other arguments, with which these weights mean something else.
    """
    if type(volume) is not type(other):
        raise ValueError(f"holds a {type(other).__name__}, and this is a {type(volume).__name__}")
    names = unlike(volume, other)
    own = {name for name in volume.RUNS_OWN.values() if name is not None}
    kept = {name: value for name, value in volume.state_dict().items() if name in own}
    try:
        volume.load_state_dict(other.state_dict() | kept)
    except (RuntimeError, ValueError, TypeError):
        raise ValueError(_refusal(other, names)) from None
    points = torch.randn(PROBES, 3, generator=torch.Generator().manual_seed(0))
    radius = torch.linspace(0.0, 1.0, PROBES)[:, None]
    points = (points / points.norm(dim=-1, keepdim=True) * radius).to(other.like())
    asked, said = other(points), volume(points.to(volume.like()))
    for wanted, found in zip(asked, said, strict=True):
        found = found.to(wanted)
        finite = wanted.isfinite()
        largest = float(wanted[finite].abs().max()) if bool(finite.any()) else 0.0
        alike = torch.where(finite, (found - wanted).abs() <= ALIKE * largest, found == wanted)
        if not bool(alike.all()):
            raise ValueError(_refusal(other, names))


def unlike(volume: Volume, other: Volume) -> list[str]:
    """Arguments of two volumes of one class that differ, but for those that do not matter to what is shown."""
    given, wanted = volume.init_args, other.init_args
    of_no_matter = (*volume.RESUMABLE, *volume.RUNS_OWN)
    names = [name for name in wanted if not name.startswith(HOW_IT_STARTS) and name not in of_no_matter]
    return [name for name in names if given.get(name) != wanted[name]]


def _refusal(other: Volume, names: list[str]) -> str:
    if not names:
        return f"its weights do not fit a {type(other).__name__} of the same arguments; was it written by another one?"
    flags = " ".join(f"--volume.{name} {_typed(other.init_args[name])}" for name in names)
    return f"its {type(other).__name__} has other arguments; add {flags}"


def _typed(value: object) -> str:
    """A value as it is typed behind a flag."""
    text = shown(value)
    return f'"{text}"' if " " in text else text
