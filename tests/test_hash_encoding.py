"""The hash encoding: its numbers, closed forms, numba against the reference, tinycudann's layout against a stand-in."""

import dataclasses
import sys
from itertools import pairwise

import fake_tinycudann
import numpy as np
import pytest
import torch

from mnist3d.kernels import choice
from mnist3d.kernels.absorption import implementations as absorption
from mnist3d.kernels.hash_encoding import HashLevels, hash_encode, implementations, layout, require_implementation
from mnist3d.kernels.hash_encoding import field as evaluation
from mnist3d.kernels.hash_encoding import tiny_cuda_nn as adapter
from mnist3d.kernels.hash_encoding.network import CHUNK, network, network_in_chunks

SMALL = HashLevels(4, 2, 6, 2, 1.9)  # the two coarse levels are dense, the two fine ones hashed

# Rounding of 8 products and of a position up to 64 (4e-6 of a cell), times table values of some 4.
VALUES, GRADIENTS = 2e-5, 2e-5


def inputs(levels, points=300, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    where = torch.rand(points, 3, generator=generator, dtype=torch.float64)
    table = torch.randn(levels.entries, levels.features_per_level, generator=generator, dtype=torch.float64)
    return where.to(dtype), table.to(dtype)


def test_the_levels_numbers_are_those_of_instant_ngp():
    """Base 16, doubled: resolutions, entries rounded up to 8 and capped, computed by hand."""
    levels = HashLevels(4, 2, 14, 16, 2.0)
    assert levels.resolutions == (16, 32, 64, 128)
    assert levels.sizes == (4096, 16384, 16384, 16384)
    assert levels.hashed == (False, True, True, True)
    assert levels.offsets == (0, 4096, 20480, 36864)
    odd = HashLevels(2, 1, 14, 3, 5 / 3)
    assert odd.resolutions == (3, 5)
    assert odd.sizes == (32, 128)  # 27 and 125
    assert odd.hashed == (False, False)


@pytest.mark.parametrize(("base", "scale", "expected"), [(16, 1.5, (16, 24, 36, 54)), (4, 1.0, (4, 4, 4, 4))])
def test_rounding_does_not_decide_a_resolution(base, scale, expected):
    assert HashLevels(4, 2, 19, base, scale).resolutions == expected


# (levels, base, finest) where one of the levels, less the first margin, lies within rounding of a whole number
NEAR_A_WHOLE_NUMBER = [(16, 2, 425), (16, 2, 656), (32, 2, 782), (12, 3, 642), (6, 3, 670), (6, 8, 365), (32, 8, 1002)]
OFTEN = [
    (count, base, finest) for count in (2, 5, 8, 16, 32) for base in (2, 3, 4, 16) for finest in range(17, 1025, 59)
]


def on_another_machine(levels, ulps_of_log2, ulps_of_exp2):
    """Resolutions where the last bits come out otherwise."""
    exponent = np.float32(np.log2(np.float32(levels.growth)))
    exponent += np.float32(ulps_of_log2) * np.spacing(exponent)
    steps = np.exp2(np.arange(levels.num_levels, dtype=np.float32) * exponent)
    steps[1:] += np.float32(ulps_of_exp2) * np.spacing(steps[1:])
    return tuple(int(np.ceil(scale)) + 1 for scale in steps * np.float32(levels.base_resolution) - np.float32(1.0))


def of_finest(count, base, finest):
    return HashLevels(count, 2, 19, base, (finest / base) ** (1 / (count - 1)))


def test_no_resolution_hangs_on_the_last_bit():
    for given in (*NEAR_A_WHOLE_NUMBER, *OFTEN):
        levels = of_finest(*given)
        for log2, exp2 in ((-1, -2), (-1, 2), (1, -2), (1, 2)):
            assert on_another_machine(levels, log2, exp2) == levels.resolutions, given


def test_near_a_whole_number_the_margin_is_another_and_the_resolutions_stay(monkeypatch):
    first = layout.GROWTH_MARGINS[0]
    assert {of_finest(*given).margin for given in OFTEN} == {first}, "so files and runs stay what they were"
    for given in NEAR_A_WHOLE_NUMBER:
        levels = of_finest(*given)
        assert levels.margin != first
        assert levels.resolutions == dataclasses.replace(levels, margin=first).resolutions
        # the levels of a field that are there from the start are those that it has in the end
        assert levels.coarsest(2).scales == levels.scales[:2]
    monkeypatch.setattr(layout, "GROWTH_MARGINS", (first,))
    with pytest.raises(ValueError, match=r"^per_level_scale=[0-9.]+: rounding would .*, such as [0-9.]+$") as refused:
        of_finest(*NEAR_A_WHOLE_NUMBER[0])
    suggested = float(str(refused.value).rpartition(" ")[2])
    HashLevels(16, 2, 19, 2, suggested)


@pytest.mark.parametrize("finest", [5, 17, 48, 63, 64, 65, 100, 511, 512, 1000, 1024])
def test_the_finest_level_has_the_resolution_that_was_asked_for(finest):
    for count in (2, 3, 8, 16):
        assert HashLevels(count, 2, 19, 4, (finest / 4) ** (1 / (count - 1))).resolutions[-1] == finest


def test_against_loops_over_32_bit_integers():
    """The stand-in for tinycudann, written from its sources, computes each index in Python."""
    where, table = inputs(SMALL)
    where[:2] = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])  # the far corner wraps around a dense table
    expected = fake_tinycudann.Grid(adapter._config(SMALL))(where, table.flatten())
    found = hash_encode(where, table, SMALL)
    # the stand-in reads entries in single precision
    assert (found - expected).abs().max() < 1e-6


