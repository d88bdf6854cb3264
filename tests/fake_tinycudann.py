"""A stand-in for tinycudann: its interface, parameter layout and half precision, written from its sources in NumPy.

Nothing is shared with `mnist3d.kernels.hash_encoding`, so that the two can disagree. Source: tiny-cuda-nn,
`include/tiny-cuda-nn/encodings/grid.h`, `common_device.h` (pos_fract), `network_with_input_encoding.h` (set_params),
`src/fully_fused_mlp.cu` (matrices), `bindings/torch/tinycudann/modules.py`.
"""

import numpy as np
import torch
from torch import nn

MAX_PARAMS = (2**32 - 1) // 2


def grid_index(hashmap_size, resolution, corner):
    """grid_index of grid.h for one corner, in 32-bit arithmetic."""
    stride, index = 1, 0
    for axis in range(3):
        if stride > hashmap_size:
            break
        index = (index + int(corner[axis]) * stride) % 2**32
        stride = stride * resolution % 2**32
    if hashmap_size < stride:
        index = 0
        for value, prime in zip(corner, (1, 2654435761, 805459861), strict=True):
            index ^= int(value) * prime % 2**32
    return index % hashmap_size


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
        table = params.reshape(-1, self.features)
        columns = []
        for scale, resolution, entries, offset in self.levels:
            position = x * float(scale) + 0.5
            cell = position.detach().floor()
            fraction = position - cell
            total = torch.zeros(len(x), self.features)
            for corner in range(8):
                weight, places = torch.ones(len(x)), []
                for axis in range(3):
                    far = corner >> axis & 1
                    weight = weight * (fraction[:, axis] if far else 1.0 - fraction[:, axis])
                    places.append(cell[:, axis].numpy().astype(np.int64) + far)
                rows = [offset + grid_index(entries, resolution, one) for one in zip(*places, strict=True)]
                total = total + weight[:, None] * table[rows].float()
            columns.append(total)
        return torch.cat(columns, dim=1).to(params.dtype)


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
        self.grid, self.shapes, self.padded_in, self.outputs = grid, shapes, padded_in, n_output_dims

    def forward(self, x):
        params = self.params.to(torch.float16)
        *matrices, table = params.split([*(rows * columns for rows, columns in self.shapes), self.grid.n_params])
        value = self.grid(x, table)
        value = torch.cat([value, value.new_zeros(len(value), self.padded_in - value.shape[1])], dim=1)
        for matrix, shape in zip(matrices, self.shapes, strict=True):
            last = shape is self.shapes[-1]
            # accumulated in single precision, rounded after each layer, as tensor cores do
            value = (value.float() @ matrix.reshape(shape).float().T).to(torch.float16)
            value = value if last else value.relu()
        return value[:, : self.outputs]


class Encoding(Module):
    def __init__(self, n_input_dims, encoding_config, seed=1337, dtype=None):
        assert n_input_dims == 3
        self_grid = Grid(encoding_config)
        super().__init__(self_grid.n_params, dtype or torch.float16)
        self.grid = self_grid

    def forward(self, x):
        return self.grid(x, self.params.to(self.dtype))
