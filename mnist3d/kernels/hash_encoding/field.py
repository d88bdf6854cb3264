"""The encoding and the network behind it by each implementation, and the choice of "auto" among them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..choice import TOLERANCES, Case, Run, Tolerance, Twins, announce, say_once, verdict
from . import tiny_cuda_nn
from .encode import hash_encode
from .implementations import numba_missing, numba_obstacle, require_implementation, tinycudann_obstacle
from .layout import HashLevels
from .network import network, network_in_chunks

Shapes = tuple[tuple[int, ...], ...]

# On a CPU encodings are compared on these levels, two dense and two hashed: a table of the volume's own may be large.
SMALL = (4, 6, 2, 1.9)
SMALL_NETWORK = ((16, 4), (2, 16))  # (out, in of each feature a level)
# On a GPU on the volume's own levels, with tables of at most 2^16: entries are found and read alike.
LARGEST_TABLE = 16
FEW_POINTS, AS_IN_A_STEP = 200, 2**17
CLEAR_OF_BORDERS = 2e-3  # cells: four times what rounding moves a point at 1024 corners an edge
# In half precision (an ulp of 1e-3 of the value): of an encoded number and of a layer, measured up to 6e-3 on trained
# tables. A gradient is a sum that is rounded after each of hundreds of terms.
HALF = Tolerance(1e-2, 5e-2, as_a_whole=True)
# In single precision of a table that is read at a place which two machines compute 3e-7 of the resolution apart.
FULL = Tolerance(1e-3, 5e-3)


def encode_and_evaluate(
    points: Float[Tensor, "P 3"],
    table: Float[Tensor, "T F"],
    weights: Sequence[Float[Tensor, "_ _"]],
    levels: HashLevels,
    impl: str,
    full_precision: bool = False,
) -> Float[Tensor, "P _"]:
    """network(hash_encode(points, table), weights): ReLU between layers, no biases.

    Args:
        points: in [0, 1].
        table: of the levels.
        weights: of each layer, (out, in).
        levels: of the encoding.
        impl: "torch", "numba" or "tinycudann"; see `choose_implementation`.
        full_precision: whether tinycudann computes in single precision; it does so for a network that it cannot fuse.

    Gradients:
        To points, table and weights; once only, except with "torch".
    """
    if impl == "tinycudann":
        if _in_half(weights[0].shape[0], len(weights), full_precision):
            return tiny_cuda_nn.encode_and_evaluate(points, table, weights, levels)
        return network(tiny_cuda_nn.encode_in_full_precision(points, table, levels), weights)
    encoded = hash_encode(points, table, levels, impl)
    return (network_in_chunks if impl == "numba" else network)(encoded, weights)


def choose_implementation(
    wanted: str,
    points: Float[Tensor, "P 3"],
    table: Float[Tensor, "T F"],
    weights: Sequence[Float[Tensor, "_ _"]],
    levels: HashLevels,
    full_precision: bool = False,
) -> str:
    """torch, numba or tinycudann, for a table on its device; says once what "auto" took and why.

    "auto" takes numba on a CPU and tinycudann on a GPU, if it agrees there with torch and, on a GPU, is faster
    (`kernels.choice.verdict`).

    Raises:
        ValueError: what is wanted by name cannot be had; the message says why and what to do.
    """
    if wanted == "auto":
        return _automatic(points, table, weights, levels, full_precision)
    require_implementation(wanted)
    if wanted == "numba" and (obstacle := numba_obstacle(table)):
        raise ValueError(f"implementation=numba cannot take {obstacle}: use implementation=auto, or device=cpu")
    if wanted == "tinycudann" and table.device.type != "cuda":
        raise ValueError(f"implementation=tinycudann needs a CUDA GPU, not {table.device}: use implementation=auto")
    return wanted


def too_wide(levels: HashLevels, hidden_dim: int, num_layers: int, full_precision: bool) -> str | None:
    """Why tinycudann has no encoding of these levels, or None."""
    if _in_half(hidden_dim, num_layers, full_precision) or levels.width <= tiny_cuda_nn.WIDEST_IN_FULL:
        return None
    return (
        f"num_levels={levels.num_levels} times features_per_level={levels.features_per_level} are {levels.width} "
        f"numbers a point, and in single precision tinycudann encodes at most {tiny_cuda_nn.WIDEST_IN_FULL}"
    )


def _in_half(hidden_dim: int, num_layers: int, full_precision: bool) -> bool:
    return not full_precision and tiny_cuda_nn.can_fuse(hidden_dim, num_layers)


def _automatic(
    points: Tensor, table: Tensor, weights: Sequence[Tensor], levels: HashLevels, full_precision: bool
) -> str:
    kind = table.device.type
    if kind == "meta":
        return "torch"
    what, fast = "HashGrid: implementation=auto", {"cpu": "numba", "cuda": "tinycudann"}.get(kind)
    shapes = tuple(tuple(weight.shape) for weight in weights)
    if kind == "cpu":
        obstacle = numba_missing() or numba_obstacle(table)
    elif kind == "cuda":
        # tinycudann computes in half and single precision; a table of another would silently lose its own
        obstacle = None if table.dtype == torch.float32 else f"the table is {table.dtype}"
        obstacle = obstacle or tinycudann_obstacle() or too_wide(levels, shapes[0][0], len(shapes), full_precision)
    else:
        obstacle = f"nothing else computes on {kind}"
    if fast is None or obstacle:
        say_once(f"{what} takes torch: {obstacle}")
        return "torch"
    # the gradient to the points is compared where it is needed: numba compiles a loop for it
    to_points = kind != "cpu" or (torch.is_grad_enabled() and points.requires_grad)
    if kind == "cpu":
        levels, shapes = small_levels(levels.features_per_level)
    found = verdict(
        ("HashGrid", levels, shapes, full_precision, to_points),
        fast,
        lambda: twins(fast, levels, shapes, full_precision, table.dtype, to_points),
        table.device,
        table.dtype,
        gradients=torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (points, table, *weights)),
    )
    announce(what, fast, "torch", found)
    return fast if found.taken else "torch"


def small_levels(features: int) -> tuple[HashLevels, Shapes]:
    """Levels, and shapes of a network's matrices, that are compared in some milliseconds."""
    count, log2_size, base, scale = SMALL
    (width, inputs), *rest = SMALL_NETWORK
    return HashLevels(count, features, log2_size, base, scale), ((width, inputs * features), *rest)