def test_weights_sum_to_one():
    where, table = inputs(SMALL)
    assert torch.allclose(hash_encode(where, torch.full_like(table, 2.5), SMALL), torch.tensor(2.5, dtype=where.dtype))


def test_a_dense_level_interpolates_a_linear_function_exactly():
    levels = HashLevels(1, 1, 14, 6, 1.0)
    corner = torch.arange(levels.entries)
    x, y, z = corner % 6, corner // 6 % 6, corner // 36
    table = (2.0 * x - 3.0 * y + 0.5 * z).double()[:, None]
    where = 0.05 + 0.85 * inputs(levels)[0]  # away from where the far side wraps around
    position = 5.0 * where + 0.5
    expected = position @ torch.tensor([[2.0], [-3.0], [0.5]], dtype=torch.float64)
    assert torch.allclose(hash_encode(where, table, levels), expected)


def test_gradients_of_the_reference():
    where, table = inputs(SMALL, points=4)
    assert torch.autograd.gradcheck(
        lambda p, t: hash_encode(p, t, SMALL), (where.requires_grad_(), table.requires_grad_())
    )


def value_and_gradients(impl, where, table, levels, wanted=(0, 1)):
    arguments = [tensor.clone().requires_grad_(index in wanted) for index, tensor in enumerate((where, table))]
    encoded = hash_encode(arguments[0], arguments[1], levels, impl)
    generator = torch.Generator().manual_seed(1)
    # wider and cut, so that the upstream gradient is not contiguous
    upstream = torch.randn(len(where), levels.width + 1, generator=generator, dtype=torch.float64)[:, :-1]
    gradients = torch.autograd.grad(encoded, [arguments[index] for index in wanted], upstream.to(where.dtype))
    return encoded.detach(), *gradients


@pytest.mark.parametrize(("features", "dtype"), [(2, torch.float32), (2, torch.float64), (1, torch.float32)])
def test_numba_is_the_same_function(features, dtype):
    levels = HashLevels(5, features, 9, 3, 1.7)
    for points in (0, 1, 247, 1000):
        where, table = inputs(levels, points)
        if points == 1000:
            where[:3] = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.5]])
            where = where.flip(0).mT.contiguous().mT  # columns, not rows
        expected = value_and_gradients("torch", where, table, levels)
        found = value_and_gradients("numba", where.to(dtype), table.to(dtype), levels)
        allowed = (VALUES, 1.0, GRADIENTS) if dtype == torch.float32 else (1e-12, 1e-11, 1e-12)
        for ours, theirs, most in zip(found, expected, allowed, strict=True):
            assert ours.dtype == dtype
            if points == 0:
                assert ours.shape == theirs.shape
                continue
            error = (ours.double() - theirs).abs()
            if most == 1.0:  # a slope jumps between cells: a point within rounding of a border may see either
                assert error.median() < 1e-4
                assert (error.amax(dim=1) > 1e-3).float().mean() < 0.01
            else:
                assert error.max() <= most * max(1.0, theirs.abs().max())


def test_numba_gives_each_gradient_alone():
    where, table = inputs(SMALL, dtype=torch.float64)
    both = value_and_gradients("numba", where, table, SMALL)
    for index in (0, 1):
        assert torch.equal(value_and_gradients("numba", where, table, SMALL, (index,))[1], both[1 + index])


