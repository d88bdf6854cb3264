"""A stand-in for tinycudann: its interface, parameter layout and rounding, written from its sources.

Nothing is shared with `mnist3d.kernels.hash_encoding`, so that the two can disagree. In half precision it rounds where
the real one does: each of the eight corners is added to a half, as is each point's part of an entry's gradient, and a
layer adds up 16 products at a time. In which order a GPU adds differs from run to run; here it is the points' order.

Source: tiny-cuda-nn, `include/tiny-cuda-nn/encodings/grid.h`, `common_device.h` (pos_fract),
`network_with_input_encoding.h` (set_params), `src/fully_fused_mlp.cu` (matrices, accumulators), `cutlass_matmul.h`
(TypeAccumulator, split k), `bindings/torch/tinycudann/modules.py`.
"""

import numpy as np
import torch
from torch import nn

MAX_PARAMS = (2**32 - 1) // 2
AT_ONCE = 16  # products that a tensor core adds up before it rounds
SLICE = 4096  # points of one part of the product that is a matrix's gradient


def grid_index(hashmap_size, resolution, corners):
    """grid_index of grid.h for corners (P, 3), in 32-bit arithmetic."""
    corners = corners.astype(np.uint64)
    stride, index = 1, np.zeros(len(corners), np.uint64)
    for axis in range(3):
        if stride > hashmap_size:
            break
        index = (index + corners[:, axis] * np.uint64(stride)) % np.uint64(2**32)
        stride = stride * resolution % 2**32
    if hashmap_size < stride:
        index = np.zeros(len(corners), np.uint64)
        for axis, prime in enumerate((1, 2654435761, 805459861)):
            index ^= corners[:, axis] * np.uint64(prime) % np.uint64(2**32)
    return (index % np.uint64(hashmap_size)).astype(np.int64)


def fused(a, b, c, dtype):
    """fma: one rounding. The product of two halves or floats is exact in double precision."""
    return (a.double() * b.double() + c.double()).to(dtype)


def add_one_by_one(total, rows, values):
    """total[rows] += values, rounded after each."""
    order = np.argsort(rows, kind="stable")
    rows, values = rows[order], values[torch.from_numpy(order)]
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]]) if len(rows) else np.zeros(0, np.int64)
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    for turn in range(int(rank.max(initial=-1)) + 1):
        now = np.flatnonzero(rank == turn)
        where = torch.from_numpy(rows[now])
        total[where] = total[where] + values[torch.from_numpy(now)]


def product(left, right, total=None):
    """left (n, k) @ right (k, m) in half precision, 16 products at a time."""
    total = torch.zeros(len(left), right.shape[1], dtype=torch.float16) if total is None else total
    for begin in range(0, left.shape[1], AT_ONCE):
        some = slice(begin, begin + AT_ONCE)
        total = (total.double() + left[:, some].double() @ right[some].double()).to(torch.float16)
    return total


def padded(value, width):
    """With columns of zeros."""
    return torch.cat([value, value.new_zeros(len(value), width - value.shape[1])], dim=1)