def twins(
    fast: str, levels: HashLevels, shapes: Shapes, full_precision: bool, dtype: torch.dtype, to_points: bool = True
) -> Twins:
    """An implementation and torch, to be compared on levels and a network of these shapes."""
    levels = replace(levels, log2_hashmap_size=min(levels.log2_hashmap_size, LARGEST_TABLE))
    half = fast == "tinycudann" and _in_half(shapes[0][0], len(shapes), full_precision)
    tolerance = HALF if half else FULL if fast == "tinycudann" else TOLERANCES[dtype]

    def run(impl: str) -> Run:
        def evaluate(*inputs: Tensor) -> Tensor:
            # points that need no gradient come last
            points, table, *weights = inputs if to_points else (inputs[-1].to(inputs[0]), *inputs[:-1])
            return encode_and_evaluate(points, table, weights, levels, impl, full_precision)

        return evaluate

    def cases() -> Iterator[Case]:
        generator = torch.Generator().manual_seed(0)
        return (_case(count, levels, shapes, to_points, generator) for count in (FEW_POINTS, AS_IN_A_STEP))

    names = [f"gradient to the {name}" for name in (["points"] if to_points else []) + ["table"]]
    names += [f"gradient to matrix {index + 1}" for index in range(len(shapes))]
    return Twins(run(fast), run("torch"), cases, ("answer", *names), tolerance)


def _case(count: int, levels: HashLevels, shapes: Shapes, to_points: bool, generator: torch.Generator) -> Case:
    """A fresh field, livelier than a volume's."""

    def normal(spread: float, *shape: int) -> Tensor:
        return spread * torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")

    points = torch.rand(2 * count, 3, generator=generator, dtype=torch.float64, device="cpu")
    for scale in levels.scales:  # at a border the slope is that of either side, as rounding decides
        place = (points * scale + 0.5) % 1.0
        points = points[((place > CLEAR_OF_BORDERS) & (place < 1.0 - CLEAR_OF_BORDERS)).all(dim=1)]
    points = points[:count]
    table = normal(0.3, levels.entries, levels.features_per_level)
    weights = [normal((2.0 / shape[1]) ** 0.5, *shape) for shape in shapes]
    inputs = (points, table, *weights) if to_points else (table, *weights)
    return Case(f"{len(points):,} points", inputs, () if to_points else (points,))