def test_numba_is_the_same_to_the_bit_for_any_number_of_threads():
    where, table = inputs(SMALL, 9000, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(value_and_gradients("numba", where, table, SMALL))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


def test_numba_refuses_a_second_derivative():
    where, table = inputs(SMALL, 5)
    where.requires_grad_()
    encoded = hash_encode(where, table, SMALL, "numba")
    (slope,) = torch.autograd.grad(encoded, where, torch.ones_like(encoded).requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_network_in_chunks_is_the_same_function(layers):
    generator = torch.Generator().manual_seed(0)
    sizes = [6, *[16] * (layers - 1), 2]
    weights = [torch.randn(o, i, generator=generator, dtype=torch.float64).requires_grad_() for i, o in pairwise(sizes)]
    encoded = torch.randn(CHUNK + 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(CHUNK + 5, 2, generator=generator, dtype=torch.float64)
    whole, parts = network(encoded, weights), network_in_chunks(encoded, weights)
    assert torch.allclose(whole, parts)
    for ours, theirs in zip(
        torch.autograd.grad(parts, [encoded, *weights], upstream),
        torch.autograd.grad(whole, [encoded, *weights], upstream),
        strict=True,
    ):
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_levels": 0}, r"num_levels=0: must be in \[1, 32\]"),
        ({"features_per_level": 3}, r"features_per_level=3: must be one of 1, 2, 4, 8"),
        ({"log2_hashmap_size": 30}, r"log2_hashmap_size=30"),
        ({"base_resolution": 0}, r"base_resolution=0"),
        ({"per_level_scale": 0.5}, r"per_level_scale=0.5"),
        ({"per_level_scale": 9.0}, r"per_level_scale=9: level 4 .* must be <= 1024"),
    ],
)
def test_bad_levels_name_the_option(change, match):
    good = {"num_levels": 4, "features_per_level": 2, "log2_hashmap_size": 8, "base_resolution": 4}
    with pytest.raises(ValueError, match=match):
        HashLevels(**{**good, "per_level_scale": 1.5, **change})


def test_what_an_implementation_cannot_take():
    where, table = inputs(SMALL)
    with pytest.raises(ValueError, match="float16"):
        hash_encode(where.half(), table.half(), SMALL, "numba")
    with pytest.raises(ValueError, match="table has shape"):
        hash_encode(where, table[1:], SMALL)
    with pytest.raises(ValueError, match="impl='cuda'"):
        hash_encode(where, table, SMALL, "cuda")


def asked_on_the_cpu():
    where, table = inputs(SMALL, 1, torch.float32)
    weights = [torch.zeros(16, 8), torch.zeros(2, 16)]
    return evaluation.choose_implementation("auto", where, table, weights, SMALL)


def test_auto_takes_numba_on_the_cpu_and_says_so_once(caplog, monkeypatch):
    monkeypatch.setattr(choice, "_said", set())
    with caplog.at_level("INFO", "mnist3d"):
        assert [asked_on_the_cpu() for _ in range(3)] == ["numba"] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "HashGrid: implementation=auto takes numba on the CPU"
    ]


def test_without_numba_auto_takes_torch_and_a_wish_names_reason_and_remedy(caplog, monkeypatch):
    monkeypatch.setattr(choice, "_said", set())
    monkeypatch.setitem(sys.modules, "mnist3d.kernels.numba_runtime", None)
    monkeypatch.delattr("mnist3d.kernels.numba_runtime", raising=False)
    with caplog.at_level("INFO", "mnist3d"):
        assert asked_on_the_cpu() == "torch"
    assert "takes torch: numba cannot be imported" in caplog.text
    with pytest.raises(ValueError, match=r"implementation=numba: numba cannot be imported.*pip install numba"):
        require_implementation("numba")


