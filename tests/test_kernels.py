"""The absorption kernel: closed forms, gradients, the contract, and proof that the contract can fail."""

import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor

from mnist3d.kernels.absorption import ball_quadrature, render_grid
from mnist3d.kernels.absorption.reference import render_grid_reference
from mnist3d.kernels.absorption.trilinear_numba import render_grid_numba
from mnist3d.testing.kernels import check_absorption_kernel, random_rotations

BOTH = ("reference", "numba")
Recurrence = Callable[[Tensor, Tensor], Tensor]


def rotations(views: int, seed: int = 0) -> Tensor:
    return random_rotations(views, torch.Generator().manual_seed(seed))


def chords(image_size: int) -> Tensor:
    centre = (2.0 * torch.arange(image_size, dtype=torch.float64) + 1.0) / image_size - 1.0
    return 2.0 * (1.0 - centre[:, None] ** 2 - centre**2).clamp_min(0.0).sqrt()


@pytest.mark.parametrize("num_samples", [1, 2, 7, 64])
def test_the_shares_of_the_steps_sum_to_the_chord(num_samples: int) -> None:
    points, share = ball_quadrature(11, num_samples, dtype=torch.float64)
    torch.testing.assert_close(share.sum(-1) * (2.0 / num_samples), chords(11), rtol=0, atol=1e-14)
    assert (points.square().sum(-1)[share > 0] <= 1.0).all()


@pytest.mark.parametrize("impl", BOTH)
def test_a_ball_of_constant_attenuation_follows_beer_lambert(impl: str) -> None:
    mu, absorbance = 0.7, 0.25
    grid = torch.full((8, 9, 7), mu, dtype=torch.float64)
    image = render_grid(grid, torch.full_like(grid, absorbance), rotations(3), 15, 4096, impl=impl)
    expected = (1.0 - absorbance) * (1.0 - torch.exp(-mu * chords(15)))
    # A clipped step has opacity share * (1 - exp(-mu step)) instead of 1 - exp(-mu share step): (mu step)^2 / 8 each.
    torch.testing.assert_close(image, expected.expand(3, -1, -1), rtol=0, atol=2 * (mu * 2 / 4096) ** 2 / 8)


@pytest.mark.parametrize("impl", BOTH)
def test_the_half_that_is_nearer_to_the_eye_hides_the_other(impl: str) -> None:
    # Two half balls, split at z = 0; +z is away from the eye.
    attenuation = torch.full((512, 1, 1), 2.0, dtype=torch.float64)
    attenuation[256:] = 5.0
    absorbance = (torch.arange(512) >= 256).double()[:, None, None] * 0.6 + 0.1
    half = chords(9) / 2.0
    near, far = 1.0 - torch.exp(-2.0 * half), 1.0 - torch.exp(-5.0 * half)
    turned = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=torch.float64)
    views = torch.stack([torch.eye(3, dtype=torch.float64), turned])
    image = render_grid(attenuation, absorbance, views, 9, 512, impl=impl)
    expected = torch.stack([near * 0.9 + (1.0 - near) * far * 0.3, far * 0.3 + (1.0 - far) * near * 0.9])
    # Within two voxels of the border the grid is a ramp, and an end step is linear in its share: both O(1 / 512).
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("impl", BOTH)
def test_nothing_shows_nothing_and_an_opaque_ball_shows_its_colour(impl: str) -> None:
    nothing = torch.zeros(5, 5, 5)
    assert render_grid(nothing, nothing, rotations(2).float(), 8, 16, impl=impl).abs().max() == 0.0
    image = render_grid(nothing + 1e30, nothing + 0.25, rotations(2).float(), 8, 16, impl=impl)
    inside = chords(8) > 2.5 / 16  # at least one whole step
    torch.testing.assert_close(image[:, inside], torch.full_like(image[:, inside], 0.75), rtol=0, atol=1e-6)
    assert (image[:, chords(8) == 0] == 0.0).all()


