"""The trained evaluation classifiers of the default digits, which come with the package.

Their weights as whole numbers of eight bits with a scale for each output take a quarter of float32. Written by
`benchmarks/packaged_classifiers.py`, which also says how far they agree with the unrounded ones.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from ..storage.plain_files import read_plain

VERSION = "1-681d9580741a8c91"  # recipe and images that they belong to, see `classifiers`; who retrains sets both
SHA256 = "bacf41a351258289bce298295e50f4415b7c0cdc89083fc177a3067884464756"  # of the file
FILE = Path(__file__).with_name("classifiers_mnist_5k.safetensors")
MAX_FILE = 700_000  # bytes
SCALE = ".scale"  # after the name of the weights that it belongs to
LARGEST = 127  # of the whole numbers, which are symmetric about 0
log = logging.getLogger(__name__)


def packaged_weights(version: str) -> dict[str, Tensor] | None:
    """The weights that come with the package, float32 but for counters.

    Args:
        version: of the classifiers that are wanted.

    Returns:
        None where they are of another version, and, with a logged line, where the file is damaged.
    """
    if version != VERSION:
        return None
    try:
        content = read_plain(FILE, MAX_FILE)
    except OSError as error:
        reason = error.strerror
    else:
        if hashlib.sha256(content).hexdigest() == SHA256:
            return unpacked(content)
        reason = "its content is not what was packaged"
    log.warning("%s: damaged classifiers (%s); using the cache's; installing mnist3d again mends it", FILE, reason)
    return None


def packed(weights: Mapping[str, Tensor]) -> bytes:
    """A file of weights: each row w of a matrix, or kernel of a convolution, as round(w / scale), scale = max|w| / 127.

    Vectors and numbers stay as they are.
    """
    parts = {}
    for name, value in weights.items():
        parts[name] = value.contiguous()
        if value.is_floating_point() and value.dim() > 1:
            rows = value.float().flatten(1)
            scale = rows.abs().amax(dim=1) / LARGEST
            parts[name + SCALE] = scale
            whole = (rows / scale.clamp_min(torch.finfo(scale.dtype).tiny)[:, None]).round()
            parts[name] = whole.to(torch.int8).reshape(value.shape)
    return save(parts)


def unpacked(content: bytes) -> dict[str, Tensor]:
    """The weights of a file that `packed` wrote."""
    parts = load(content)
    scales = {name.removesuffix(SCALE): parts.pop(name) for name in [*parts] if name.endswith(SCALE)}
    for name, scale in scales.items():
        parts[name] = parts[name].float() * scale.reshape(-1, *[1] * (parts[name].dim() - 1))
    return parts
