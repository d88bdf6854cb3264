"""The one interface that every volume owes the renderer."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from .voxel_grid import VoxelGrid


class Volume(nn.Module, ABC):
    """Attenuation and absorbance at every point of [-1, 1]^3.

    A backend is a subclass with a `forward`; its constructor's arguments must be plain values (numbers,
    strings, lists of them), so that a saved volume can be built again from them. The renderer asks inside
    the unit ball only; what a volume answers outside is not used.
    """

    _init_args: dict[str, Any]
    FILE_ARGUMENTS: ClassVar[tuple[str, ...]] = ()
    """Arguments of the constructor that name a file to start from: never taken from a saved volume, nor on resume."""
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

    def dense(self) -> Float[Tensor, "2 Z Y X"] | None:
        """The grid itself (attenuation, absorbance), differentiable, where the volume is one; else None.

        A volume that returns a grid is rendered by the fused kernel, and `forward` is asked only by others.
        """
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters as groups for an optimiser; "rate" is a factor on `trainer.volume_rate`, default 1.

        Any other key, such as "eps", is the optimiser's own.
        """
        return [{"params": list(self.parameters()), "rate": 1.0}]

    def grow(self, steps_done: int, share: float) -> bool:
        """Asked before every training step: a volume that refines itself does so here, when it is time.

        It may replace its parameters and must not draw random numbers; what it shows should stay what it was. What
        stage it is at belongs to its state: `load_state_dict` must take one from before or after.

        Args:
            steps_done: so far.
            share: of the run that is done, [0, 1].

        Returns:
            Whether it did: the trainer then begins the parameters' optimiser afresh.
        """
        return False

    def voxelize(self, resolution: "int | Sequence[int]") -> "VoxelGrid":
        """This volume as voxels; see `voxelize.voxelize`.

        Args:
            resolution: voxels along each edge, or along (Z, Y, X); 1 to 1024.

        Raises:
            ValueError: a resolution out of range, or a field that is not finite or out of its range.
        """
        from .voxelize import voxelize

        return voxelize(self, resolution)