@pytest.mark.parametrize("impl", BOTH)
def test_gradcheck(impl: str) -> None:
    generator = torch.Generator().manual_seed(0)
    opacity, absorbance = torch.rand(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    opacity[1:3, :, 1:4] = 1.0  # samples of exactly 1, and of less in the same ray
    opacity[:, :, 4] = 0.0
    render = render_grid_reference if impl == "reference" else render_grid_numba
    inputs = (opacity.requires_grad_(), absorbance.requires_grad_(), rotations(2).requires_grad_())
    assert torch.autograd.gradcheck(lambda o, a, r: render(o, a, r, 3, 6), inputs)
    assert torch.autograd.gradcheck(lambda o, a, r: render_grid(o, a, r, 3, 6, impl=impl), inputs)


def test_numba_fulfils_the_contract() -> None:
    check_absorption_kernel(render_grid_numba)


def mutant(recurrence: Recurrence) -> Callable[..., Tensor]:
    """The reference with another way of compositing."""

    def render(opacity: Tensor, absorbance: Tensor, rotation: Tensor, image_size: int, num_samples: int) -> Tensor:
        camera, share = ball_quadrature(image_size, num_samples, dtype=opacity.dtype)
        world = torch.einsum("hwsc,bcx->bhwsx", camera, rotation)
        grid = torch.stack([opacity, absorbance])[None].expand(len(rotation), -1, -1, -1, -1)
        if len(rotation) == 0:
            return render_grid_reference(opacity, absorbance, rotation, image_size, num_samples)
        sampled = torch.nn.functional.grid_sample(grid, world, padding_mode="border", align_corners=False)
        return recurrence(share * sampled[:, 0], sampled[:, 1])

    return render


def good(opacity: Tensor, absorbance: Tensor) -> Tensor:
    passed = torch.cumprod(1.0 - opacity, dim=-1).roll(1, -1)
    transmittance = torch.cat([torch.ones_like(passed[..., :1]), passed[..., 1:]], dim=-1)
    return (transmittance * opacity * (1.0 - absorbance)).sum(-1)


def one_step_off(opacity: Tensor, absorbance: Tensor) -> Tensor:
    return (torch.cumprod(1.0 - opacity, dim=-1) * opacity * (1.0 - absorbance)).sum(-1)


def gradient_times_1_01(opacity: Tensor, absorbance: Tensor) -> Tensor:
    return good(1.01 * opacity - 0.01 * opacity.detach(), absorbance)


class _Dividing(torch.autograd.Function):
    """The usual backward: what lies behind sample k, over 1 - opacity_k clamped away from zero."""

    @staticmethod
    def forward(ctx, opacity: Tensor, absorbance: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(opacity, absorbance)
        return good(opacity, absorbance)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        opacity, absorbance = ctx.saved_tensors
        transmittance = torch.cumprod(1.0 - opacity, dim=-1) / (1.0 - opacity).clamp_min(1e-7)
        light = transmittance * opacity * (1.0 - absorbance)
        behind = light.sum(-1, keepdim=True) - light.cumsum(-1)
        to_opacity = transmittance * (1.0 - absorbance) - behind / (1.0 - opacity).clamp_min(1e-7)
        return upstream[..., None] * to_opacity, -upstream[..., None] * transmittance * opacity


def skips_empty_samples(opacity: Tensor, absorbance: Tensor) -> Tensor:
    return good(torch.where(opacity == 0.0, opacity.detach(), opacity), absorbance)


def test_the_contract_accepts_the_reference_written_otherwise() -> None:
    check_absorption_kernel(mutant(good), dtypes=(torch.float64,))


@pytest.mark.parametrize("recurrence", [one_step_off, gradient_times_1_01, _Dividing.apply, skips_empty_samples])
def test_the_contract_refuses_a_wrong_kernel(recurrence: Recurrence) -> None:
    with pytest.raises(AssertionError, match="is off by"):
        check_absorption_kernel(mutant(recurrence))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda o, a, r, n, s: render_grid_reference(o, a, r, n, s + 1),
        lambda o, a, r, n, s: render_grid_reference(o, a, r.detach() + 0.0 * r, n, s),
        lambda o, a, r, n, s: render_grid_reference(o, a, r, n, s).mT,
    ],
    ids=["one sample more", "no gradient to the rotation", "transposed image"],
)
def test_the_contract_refuses_a_wrong_wrapper(wrong: Callable[..., Tensor]) -> None:
    with pytest.raises(AssertionError, match="is off by"):
        check_absorption_kernel(wrong)


