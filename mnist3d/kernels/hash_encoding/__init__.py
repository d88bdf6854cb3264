"""The multi-resolution hash encoding, alone or with the network behind it.

`hash_encode` is a pure function of (points, table), `encode_and_evaluate` one of these and the network's matrices; each
has one contract for all implementations. `tiny_cuda_nn.py` fuses encoding and network.
"""

from .encode import hash_encode
from .field import choose_implementation, encode_and_evaluate, too_wide
from .implementations import IMPLEMENTATIONS, require_implementation, tinycudann_obstacle
from .layout import HashLevels

__all__ = [
    "IMPLEMENTATIONS",
    "HashLevels",
    "choose_implementation",
    "encode_and_evaluate",
    "hash_encode",
    "require_implementation",
    "tinycudann_obstacle",
    "too_wide",
]
