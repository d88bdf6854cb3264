"""The one interface that every volume owes the renderer."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Volume(nn.Module, ABC):
    """Attenuation and absorbance at every point of [-1, 1]^3.

    A backend is a subclass with a `forward`; its constructor's arguments must be plain values (numbers,
    strings, lists of them), so that a saved volume can be built again from them. The renderer asks inside
    the unit ball only; what a volume answers outside is not used.
    """

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