def scene(seed: int, edge: int = 24, views: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    attenuation, absorbance = torch.rand(2, edge, edge, edge, generator=generator)
    return attenuation.requires_grad_(), absorbance.requires_grad_(), random_rotations(views, generator).float()


def view_and_gradients(inputs: tuple[Tensor, Tensor, Tensor], impl: str) -> list[Tensor]:
    image = render_grid(*inputs, 20, 24, impl)
    upstream = torch.linspace(-1.0, 1.0, image.numel()).view_as(image)
    return [image.detach(), *torch.autograd.grad(image, inputs[:2], upstream)]


@pytest.fixture
def threads():
    """Sets torch's number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_reruns_are_bit_equal_for_a_number_of_threads(count: int, threads: Callable[[int], None]) -> None:
    threads(count)
    inputs = scene(0)
    first = view_and_gradients(inputs, impl="numba")
    for _ in range(3):
        again = view_and_gradients(inputs, impl="numba")
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_number_of_threads_changes_rounding_only(threads: Callable[[int], None]) -> None:
    inputs = scene(0)
    threads(1)
    one = view_and_gradients(inputs, impl="numba")
    threads(7)
    seven = view_and_gradients(inputs, impl="numba")
    for left, right in zip(one, seven, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6 * left.abs().max().item())


def test_two_python_threads_can_render_at_once(threads: Callable[[int], None]) -> None:
    threads(2)
    scenes = [scene(seed) for seed in range(2)]
    results: list[list[list[Tensor]]] = [[], []]

    def work(which: int) -> None:
        torch.set_num_threads(2)
        for _ in range(20):
            results[which].append(view_and_gradients(scenes[which], impl="numba"))

    workers = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for inputs, found in zip(scenes, results, strict=True):
        expected = view_and_gradients(inputs, impl="numba")
        assert len(found) == 20
        for run in found:
            assert all(torch.equal(one, other) for one, other in zip(run, expected, strict=True))


def test_a_matrix_that_is_no_rotation_reads_the_border() -> None:
    attenuation, absorbance, _ = scene(0, edge=6)
    matrices = torch.stack([torch.eye(3) * 1e6, torch.full((3, 3), math.inf), torch.full((3, 3), math.nan)])
    image = render_grid(attenuation, absorbance, matrices[:1], 8, 8, impl="numba")
    torch.testing.assert_close(image, render_grid(attenuation, absorbance, matrices[:1], 8, 8, impl="reference"))
    render_grid(attenuation, absorbance, matrices, 8, 8, impl="numba").sum().backward()  # stays inside its memory


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"impl": "fast"}, "must be one of auto, reference, numba"),
        ({"absorbance": torch.zeros(4, 4, 5)}, r"both must be the same \(Z, Y, X\)"),
        ({"rotation": torch.eye(3)}, r"must be \(B, 3, 3\); add \[None\]"),
        ({"image_size": 0}, "image_size=0"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"impl": "numba", "rotation": torch.eye(3)[None].half()}, "rotation of torch.float16"),
    ],
)
def test_bad_arguments_are_named(change: dict, match: str) -> None:
    arguments = {
        "attenuation": torch.zeros(4, 4, 4),
        "absorbance": torch.zeros(4, 4, 4),
        "rotation": torch.eye(3)[None],
        "image_size": 4,
        "num_samples": 4,
    }
    jaxtyping.config.update("jaxtyping_disable", True)  # the tests' shape checks would speak first
    try:
        with pytest.raises(ValueError, match=match):
            render_grid(**(arguments | change))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def run_python(code: str, folder: Path | None = None, **environment: str) -> str:
    """What a fresh interpreter prints."""
    root = folder or Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


RENDER = """
import sys, torch, logging
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
{before}
from mnist3d.kernels.absorption import render_grid
assert "numba" not in sys.modules or sys.modules["numba"] is None, "numba must be imported lazily"
for _ in range(2):
    print(float(render_grid(torch.full((2, 2, 2), 1e9), torch.zeros(2, 2, 2), torch.eye(3)[None], 1, 1)))
{after}
"""


def test_auto_takes_numba_and_says_so_once() -> None:
    printed = run_python(RENDER.format(before="", after=""))
    assert printed.splitlines() == [
        "mnist3d.kernels.choice render_grid: impl='auto' takes numba on the CPU",
        "1.0",
        "1.0",
    ]


def test_without_numba_auto_takes_the_reference_and_an_explicit_wish_raises() -> None:
    after = """
try:
    render_grid(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2), torch.eye(3)[None], 1, 1, impl="numba")
except ImportError as error:
    print(error)
"""
    printed = run_python(RENDER.format(before="sys.modules['numba'] = None", after=after)).splitlines()
    assert "takes the reference: numba cannot be imported" in printed[0]
    assert printed[1:3] == ["1.0", "1.0"]
    assert printed[-1].startswith("impl='numba' cannot import numba")
    assert printed[-1].endswith("pip install numba")


def test_a_numba_that_breaks_while_it_is_imported_is_left_too() -> None:
    """llvmlite raises an OSError where its library is lost."""
    before = """
class Breaks:
    @staticmethod
    def find_spec(name, *_):
        if name == "numba":
            raise OSError("libllvmlite.so is lost")
sys.meta_path.insert(0, Breaks)
"""
    after = """
try:
    render_grid(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2), torch.eye(3)[None], 1, 1, impl="numba")
except ImportError as error:
    print(error)
"""
    printed = run_python(RENDER.format(before=before, after=after)).splitlines()
    assert "takes the reference: numba cannot be imported (libllvmlite.so is lost)" in printed[0]
    assert printed[-1] == "impl='numba' cannot import numba (libllvmlite.so is lost): pip install numba"


def test_an_install_directory_without_a_writable_cache_still_works(tmp_path: Path) -> None:
    # A file where each cache folder would have to be: that stops root too, whom permissions do not.
    runtime = Path(__file__).parents[1] / "mnist3d" / "kernels" / "numba_runtime.py"
    (tmp_path / runtime.name).write_text(runtime.read_text())
    (tmp_path / "__pycache__").write_text("")
    blocked = str(tmp_path / "__pycache__" / "nowhere")
    (tmp_path / "loops.py").write_text(
        "from numba_runtime import compiled\n\n\n@compiled\ndef increment(x):\n    return x + 1\n"
    )
    code = "import loops; print(loops.increment(1), loops.increment._cache.cache_path)"
    printed = run_python(code, tmp_path, HOME=blocked, XDG_CACHE_HOME=blocked, NUMBA_CACHE_DIR="", IPYTHONDIR=blocked)
    assert printed.split() == ["2", "None"]