def test_a_numba_that_breaks_while_it_is_imported_is_none(monkeypatch):
    """llvmlite raises an OSError where its library is lost."""

    class Breaks:
        @staticmethod
        def find_spec(name, *_):
            if name == "mnist3d.kernels.numba_runtime":
                raise OSError("libllvmlite.so:\nnot found")

    monkeypatch.delitem(sys.modules, "mnist3d.kernels.numba_runtime", raising=False)
    monkeypatch.delattr("mnist3d.kernels.numba_runtime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Breaks, *sys.meta_path])
    assert implementations.numba_missing() == "numba cannot be imported (libllvmlite.so: not found)"
    assert asked_on_the_cpu() == "torch"
    grids = torch.zeros(2, 2, 2)
    assert absorption._obstacle("numba", (grids, grids, torch.eye(3)[None]), 2) == implementations.numba_missing()


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what is said where there is no GPU")
def test_tinycudann_without_a_gpu_names_reason_and_remedy():
    with pytest.raises(ValueError, match=r"implementation=tinycudann: torch sees no CUDA GPU here; .*auto"):
        require_implementation("tinycudann")
    with pytest.raises(ValueError, match=r"implementation='cuda': must be one of auto, torch, numba, tinycudann"):
        require_implementation("cuda")


def test_tinycudann_that_is_missing_or_broken_is_a_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(implementations.importlib.util, "find_spec", lambda name: None)
    assert implementations.tinycudann_obstacle() == "tinycudann is not installed"
    monkeypatch.setattr(implementations.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    assert "tinycudann cannot be imported" in str(implementations.tinycudann_obstacle())


# ---- tinycudann's layout and precision, against the stand-in

LEVELS = HashLevels(3, 2, 8, 4, 2.0)  # 6 features: the first matrix is padded from 6 to 16 columns
SHAPES = [(16, 6), (16, 16), (2, 16)]


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinycudann", fake_tinycudann)
    adapter._fused.cache_clear()
    adapter._encoding.cache_clear()
    yield
    adapter._fused.cache_clear()
    adapter._encoding.cache_clear()


def field():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(200, 3, generator=generator)
    table = (0.3 * torch.randn(LEVELS.entries, 2, generator=generator)).requires_grad_()
    weights = [(torch.randn(s, generator=generator) / s[1] ** 0.5).requires_grad_() for s in SHAPES]
    return points, table, weights


def test_packed_parameters_come_back():
    _, table, weights = field()
    packed = adapter.pack(weights, table)
    assert packed.numel() == 16 * 16 + 16 * 16 + 16 * 16 + 2 * LEVELS.entries
    again, rows = adapter.unpack(packed, SHAPES, LEVELS)
    assert torch.equal(rows, table)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, weights, strict=True))
    with pytest.raises(ValueError, match="parameters: these shapes have"):
        adapter.unpack(packed[1:], SHAPES, LEVELS)


def test_half_precision_is_the_same_function(stand_in):
    points, table, weights = field()
    expected = network(hash_encode(points, table, LEVELS), weights)
    found = adapter.encode_and_evaluate(points, table, weights, LEVELS)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 2e-3
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(found, [table, *weights], upstream)
    theirs = torch.autograd.grad(expected, [table, *weights], upstream)
    for half, full in zip(ours, theirs, strict=True):
        assert (half - full).abs().max() < 1e-2 * full.abs().max()


def test_the_coarsest_levels_alone_read_the_first_rows(stand_in):
    """What a field with levels to come asks for: a cut table and a first matrix that is not contiguous."""
    points, table, weights = field()
    coarse = LEVELS.coarsest(2)
    assert coarse.resolutions == LEVELS.resolutions[:2]
    rows, cut = table[: coarse.entries], [weights[0][:, : coarse.width], *weights[1:]]
    with torch.no_grad():
        table[coarse.entries :] = 0.0
    expected = network(hash_encode(points, table, LEVELS), weights)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    theirs = torch.autograd.grad(expected, [table, weights[0]], upstream)
    encoded = adapter.encode_in_full_precision(points, rows, coarse)
    for found, off, gradient_off in (
        (network(hash_encode(points, rows, coarse), cut), 1e-5, 5e-5),
        (network_in_chunks(hash_encode(points, rows, coarse, "numba"), cut), 1e-5, 5e-5),
        (network(encoded, cut), 1e-5, 5e-5),
        # a sum over 200 points, rounded after every 16, and the ReLUs that rounding takes to their other side
        (adapter.encode_and_evaluate(points, rows, cut, coarse), 2e-3, 4e-2),
    ):
        assert (found - expected).abs().max() < off
        ours = torch.autograd.grad(found, [table, weights[0]], upstream)
        allowed = gradient_off * max(float(gradient.abs().max()) for gradient in theirs)
        assert (ours[0] - theirs[0])[: coarse.entries].abs().max() < allowed
        assert (ours[1] - theirs[1])[:, : coarse.width].abs().max() < allowed
    with pytest.raises(ValueError, match=r"num_levels=4: must be in \[1, 3\]"):
        LEVELS.coarsest(4)


