"""The renderers of a dense grid by name, what each can take, and the choice of "auto" among them.

All take (attenuation, absorbance, rotation, image_size, num_samples), whichever their quadrature.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ...geometry.parts import in_parts
from ..choice import TOLERANCES, Run, Twins, announce, say_once, verdict
from .cases import cases
from .reference import render_grid_reference
from .slices_reference import render_slices_reference

IMPLEMENTATIONS = ("auto", "reference", "numba", "triton")
QUADRATURES = ("trilinear", "slices")
# What could be faster than the reference on a kind of device. "slices" has nothing of its own on a GPU.
FASTER = {("cpu", "trilinear"): "numba", ("cpu", "slices"): "numba", ("cuda", "trilinear"): "triton"}
QUANTITIES = ("image", "gradient to attenuation", "gradient to absorbance", "gradient to rotation")


def implementation(
    impl: str,
    quadrature: str,
    attenuation: Tensor,
    absorbance: Tensor,
    rotation: Tensor,
    image_size: int,
    at_once: int | None = None,
) -> Run:
    """Who renders this call.

    Raises:
        ValueError: unknown `impl` or `quadrature`, or tensors that the chosen `impl` cannot take.
        ImportError: what is asked for by name cannot be imported.
    """
    check_names(impl, quadrature)
    tensors = (attenuation, absorbance, rotation)
    if impl == "auto":
        needs_gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        impl = _automatic(quadrature, tensors, image_size, needs_gradients)
    elif impl == "numba" and (obstacle := _numba_obstacle(*tensors)):
        raise ValueError(f"impl='numba' cannot take {obstacle}: tensors must be float32 or float64, on the CPU")
    return load(impl, quadrature, at_once)


def check_names(impl: str, quadrature: str) -> None:
    """Refuse what does not exist.

    Raises:
        ValueError: unknown `impl` or `quadrature`, or two that do not go together.
    """
    for name, value, known in (("impl", impl, IMPLEMENTATIONS), ("quadrature", quadrature, QUADRATURES)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(known)}")
    if impl == "triton" and quadrature != "trilinear":
        raise ValueError(f"impl='triton' with quadrature={quadrature!r}: it has 'trilinear' only; use impl='auto'")


def check_can_compute(impl: str, quadrature: str, device: torch.device) -> None:
    """Refuse, before any work, what is asked for by name and cannot be had for single precision on a device.

    Raises:
        ValueError: with the reason and what to do.
    """
    check_names(impl, quadrature)
    needed = {"numba": "cpu", "triton": "cuda"}.get(impl, device.type)
    if device.type != needed:
        raise ValueError(f"impl={impl}: computes on {needed}, not on {device.type}; must be auto or reference there")
    try:
        if impl != "auto":
            load(impl, quadrature)
    except ImportError as error:
        raise ValueError(" ".join(str(error).split())) from None


def load(impl: str, quadrature: str, at_once: int | None = None) -> Run:
    """An implementation by name; "auto" is none. `at_once`: see `render_grid`.

    Raises:
        ImportError: it cannot be imported here; the message says what to do.
    """
    if quadrature == "slices":
        return _of_slices(_parted(render_slices_reference, at_once) if impl == "reference" else _numba("slices"))
    named = {
        "reference": lambda: _parted(render_grid_reference, at_once),
        "numba": lambda: _numba("trilinear"),
        "triton": _triton,
    }
    return _of_opacity(named[impl]())


def _automatic(quadrature: str, tensors: tuple[Tensor, ...], image_size: int, needs_gradients: bool) -> str:
    """The reference, or what is faster on the tensors' device, can take them, and has proven itself there."""
    what, grid = "render_grid: impl='auto'", tensors[0]
    fast = FASTER.get((grid.device.type, quadrature))
    if fast is None:
        say_once(f"{what} takes the reference: nothing else renders {quadrature} on {grid.device.type}")
        return "reference"
    if obstacle := _obstacle(fast, tensors, image_size):
        say_once(f"{what} takes the reference: {obstacle}")
        return "reference"
    found = verdict(
        ("render_grid", quadrature),
        fast,
        lambda: twins(fast, quadrature, grid.dtype),
        grid.device,
        grid.dtype,
        gradients=needs_gradients,
    )
    announce(what, fast, "the reference", found)
    return fast if found.taken else "reference"


def twins(fast: str, quadrature: str, dtype: torch.dtype) -> Twins:
    """An implementation and the reference, to be compared."""
    pair = load(fast, quadrature), load("reference", quadrature)
    return Twins(*pair, cases, QUANTITIES, TOLERANCES[dtype])


def _parted(render: Run, at_once: int | None) -> Run:
    """The reference, of which all that lies between two operations is kept, a few views at a time."""
    if at_once is None:
        return render

    def in_few(opacity: Tensor, absorbance: Tensor, rotation: Tensor, *sizes: int) -> Tensor:
        (views,) = in_parts(lambda turns: (render(opacity, absorbance, turns, *sizes),), at_once, rotation)
        return views

    return in_few


def _of_opacity(render: Run) -> Run:
    """A trilinear renderer takes the opacity of one step."""

    def of_attenuation(
        attenuation: Tensor, absorbance: Tensor, rotation: Tensor, image_size: int, num_samples: int
    ) -> Tensor:
        opacity = -torch.expm1(attenuation * (-2.0 / num_samples))
        return render(opacity, absorbance, rotation, image_size, num_samples)

    return of_attenuation


def _of_slices(render: Run) -> Run:
    """The slices are the samples."""
    return lambda attenuation, absorbance, rotation, image_size, _: render(
        attenuation, absorbance, rotation, image_size
    )


def _numba_obstacle(*tensors: Tensor) -> str | None:
    """Which tensor numba cannot take, or None."""
    for name, tensor in zip(("attenuation", "absorbance", "rotation"), tensors, strict=True):
        if tensor.device.type != "cpu":
            return f"{name} on {tensor.device}"
        if tensor.dtype != tensors[0].dtype or tensor.dtype not in (torch.float32, torch.float64):
            return f"{name} of {tensor.dtype} (attenuation is {tensors[0].dtype})"
    return None


def _obstacle(fast: str, tensors: tuple[Tensor, ...], image_size: int) -> str | None:
    """Why the faster one cannot be asked for this call, or None."""
    if fast == "numba" and (obstacle := _numba_obstacle(*tensors)):
        return obstacle
    try:
        if fast == "numba":
            from .. import numba_runtime  # noqa: F401 - the first of our modules to import numba

            return None
        from .trilinear_triton import obstacle as triton_obstacle
    except Exception as error:  # whatever is raised while it is imported: of a NumPy it does not know, a lost library
        return f"{fast} cannot be imported ({' '.join(str(error).split())})"
    attenuation, absorbance, rotation = tensors
    return triton_obstacle(attenuation, absorbance, rotation, image_size)


def _numba(quadrature: str) -> Callable[..., Tensor]:
    try:
        if quadrature == "slices":
            from .slices_numba import render_slices_numba

            return render_slices_numba
        from .trilinear_numba import render_grid_numba

        return render_grid_numba
    except Exception as error:  # as above
        raise ImportError(f"impl='numba' cannot import numba ({error}): pip install numba") from error


def _triton() -> Callable[..., Tensor]:
    try:
        from .trilinear_triton import render_grid_triton
    except Exception as error:  # as above
        raise ImportError(
            f"impl='triton' cannot import triton ({error}): install a CUDA build of torch 2.7 or later, which brings "
            "it on Linux, or use impl='auto'"
        ) from error
    return render_grid_triton
