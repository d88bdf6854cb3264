"""The Triton kernel: the shared contract in Triton's interpreter, on a GPU where there is one, and its compiler.

Triton decides when a kernel is defined how it will run, so each way has a process of its own.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

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
from mnist3d import testing
from mnist3d.kernels.absorption import trilinear_triton_loops as loops
from mnist3d.kernels.absorption.trilinear_triton import INTERPRETED, render_grid_triton
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
    (SMALLEST, ((4, 3, 5), 2, 9, 5), ((1, 1, 1), 1, 4, 3), ((2, 1, 6), 1, 1, 1), ((5, 6, 7), 0, 4, 3)), torch.float32)}
found["float64"] = check((SMALLEST,), torch.float64)
originals = dict(vars(loops))
for name, code in json.loads(input()).items():
    exec(code, {"loops": loops})
    found[name] = check((SMALLEST,), torch.float32)
    vars(loops).update(originals)
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
        timeout=300,
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