def test_gradients_far_below_half_precision_are_kept(stand_in):
    """A mean over many pixels makes upstream gradients of 1e-9, which are 0 in half precision."""
    points, table, weights = field()
    found = adapter.encode_and_evaluate(points, table, weights, LEVELS)
    whole = torch.autograd.grad(found, weights, torch.ones_like(found), retain_graph=True)
    tiny = torch.autograd.grad(found, weights, torch.full_like(found, 1e-9))
    for large, small in zip(whole, tiny, strict=True):
        assert large.abs().max() > 0
        assert torch.allclose(1e9 * small, large, rtol=1e-2, atol=1e-3 * float(large.abs().max()))


def test_a_sum_beyond_half_precision_is_tried_again_smaller():
    """20,000 products of 8 are 160,000: more than half precision holds."""
    value = torch.ones(20_000, 1)
    weight = torch.ones(1, 1, requires_grad=True)
    output = value.half() @ weight.half()
    assert output.dtype == torch.float16
    (gradient,) = adapter.scaled_gradient(output, [weight], torch.ones(20_000, 1))
    assert gradient.item() == pytest.approx(20_000.0, rel=1e-3)
    assert adapter.scaled_gradient(output, [weight], torch.zeros(20_000, 1))[0].item() == 0.0
    assert not adapter.scaled_gradient(output, [weight], torch.full((20_000, 1), torch.nan))[0].isfinite().any()


def test_no_step_of_a_fresh_field_overflows(stand_in, monkeypatch):
    """Sums stay in half precision: scaled to 2^7 instead, the largest would have had no room."""
    points, table, weights = field()
    points = points.repeat(60, 1)  # 12,000 that all pull the same way: a sum of 1,100
    tries = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *given, **options: tries.append(1) or grad(*given, **options))
    for target, expected in ((2.0**3, 1), (2.0**7, 2)):
        monkeypatch.setattr(adapter, "TARGET", target)
        tries.clear()
        found = adapter.encode_and_evaluate(points, table, weights, LEVELS)
        found.sum().backward()
        assert len(tries) == expected


@pytest.mark.parametrize("half", [True, False])
def test_upstream_gradients_of_any_strides(stand_in, half):
    """The stand-in refuses what does not lie one after the other, as the real one would misread it."""
    points, table, weights = field()

    def found(upstream):
        if half:
            answer, width = adapter.encode_and_evaluate(points, table, weights, LEVELS), 2
        else:
            answer, width = adapter.encode_in_full_precision(points, table, LEVELS), LEVELS.width
        return torch.autograd.grad(answer, table, upstream(torch.linspace(-1.0, 1.0, len(points) * width), width))[0]

    expected = found(lambda wave, width: wave.reshape(-1, width))
    assert torch.equal(found(lambda wave, width: wave.reshape(-1, width).T.contiguous().T), expected)
    ones = found(lambda wave, width: torch.ones(len(points), width))
    assert torch.equal(found(lambda wave, width: torch.ones(()).expand(len(points), width)), ones)


def test_full_precision_is_the_same_function(stand_in):
    points, table, _ = field()
    points.requires_grad_()
    expected = hash_encode(points, table, LEVELS)
    found = adapter.encode_in_full_precision(points, table, LEVELS)
    assert (found - expected).abs().max() < 1e-5
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), [points, table]),
        torch.autograd.grad(expected.square().sum(), [points, table]),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-3)


