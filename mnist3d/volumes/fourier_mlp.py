"""The coordinate-network backend: Fourier features and ReLU, or sines throughout."""

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.arrays import computed
from ..geometry.grids import voxel_centres
from .baking import (
    CHANNELS,
    BakedField,
    Times,
    activated,
    baked_in_ball,
    check_arguments,
    in_cube,
    in_turn,
    joined_slabs,
    numbers_kept,
    points_at_once,
    slabs_of,
)
from .initial import scaled_normal, uniform

AXES = 3
# As a share of trainer.volume_rate, which suits the raw values of voxels: a weight here moves the whole field.
RATE = 0.02
Activation = Literal["relu", "sine"]


class FourierMLP(BakedField):
    """A network that is given the coordinates of a point, and holds nothing else.

        h           = (cos(2 pi B point), sin(2 pi B point))            activation=relu: Fourier features
                      sin(omega_0 (W point + b))                        activation=sine: SIREN
        h           = relu(W h + b)  or  sin(omega_0 (W h + b))         each hidden layer
        raw         = bias + W h
        attenuation = softplus(raw[0]) / (2 / 48)
        absorbance  = sigmoid(raw[1])

    Rendered along rays, or, with `bake_resolution`, as the grid of its values at the voxels' centres.

    Args:
        activation: relu: Fourier features of random frequencies, then layers with ReLU. sine: layers of sines (SIREN).
        num_frequencies: With relu: number of frequencies, each a sine and a cosine, 1 to 1024.
        frequency_scale: With relu: standard deviation of the frequencies along each axis, periods per world unit, > 0.
            The larger, the finer the detail that is learnt, and the more noise.
        omega_0: With sine: factor on what goes into each sine, > 0. The larger, the finer the detail.
        hidden_dim: Width of the hidden layers, 1 to 1024.
        num_layers: Number of linear layers, 1 to 16 (with sine 2 to 16); the last one is the output.
        bake_resolution: Evaluate the field once per step on a grid with this many voxels along each edge, 1 to 256, and
            render that grid. null: evaluate the field along the rays.
        grow_at: When the grid of bake_resolution doubles during training: ascending values of progress in (0, 1), or
            ascending steps >= 1. With n values it starts at bake_resolution / 2^n. null: never.
        initial_opacity: Opacity of a step of 2/48 world units at the start, > 0 and < 1.
        initial_brightness: Mean of 1 - absorbance at the start, in (0, 1).
        initial_noise: Standard deviation of the raw values at the start, >= 0.

    Raises:
        ValueError: a value outside its range.

    Source:
        Tancik et al., "Fourier features let networks learn high frequency functions in low dimensional domains" (2020),
        section 5 (Gaussian); Sitzmann et al., "Implicit neural representations with periodic activation functions"
        (SIREN, 2020), section 3.2 and appendix 1.5 for the first weights.
    """

    def __init__(
        self,
        activation: Activation = "relu",
        num_frequencies: int = 128,
        frequency_scale: float = 2.0,
        omega_0: float = 30.0,
        hidden_dim: int = 64,
        num_layers: int = 2,
        bake_resolution: int | None = None,
        initial_opacity: float = 0.02,
        initial_brightness: float = 0.27,
        initial_noise: float = 0.6,
        grow_at: Times | None = None,
    ) -> None:
        super().__init__(bake_resolution, grow_at, initial_opacity, initial_brightness)
        sines = activation == "sine"
        least = 2 if sines else 1
        known = ", ".join(get_args(Activation))
        check_arguments(
            activation=(activation, activation in get_args(Activation), f"one of {known}"),
            num_frequencies=(num_frequencies, 1 <= num_frequencies <= 1024, "in [1, 1024]"),
            frequency_scale=(frequency_scale, 0.0 < frequency_scale < math.inf, "finite and > 0"),
            omega_0=(omega_0, 0.0 < omega_0 < math.inf, "finite and > 0"),
            hidden_dim=(hidden_dim, 1 <= hidden_dim <= 1024, "in [1, 1024]"),
            num_layers=(num_layers, least <= num_layers <= 16, f"in [{least}, 16] with activation={activation}"),
            initial_noise=(initial_noise, 0.0 <= initial_noise < math.inf, "finite and >= 0"),
        )
        self.activation, self.omega_0 = activation, omega_0
        if not sines:
            self.frequencies = nn.Buffer(scaled_normal(frequency_scale, num_frequencies, AXES))
        sizes = [AXES if sines else 2 * num_frequencies, *[hidden_dim] * (num_layers - 1), CHANNELS]
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        first = _sine_start if sines else _relu_start
        layers = [first(shape, omega_0, layer == 0) for layer, shape in enumerate(shapes[:-1])]
        # The hidden values have a mean square of 1/2 both ways, so a spread of sqrt(2 / width) gives one of 1.
        self.weights = nn.ParameterList([weight for weight, _ in layers])
        self.weights.append(scaled_normal(initial_noise * math.sqrt(2.0 / sizes[-2]), *shapes[-1]))
        self.biases = nn.ParameterList([bias for _, bias in layers])

    def extra_repr(self) -> str:
        """Its layers, what makes it fine, and the grid that is baked."""
        sizes = " x ".join(str(weight.shape[1]) for weight in self.weights)
        detail = f"omega_0={self.omega_0:g}" if self.activation == "sine" else f"{len(self.frequencies)} frequencies"
        return f"{self.activation}, {detail}, layers {sizes} x {CHANNELS}, bake_resolution={self.bake_resolution}"

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All layers."""
        return [{"params": list(self.parameters()), "rate": RATE}]

    def numbers_held(self, points: int, device: str) -> int:
        """What each layer answers, and what its activation makes of it."""
        return numbers_kept(points, self._of_each, device)

    @property
    def _of_each(self) -> int:
        features = 0 if self.activation == "sine" or self.bake_resolution else self.weights[0].shape[1]
        return 2 * (features + sum(weight.shape[0] for weight in self.weights))

    def raw(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 2"]:
        """What the network answers at world points, without the bias.

        Gradients:
            To the parameters and to the points.
        """
        weights = [computed(weight) for weight in self.weights]
        biases = [computed(bias) for bias in self.biases]
        where = in_cube(points).to(weights[0].dtype)

        def answers(hidden: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, "P 2"]]:
            if self.activation == "relu":
                phase = F.linear(hidden, 2.0 * math.pi * computed(self.frequencies))
                hidden = torch.cat([phase.cos(), phase.sin()], dim=-1)
            for weight, bias in zip(weights[:-1], biases, strict=True):
                hidden = F.linear(hidden, weight, bias)
                hidden = F.relu(hidden) if self.activation == "relu" else torch.sin(self.omega_0 * hidden)
            return (F.linear(hidden, weights[-1]),)

        parts = where.split(points_at_once(points.device.type))
        return torch.cat(in_turn(answers, zip(parts), len(points), self._of_each))

    def _baked(self, size: int) -> Float[Tensor, "2 N N N"]:
        if self.activation == "sine":
            return baked_in_ball(self, size)
        return self._baked_features(size)

    def _baked_features(self, size: int) -> Float[Tensor, "2 N N N"]:
        """Fourier features of voxels that lie in slices: those of one slice serve for all, as with a = 2 pi B (x, y, 0)
        and c = 2 pi B (0, 0, z)

            Wc cos(a + c) + Ws sin(a + c) = (Wc cos c + Ws sin c) cos a + (Ws cos c - Wc sin c) sin a,

        so it is the first layer that is turned, once a slice, and no sine is computed for each voxel.
        """
        weights = [computed(weight) for weight in self.weights]
        biases = [computed(bias) for bias in self.biases]
        axis = voxel_centres(size).to(weights[0])
        along_x, along_y, along_z = (2.0 * math.pi * axis[:, None] * of for of in computed(self.frequencies).mT)
        plane = along_y[:, None] + along_x
        plane = torch.cat([plane.cos(), plane.sin()], dim=-1)  # (y, x, 2 F)
        of_cosine, of_sine = weights[0].chunk(2, dim=-1)

        def answers(plane: Tensor, heights: Tensor) -> tuple[Tensor]:
            cosine, sine = heights.cos()[:, None], heights.sin()[:, None]
            turned = torch.cat([of_cosine * cosine + of_sine * sine, of_sine * cosine - of_cosine * sine], dim=-1)
            hidden = F.linear(plane, turned.flatten(0, 1)).unflatten(-1, turned.shape[:2])  # (y, x, z, H)
            for weight, bias in zip(weights[1:], biases, strict=True):
                hidden = F.linear(F.relu(hidden + bias), weight)
            return (torch.stack(activated(hidden + self.bias)).permute(0, 3, 1, 2),)

        slabs = slabs_of(size, plane.device.type)
        parts = ((plane[square, square], along_z[slab]) for slab, square in slabs)
        return joined_slabs(in_turn(answers, parts, size**3, self._of_each), slabs)


def _relu_start(shape: tuple[int, int], omega_0: float, is_first: bool) -> tuple[Tensor, Tensor]:
    """He et al. 2015: the spread of the features survives the layers."""
    return scaled_normal(math.sqrt(2.0 / shape[1]), *shape), torch.zeros(shape[0])


def _sine_start(shape: tuple[int, int], omega_0: float, is_first: bool) -> tuple[Tensor, Tensor]:
    """Sitzmann et al. 2020: what goes into each sine has a spread of 1, but in the first layer, where it has
    frequencies up to omega_0 / 3; biases as torch's linear layers have them."""
    fan_in = shape[1]
    bound = 1.0 / fan_in if is_first else math.sqrt(6.0 / fan_in) / omega_0
    return uniform(bound, *shape), uniform(1.0 / math.sqrt(fan_in), shape[0])
