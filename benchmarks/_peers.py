"""Renderers that the project is compared with; each takes what `render_grid` takes.

The three ways to batch the PyTorch reference, the fastest of them through torch.compile (where a C++ compiler is),
the algorithm of the original 3DMNIST renderer, and, where they are installed, nerfacc's dense path
(`pip install nerfacc`), a kernel in NVIDIA Warp (`pip install warp-lang`) and DiffDRR's trilinear X-ray
(`pip install diffdrr`).
"""

import functools
import importlib.util
import shutil
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist3d.geometry.cameras import orthographic_rays
from mnist3d.kernels.absorption import ball_quadrature, render_grid
from mnist3d.kernels.compositing import composite

Render = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]


def reference_expanded(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """The reference as it is: the volume expanded to one a view."""
    return render_grid(attenuation, absorbance, rotation, size, samples, impl="reference")


def reference_looped(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """The reference, one view at a time."""
    views = [reference_expanded(attenuation, absorbance, turn[None], size, samples) for turn in rotation]
    return torch.cat(views)


def _sampled(
    attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Opacity and absorbance of all samples, (B, H, W, S) each: one volume, all views in one long grid."""
    camera, share = ball_quadrature(size, samples, dtype=attenuation.dtype)
    world = torch.einsum("hwsc,bcx->bhwsx", camera, rotation)
    opacity = -torch.expm1(-attenuation * (2.0 / samples))
    grid = torch.stack([opacity, absorbance])[None]
    long = world.reshape(1, len(rotation) * size, size, samples, 3)
    values = F.grid_sample(grid, long, padding_mode="border", align_corners=False)[0]
    opacity, absorbance = values.reshape(2, len(rotation), size, size, samples)
    return share * opacity, absorbance


def reference_long(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """The reference with one volume and one long grid."""
    return composite(*_sampled(attenuation, absorbance, rotation, size, samples))


def original_3dmnist(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """The original renderer's algorithm: rotate the whole voxel grid to the view, then composite along its z.

    One view at a time; the image has the grid's own size and samples, and nothing is cut to the ball, so
    it is another image. `size` and `samples` have no influence but on the length of a step.
    """
    opacity = -torch.expm1(-attenuation * (2.0 / samples))
    grid = torch.stack([opacity, absorbance])[None]
    images = []
    for turn in rotation:
        # affine_grid maps the view's (x, y, z) to the world's: x_world = R^T x_camera.
        matrix = torch.cat([turn.T, turn.new_zeros(3, 1)], dim=1)[None]
        place = F.affine_grid(matrix, list(grid.shape), align_corners=False)
        opacity_there, absorbance_there = F.grid_sample(grid, place, align_corners=False)[0]
        images.append(composite(opacity_there.permute(1, 2, 0), absorbance_there.permute(1, 2, 0)))
    return torch.stack(images)


def nerfacc_dense(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """The samples by grid_sample, composited by nerfacc's functions for dense rays."""
    import nerfacc  # pyright: ignore[reportMissingImports]  # optional

    opacity, absorbance = (part.flatten(0, 2) for part in _sampled(attenuation, absorbance, rotation, size, samples))
    weights, _ = nerfacc.render_weight_from_alpha(opacity)
    image = nerfacc.accumulate_along_rays(weights, values=1.0 - absorbance[..., None])
    return image.reshape(len(rotation), size, size)


@functools.cache
def _compiled_reference() -> Render:
    return torch.compile(reference_long)  # type: ignore[return-value]


def reference_compiled(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """One long grid, through torch.compile."""
    return _compiled_reference()(attenuation, absorbance, rotation, size, samples)


def diffdrr_trilinear(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """DiffDRR's line integral of the attenuation, as an X-ray: no absorbance, and no cut to the ball."""
    from diffdrr.renderers import Trilinear  # pyright: ignore[reportMissingImports]  # optional

    origin, direction = orthographic_rays(rotation, size)
    half = attenuation.new_tensor(attenuation.shape[::-1]) / 2.0  # its volumes are (x, y, z), its units voxels
    ends = [(origin + side * direction[:, None, None]).flatten(1, 2) for side in (-1.0, 1.0)]
    source, target = ((1.0 + end) * half - 0.5 for end in ends)
    length = torch.ones_like(source[:, None, :, 0])
    depth = Trilinear()(attenuation.permute(2, 1, 0), source, target, length, n_points=samples)
    return -torch.expm1(-2.0 * depth).reshape(len(rotation), size, size)


def numba_trilinear(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """The project's fused kernel."""
    return render_grid(attenuation, absorbance, rotation, size, samples, impl="numba")


def numba_slices(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """The project's shear-warp kernel: the same integral on other samples."""
    return render_grid(attenuation, absorbance, rotation, size, samples, impl="numba", quadrature="slices")


REFERENCES: dict[str, Render] = {
    "reference, volume expanded": reference_expanded,
    "reference, one long grid": reference_long,
    "reference, loop over views": reference_looped,
}
OURS: dict[str, Render] = {"numba trilinear": numba_trilinear, "numba slices": numba_slices}


def peers() -> dict[str, Render]:
    """The renderers of others that can run here."""
    found: dict[str, Render] = {"original 3DMNIST": original_3dmnist}
    if importlib.util.find_spec("nerfacc") is not None:
        found["nerfacc, dense"] = nerfacc_dense
    if importlib.util.find_spec("warp") is not None:
        from _peer_warp import warp_trilinear

        found["Warp, trilinear"] = warp_trilinear
    if importlib.util.find_spec("diffdrr") is not None:
        found["DiffDRR, X-ray only"] = diffdrr_trilinear
    if shutil.which("c++") or shutil.which("cl"):
        found["reference, torch.compile"] = reference_compiled
    return found
