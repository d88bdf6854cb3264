"""The Triton kernel: the shared contract in Triton's interpreter, on a GPU where there is one, and its compiler.

Triton decides when a kernel is defined how it will run, so each way has a process of its own.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist3d.kernels.absorption import render_grid

ROOT = Path(__file__).parents[1]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: torch's CUDA builds for Linux bring it, elsewhere there is none",
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Broken on purpose, one device function each: what it stands for, and the code that replaces it.
MUTANTS = {
    "off by one step": "good = loops._step; loops._step = lambda k, reach, n: good(k + 1, reach, n)",
    "the last chunk is forgotten": """
good = loops._chunks
def wrong(*arguments, **constants):
    first, end = good(*arguments, **constants)
    return first, end - 1
loops._chunks = wrong""",
    "a gradient of 1.01 times": "good = loops._spread; loops._spread = lambda *a: good(*a[:-1], a[-1] * 1.01)",
    "the rotation's x and y swapped": """
good = loops._slopes
def wrong(*arguments):
    x, y, z = good(*arguments)
    return y, x, z
loops._slopes = wrong""",
}

# The interpreter takes a fraction of a millisecond for each operation of each sample, so: two tiles of pixels, two
# chunks of samples, unequal and single-voxel axes, one pixel, no view, and no more.
CHECK = """
import json, torch
from mnist3d.kernels.absorption import trilinear_triton_loops as loops
from mnist3d.kernels.absorption.trilinear_triton import INTERPRETED, render_grid_triton
from mnist3d.testing import kernels as testing
assert INTERPRETED
SMALLEST = ((4, 4, 4), 1, 5, 3)
def check(sizes, *dtypes):
    testing.SIZES = sizes
    try:
        testing.check_absorption_kernel(render_grid_triton, dtypes=dtypes)
    except AssertionError as error:
        return str(error)
    return "correct"
found = {"float32": check(
    (SMALLEST, ((4, 3, 5), 1, 9, 3), ((1, 1, 1), 2, 4, 3), ((2, 1, 6), 1, 1, 1), ((5, 6, 7), 0, 4, 3)), torch.float32)}
found["float64"] = check((SMALLEST,), torch.float64)
originals = dict(vars(loops))
for name, code in json.loads(input()).items():
    exec(code, {"loops": loops})
    found[name] = check((SMALLEST,), torch.float32)
    vars(loops).update(originals)
print(json.dumps(found))
"""

# Shapes and upstream gradients that the contract does not ask about: (Z, Y, X), pixels, samples, upstream, dtype.
ATTACKS = {
    "one sample": ((3, 4, 2), 4, 1, "contiguous", "float32"),
    "1 x 1 x 9": ((1, 1, 9), 3, 2, "contiguous", "float32"),
    "9 x 1 x 1": ((9, 1, 1), 3, 2, "contiguous", "float32"),
    "expanded": ((3, 4, 2), 4, 2, "expanded", "float32"),
    "strided": ((3, 4, 2), 4, 2, "strided", "float32"),
    "double precision": ((1, 1, 9), 3, 1, "strided", "float64"),
}
ATTACK = """
import json, torch
from mnist3d.kernels.absorption.reference import render_grid_reference
from mnist3d.kernels.absorption.trilinear_triton import obstacle, render_grid_triton
from mnist3d.testing import random_rotations
generator = torch.Generator().manual_seed(0)
wave = lambda count, dtype: torch.linspace(-1.0, 1.0, count, dtype=dtype)
UPSTREAM = {
    "contiguous": lambda image: wave(image.numel(), image.dtype).view_as(image),
    "expanded": lambda image: torch.full((), 0.7, dtype=image.dtype).expand(image.shape),
    "strided": lambda image: wave(4 * image.numel(), image.dtype).view(*image.shape, 4)[..., 1].mT,
}
def off(shape, size, samples, upstream, dtype):
    inputs = [*torch.rand(2, *shape, generator=generator, dtype=torch.float64), random_rotations(1, generator)]
    answers = []
    for render, kind in ((render_grid_triton, getattr(torch, dtype)), (render_grid_reference, torch.float64)):
        given = [tensor.detach().to(kind).requires_grad_() for tensor in inputs]
        image = render(*given, size, samples)
        answers.append([image.detach(), *torch.autograd.grad(image, given, UPSTREAM[upstream](image))])
    return max(float((a.double() - b).abs().max() / max(1.0, b.abs().max())) for a, b in zip(*answers))
found = {name: off(*case) for name, case in json.loads(input()).items()}
def asked(edge, size=28):
    nothing = torch.zeros(()).expand(edge, edge, edge)
    return nothing, nothing, torch.eye(3)[None], size
found["accepted"] = [obstacle(*asked(1021)), obstacle(*asked(8, 2**14))]
found["refused"] = []
for call in (asked(1022), asked(8, 2**14 + 1)):
    try:
        render_grid_triton(*call, 1)
    except ValueError as error:
        found["refused"].append(str(error))
