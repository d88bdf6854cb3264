"""What the renderer needs of a volume (`Field`), and what a run needs besides (`Volume`)."""

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Field(ABC):
    """Attenuation and absorbance at every point of [-1, 1]^3: all that the renderer asks for.

    It asks inside the unit ball only; what a field answers outside is not used. A wrapper (a frozen copy, a cut) is a
    Field; what can also be trained and saved is a `Volume`.
    """

    @abstractmethod
    def __call__(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """Attenuation (per world unit, >= 0) and absorbance ([0, 1]) at world points, in xyz order."""

    def dense(self) -> Float[Tensor, "2 Z Y X"] | None:
        """The grid itself (attenuation, absorbance), differentiable, where the field is one; else None.

        A field that returns a grid is rendered by the fused kernel, and points are asked for only by others.
        """
        return None

    def like(self) -> Tensor:
        """A tensor of the device and the precision in which points should be asked for."""
        return torch.zeros(())


class Volume(nn.Module, Field):
    """A Field that can be trained, saved, and built again from plain arguments.

    A backend is a subclass with a `forward`; its constructor's arguments must be plain values (numbers,
    strings, lists of them), so that a saved volume can be built again from them.
    """

    _init_args: dict[str, Any]
    RESUMABLE: ClassVar[tuple[str, ...]] = ()
    """Arguments of the constructor that a resumed run may change, as they change how, but not what, is computed."""

    def __new__(cls, *args: Any, **kwargs: Any):
        """Remembers the arguments of the constructor, which is all that a saved volume needs besides its weights."""
        volume = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(volume, *args, **kwargs)
        bound.apply_defaults()
        init_args = dict(list(bound.arguments.items())[1:])
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                init_args |= init_args.pop(name, {})
        object.__setattr__(volume, "_init_args", init_args)  # nn.Module is not initialised yet
        return volume

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments, defaults included."""
        return dict(self._init_args)

    @abstractmethod
    def forward(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """Attenuation (per world unit, >= 0) and absorbance ([0, 1]) at world points, in xyz order.

        Gradients:
            To the parameters; to the points where the field is differentiable there.
        """

    def like(self) -> Tensor:
        """A parameter that says where the volume lies and in which precision it computes."""
        return next((weight for weight in self.parameters() if weight.is_floating_point()), torch.zeros(()))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters as groups for an optimiser; "rate" is a factor on `trainer.volume_rate`, default 1.

        Any other key, such as "eps", is the optimiser's own.
        """
        return [{"params": list(self.parameters()), "rate": 1.0}]

    def grow(self, steps_done: int, progress: float) -> bool:
        """Asked before every training step: a volume that refines itself does so here, when it is time.

        It may replace its parameters and must not draw random numbers; what it shows should stay what it was. What
        stage it is at belongs to its state: `load_state_dict` must take one from before or after.

        Args:
            steps_done: so far.
            progress: share of the run that is done, [0, 1].

        Returns:
            Whether it did: the trainer then begins the parameters' optimiser afresh.
        """
        return False

    def take_voxels(self, grid: Float[Tensor, "2 Z Y X"]) -> None:
        """Show what a grid shows, and begin from there: how a run starts from a file (`--start_from`).

        A volume that grows while it is trained goes to its last stage first. Values at the border of their range may be
        drawn in a little, so that they get a gradient.

        Args:
            grid: attenuation per world unit, absorbance; of any resolution.

        Raises:
            ValueError: this kind of volume cannot be made of voxels.
        """
        raise ValueError(f"a {type(self).__name__} cannot start from voxels; a VoxelGrid can")