class Grid:
    def __init__(self, config):
        assert config["otype"] == "HashGrid"
        assert config["interpolation"] == "Linear"
        self.features = config["n_features_per_level"]
        exponent = np.log2(np.float32(config["per_level_scale"]))
        self.levels, offset = [], 0
        for level in range(config["n_levels"]):
            scale = np.exp2(np.float32(level) * exponent) * np.float32(config["base_resolution"]) - np.float32(1)
            resolution = int(np.ceil(scale)) + 1
            entries = min(resolution**3, MAX_PARAMS)
            entries = (entries + 7) // 8 * 8
            entries = min(entries, 1 << config["log2_hashmap_size"])
            self.levels.append((scale, resolution, entries, offset))
            offset += entries
        self.n_params = offset * self.features
        self.width = config["n_levels"] * self.features

    def __call__(self, x, params):
        return _Encode.apply(x, params, self)

    def corners(self, x):
        """For each level and corner: column, entries, and for each axis the weights and their sign in a derivative."""
        for level, (scale, resolution, entries, offset) in enumerate(self.levels):
            position = fused(x, torch.tensor(float(scale)), torch.tensor(0.5), x.dtype)
            cell = position.floor()
            fraction = position - cell
            columns = slice(level * self.features, (level + 1) * self.features)
            for corner in range(8):
                far = torch.tensor([corner >> axis & 1 for axis in range(3)])
                rows = grid_index(entries, resolution, (cell.long() + far).numpy()) + offset
                weights = torch.where(far.bool(), fraction, 1 - fraction)
                yield columns, rows, weights, (2 * far - 1) * float(scale)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, params, grid):
        ctx.save_for_backward(x, params)
        ctx.grid = grid
        table, kind = params.reshape(-1, grid.features), params.dtype
        encoded = torch.zeros(len(x), grid.width, dtype=kind)
        for columns, rows, weights, _ in grid.corners(x):
            weight = weights.prod(dim=1, keepdim=True).to(kind)
            encoded[:, columns] = fused(weight, table[torch.from_numpy(rows)], encoded[:, columns], kind)
        return encoded

    @staticmethod
    def backward(ctx, upstream):  # pyright: ignore[reportIncompatibleMethodOverride]
        assert upstream.is_contiguous(), "the real one reads memory and knows no strides"
        (x, params), grid = ctx.saved_tensors, ctx.grid
        table = params.reshape(-1, grid.features)
        kind = torch.float32 if grid.features == 1 and params.dtype == torch.float16 else params.dtype
        to_table, to_x = torch.zeros(table.shape, dtype=kind), torch.zeros_like(x)
        for columns, rows, weights, slopes in grid.corners(x):
            some = upstream[:, columns].to(kind)
            if ctx.needs_input_grad[1]:
                add_one_by_one(to_table, rows, weights.prod(dim=1, keepdim=True).to(kind) * some)
            if ctx.needs_input_grad[0]:
                along = (some.to(x.dtype) * table[torch.from_numpy(rows)].to(x.dtype)).sum(dim=1)
                for axis in range(3):
                    others = weights[:, [other for other in range(3) if other != axis]].prod(dim=1)
                    to_x[:, axis] += slopes[axis] * others * along
        return to_x, to_table.to(params.dtype).reshape(-1), None


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, outputs, *matrices):
        ctx.width = value.shape[1]
        kept = [padded(value, matrices[0].shape[1])]
        for matrix in matrices:
            out = product(kept[-1], matrix.T)
            kept.append(out if matrix is matrices[-1] else out.relu())
        ctx.save_for_backward(*matrices, *kept)
        ctx.count = len(matrices)
        return kept[-1][:, :outputs].clone()

    @staticmethod
    def backward(ctx, upstream):  # pyright: ignore[reportIncompatibleMethodOverride]
        assert upstream.is_contiguous(), "the real one reads memory and knows no strides"
        upstream = padded(upstream, AT_ONCE)
        matrices, kept = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        found = []
        for matrix, before in zip(reversed(matrices), reversed(kept[:-1]), strict=True):
            parts = zip(upstream.split(SLICE), before.split(SLICE), strict=True)
            found.append(sum(product(left.T, right) for left, right in parts))
            upstream = product(upstream, matrix)
            if matrix is not matrices[0]:
                upstream = torch.where(before > 0, upstream, torch.zeros_like(upstream))
        return upstream[:, : ctx.width].contiguous(), None, *reversed(found)


class Module(nn.Module):
    def __init__(self, n_params, dtype):
        super().__init__()
        self.dtype = dtype
        self.params = nn.Parameter(torch.randn(n_params))
        self.loss_scale = 128.0 if dtype == torch.float16 else 1.0


class NetworkWithInputEncoding(Module):
    def __init__(self, n_input_dims, n_output_dims, encoding_config, network_config, seed=1337):
        assert n_input_dims == 3
        assert network_config["otype"] == "FullyFusedMLP"
        assert network_config["n_neurons"] in (16, 32, 64, 128)
        assert network_config["activation"] == "ReLU"
        assert network_config["output_activation"] == "None"
        grid = Grid(encoding_config)
        width, padded_in, padded_out = network_config["n_neurons"], -(-grid.width // 16) * 16, 16
        hidden = [(width, width)] * (network_config["n_hidden_layers"] - 1)
        shapes = [(width, padded_in), *hidden, (padded_out, width)]
        super().__init__(sum(rows * columns for rows, columns in shapes) + grid.n_params, torch.float16)
        self.grid, self.shapes, self.outputs = grid, shapes, n_output_dims

    def forward(self, x):
        params = self.params.to(torch.float16)
        *matrices, table = params.split([*(rows * columns for rows, columns in self.shapes), self.grid.n_params])
        value = self.grid(x, table)
        matrices = [matrix.reshape(shape) for matrix, shape in zip(matrices, self.shapes, strict=True)]
        return _Layers.apply(value, self.outputs, *matrices)


class Encoding(Module):
    def __init__(self, n_input_dims, encoding_config, seed=1337, dtype=None):
        assert n_input_dims == 3
        self_grid = Grid(encoding_config)
        super().__init__(self_grid.n_params, dtype or torch.float16)
        assert self.dtype != torch.float32 or self_grid.width <= 128, "a block of 8 threads a number holds 1,024"
        self.grid = self_grid

    def forward(self, x):
        return self.grid(x, self.params.to(self.dtype))