print(json.dumps(found))
"""

ON_A_GPU = """
from mnist3d.testing import check_absorption_kernel
from mnist3d.kernels.absorption.trilinear_triton import render_grid_triton
check_absorption_kernel(lambda o, a, r, n, s: render_grid_triton(o.cuda(), a.cuda(), r.cuda(), n, s).cpu())
"""

# The interpreter takes Python that the compiler refuses. Triton compiles for a GPU that is not there.
COMPILE = """
import inspect, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mnist3d.kernels.absorption import trilinear_triton_loops as loops
pointers = {"cells", "turns", "image", "kept", "upstream", "to_cells", "to_turns"}
for kernel, flags in (loops.draw, ["KEEP"]), (loops.draw_backward, ["TO_CELLS", "TO_TURNS"]):
    constants = dict.fromkeys(flags, True) | {"TILE_WIDTH": 16, "TILE_HEIGHT": 8, "CHUNK": 2}
    signature = {
        name: "constexpr" if name in constants else "*fp32" if name in pointers else "i32"
        for name in inspect.signature(kernel.fn).parameters
    }
    compiled = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 80, 32))
    print(kernel.fn.__name__, len(compiled.asm["cubin"]) > 0)
"""


def run_python(code: str, given: str = "", **environment: str) -> str:
    """What a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        input=given,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=1800,  # a minute of a free core; so long that no other work on the machine decides
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    """For each dtype and mutant: "correct", or what the contract check says against it."""
    return json.loads(run_python(CHECK, json.dumps(MUTANTS), TRITON_INTERPRET="1"))


@needs_triton
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_triton_fulfils_the_contract_in_its_interpreter(dtype: str, interpreted: dict[str, str]) -> None:
    assert interpreted[dtype] == "correct"


@needs_triton
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_contract_refuses_a_wrong_triton_kernel(mutant: str, interpreted: dict[str, str]) -> None:
    assert "is off by" in interpreted[mutant]


@pytest.fixture(scope="module")
def attacked() -> dict[str, Any]:
    """For each attack how far image and gradients are off, relative to the largest; who is refused."""
    return json.loads(run_python(ATTACK, json.dumps(ATTACKS), TRITON_INTERPRET="1"))


@needs_triton
@pytest.mark.parametrize("attack", ATTACKS)
def test_triton_withstands(attack: str, attacked: dict[str, Any]) -> None:
    # the contract's tolerances; what is read where it does not lie is off by .1 and more
    assert attacked[attack] <= (1e-11 if attack == "double precision" else 1e-5)


@needs_triton
def test_triton_refuses_what_32_bits_cannot_count(attacked: dict[str, Any]) -> None:
    """Two channels of 1024^3 padded voxels are 2^31."""
    assert attacked["accepted"] == [None, None]
    assert len(attacked["refused"]) == 2
    for said, what in zip(attacked["refused"], ("(1022, 1022, 1022) drawn at 28", "at 16385 pixels"), strict=True):
        assert said.startswith("impl='triton' cannot take a grid of ")
        assert what in said
        assert said.endswith("(32-bit indices); use impl='reference'")


@needs_triton
def test_the_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    printed = run_python(COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert printed.splitlines() == ["draw True", "draw_backward True"]


@needs_triton
@needs_gpu
def test_triton_fulfils_the_contract_on_a_gpu() -> None:
    run_python(ON_A_GPU, TRITON_INTERPRET="0")


WISH = """
import sys, torch
{before}
from mnist3d.kernels.absorption import render_grid
assert sys.modules.get("triton") is None, "triton must be imported lazily"
grid = torch.zeros(2, 2, 2)
try:
    render_grid(grid, grid, torch.eye(3, dtype=torch.{dtype})[None], 1, 1, impl="triton")
except (ImportError, ValueError) as error:
    print(type(error).__name__, error)
"""


def test_without_triton_the_wish_for_it_says_where_to_get_it() -> None:
    printed = run_python(WISH.format(before="sys.modules['triton'] = None", dtype="float32"))
    assert printed.startswith("ImportError impl='triton' cannot import triton")
    assert "install a CUDA build of torch" in printed


@needs_triton
@pytest.mark.parametrize(
    ("dtype", "said"),
    [("float32", "cannot take tensors on cpu: tensors must be"), ("float64", "cannot take rotation of torch.float64")],
)
def test_tensors_that_triton_cannot_take_are_named(dtype: str, said: str) -> None:
    printed = run_python(WISH.format(before="", dtype=dtype), TRITON_INTERPRET="0")
    assert printed.startswith("ValueError impl='triton'")
    assert said in printed


def test_triton_has_no_slices() -> None:
    grid = torch.zeros(2, 2, 2)
    with pytest.raises(ValueError, match="'trilinear' only"):
        render_grid(grid, grid, torch.eye(3)[None], 1, 1, impl="triton", quadrature="slices")