def test_no_second_derivative_through_tinycudann(stand_in):
    points, table, weights = field()
    points.requires_grad_()
    output = adapter.encode_and_evaluate(points, table, weights, LEVELS)
    (slope,) = torch.autograd.grad(output, points, torch.ones_like(output).requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("impl", ["torch", "numba"])
def test_points_outside_read_the_nearest_inside_and_never_other_memory(impl):
    levels = HashLevels(3, 2, 8, 4, 2.0)
    table = torch.randn(levels.entries, 2, requires_grad=True)
    far = torch.tensor([[-0.5, 0.2, 3.0], [1e30, -1e30, 0.5], [float("nan"), 0.3, float("inf")]], requires_grad=True)
    inside = torch.tensor([[0.0, 0.2, 1.0], [1.0, 0.0, 0.5], [0.0, 0.3, 1.0]])
    encoded = hash_encode(far, table, levels, impl)
    torch.testing.assert_close(encoded, hash_encode(inside, table, levels, impl))
    encoded.sum().backward()
    assert table.grad is not None
    assert bool(table.grad.isfinite().all())
    assert table.grad.sum().item() == pytest.approx(len(far) * levels.width, rel=1e-4)
    assert far.grad is not None
    assert bool(far.grad.isfinite().all())
    assert (far.grad != 0).tolist() == [[False, True, False], [False, False, True], [False, True, False]]


class OnGpu(torch.Tensor):
    """What `choose_implementation` sees of a table on a GPU."""

    device = torch.device("cuda")  # type: ignore[assignment]


def asked_on_a_gpu(levels=LEVELS, dtype=torch.float32, shapes=SHAPES, full_precision=False):
    """What "auto" takes there."""
    table = torch.zeros(levels.entries, levels.features_per_level, dtype=dtype).as_subclass(OnGpu)
    weights = [torch.zeros(shape) for shape in shapes]
    return evaluation.choose_implementation("auto", torch.zeros(1, 3), table, weights, levels, full_precision)


def test_auto_on_a_gpu_keeps_a_tables_precision(monkeypatch):
    monkeypatch.setattr(evaluation, "tinycudann_obstacle", lambda: None)
    monkeypatch.setattr(evaluation, "verdict", lambda *_, **__: choice.Verdict(True, "", True))
    for dtype, expected in ((torch.float32, "tinycudann"), (torch.float64, "torch"), (torch.float16, "torch")):
        assert asked_on_a_gpu(dtype=dtype) == expected


def test_in_single_precision_tinycudann_encodes_128_numbers_a_point(monkeypatch, caplog):
    monkeypatch.setattr(evaluation, "tinycudann_obstacle", lambda: None)
    monkeypatch.setattr(evaluation, "verdict", lambda *_, **__: choice.Verdict(True, "", True))
    monkeypatch.setattr(choice, "_said", set())
    wide = HashLevels(17, 8, 6, 4, 1.1)
    assert asked_on_a_gpu(wide) == "tinycudann"  # fused, nothing is transposed
    assert asked_on_a_gpu(HashLevels(16, 8, 6, 4, 1.1), full_precision=True) == "tinycudann"
    with caplog.at_level("INFO", "mnist3d"):
        assert asked_on_a_gpu(wide, full_precision=True) == "torch"
        assert asked_on_a_gpu(wide, shapes=[(24, 136), (2, 24)]) == "torch"  # a width that cannot be fused
    assert "num_levels=17 times features_per_level=8 are 136 numbers a point" in caplog.text


@pytest.mark.parametrize("full_precision", [False, True])
def test_tinycudann_proves_itself_on_the_cases_of_a_gpu(stand_in, monkeypatch, full_precision):
    """The rounding of the real one, on the points that "auto" compares; the large case would take minutes here."""
    monkeypatch.setattr(evaluation, "AS_IN_A_STEP", 1000)
    levels, shapes = HashLevels(4, 2, 12, 8, 1.7), ((16, 8), (2, 16))

    def tried(changed=lambda run: run):
        pair = evaluation.twins("tinycudann", levels, shapes, full_precision, torch.float32)
        pair = pair._replace(run_fast=changed(pair.run_fast))
        return choice._tried("it", lambda: pair, torch.device("cpu"), torch.float32, True, True, lambda *_: 1.0)

    assert "agrees" in tried().reason
    for factor in (1.1, 0.9):  # of each gradient; half precision hides less than 5 %
        wrong = tried(lambda run, factor=factor: lambda *inputs: slanted(run(*inputs), factor))
        assert not wrong.taken
        assert "is wrong here: gradient" in wrong.reason


def slanted(value, factor):
    """The same value, with another gradient."""
    return factor * value + ((1.0 - factor) * value).detach()


def test_points_without_gradients_are_compared_alike():
    """On the CPU, where the gradient to the points is left out until it is needed."""
    levels, shapes = evaluation.small_levels(2)
    for to_points in (True, False):
        pair = evaluation.twins("numba", levels, shapes, False, torch.float32, to_points)
        case = next(iter(pair.cases()))
        assert len(case.inputs) + 1 == len(pair.quantities) == 4 + to_points
        for run in (pair.run_fast, pair.run_reference):
            found = run(*(tensor.float() for tensor in case.inputs), *case.rest)
            assert found.shape == (200, 2)
