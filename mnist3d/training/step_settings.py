"""What torch is told for the length of a training step: no TF32, and, for who asks for it, sums in one order."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# What cuBLAS reads when CUDA starts: a workspace of its own for each stream, with which its sums have one order.
# Source: NVIDIA, cuBLAS documentation, "Results Reproducibility".
CUBLAS, ONE_ORDER = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
WARN = 1  # of `torch.set_deterministic_debug_mode`: an operator that has no other way warns, and goes on
# What torch says of such an operator, and how it is named.
NO_OTHER_WAY = re.compile(r"(\w+) does not have a deterministic implementation|(because it uses CuBLAS)")
OF_CUBLAS = f"products of matrices (set {CUBLAS}={ONE_ORDER} before Python starts)"


@contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions of a GPU in float32, not with TF32's 10 bits, which torch allows them by default.

    A discriminator learns from the difference of two scores, and the same on every device; its convolutions are so
    small that their rounding would save next to no time.
    """
    flags: Any = torch.backends.cudnn  # what lies in it differs between versions
    # Since torch 2.9 each kind of operator has a precision; with the flag alone off, one set for all of torch holds.
    kinds = (flags.conv, flags.rnn) if hasattr(flags, "conv") else ()
    before = [kind.fp32_precision for kind in kinds]
    try:
        allowed = flags.allow_tf32
    except RuntimeError:  # the flag, of old, and the kinds disagree
        allowed = None
    flags.allow_tf32 = False
    for kind in kinds:
        kind.fp32_precision = "ieee"
    try:
        yield
    finally:
        if allowed is not None:
            flags.allow_tf32 = allowed
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = "none" if precision == flags.fp32_precision else precision  # "none" follows that one


def prepare_cublas(device: torch.device) -> None:
    """Let cuBLAS add in one order, unless the user has told it something else; before CUDA starts, or it is too late.

    It reads the environment variable `CUBLAS_WORKSPACE_CONFIG` of the process, which stays set.

    Args:
        device: where a run will be computed; on a CPU nothing is set.
    """
    if device.type == "cuda":
        os.environ.setdefault(CUBLAS, ONE_ORDER)


class OneOrder:
    """Sums in one order: torch's deterministic algorithms, and no library that measures which algorithm is fastest.

    What torch has no such algorithm for goes on, and is named in one logged line instead of warnings of its own.

    Args:
        asked: whether this is asked for; else nothing is touched.
    """

    def __init__(self, asked: bool) -> None:
        self.asked = asked
        self._known: set[object] = set()
        self._new: list[str] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs; afterwards torch's settings are what they were."""
        if not self.asked:
            yield
            return
        mode, measured = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
        try:
            torch.set_deterministic_debug_mode(max(mode, WARN))  # who has asked for errors gets them
            torch.backends.cudnn.benchmark = False
            with self._listening():
                yield
        finally:
            torch.backends.cudnn.benchmark = measured
            torch.set_deterministic_debug_mode(mode)
        if self._new:
            names = ", ".join(self._new)
            self._new.clear()
            logging.getLogger(__name__).warning(
                "deterministic: two runs may differ all the same, torch adds in any order in %s", names
            )

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Take the names of operators out of torch's warnings; others are shown, each once."""
        with warnings.catch_warnings():
            warnings.filterwarnings("always", f".*(?:{NO_OTHER_WAY.pattern})", UserWarning)
            shown = warnings.showwarning

            def hear(message: Any, *where: Any) -> None:
                said = NO_OTHER_WAY.search(str(message))
                about = (str(message), *where[:3]) if said is None else said[1] or OF_CUBLAS
                if about in self._known:  # Python itself forgets with each change of its filters what it has shown
                    return
                self._known.add(about)
                if isinstance(about, str):
                    self._new.append(about)
                else:
                    shown(message, *where)

            warnings.showwarning = hear
            yield
