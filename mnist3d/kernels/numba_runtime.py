"""How the numba kernels are compiled, cached and spread over threads. Imports numba; import it lazily."""

import inspect
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba

_pool_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def compiled_inline(function: Callable[..., Any]) -> Any:
    """As `compiled`, and copied into its callers: for short functions, whose call would cost as much as they do."""
    return compiled(function, forceinline=True)


def compiled(function: Callable[..., Any], **more: Any) -> Any:
    """numba.njit that frees the GIL and keeps what it compiled, where there is a place to keep it.

    numba looks for NUMBA_CACHE_DIR, then the __pycache__ beside the source, then the user's own cache folder.
    Where none can be written to, the kernel is compiled anew in each process (some 10 s) instead of failing;
    a shared temporary folder would be no remedy, as a cached kernel is code that others could plant there.
    """
    # contract and reassoc allow fused multiply-add and SIMD sums; nnan and ninf would make NaN and infinite
    # attenuation undefined behaviour, so fastmath=True is too much.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}
    options |= more
    plain = inspect.unwrap(function)  # the tests' shape checks wrap every function, and numba compiles no wrapper
    try:
        return numba.njit(cache=True, **options)(plain)
    except RuntimeError:  # "no locator available"
        return numba.njit(**options)(plain)


def run_chunks(task: Callable[[int], None], chunks: int) -> None:
    """Run task(0) ... task(chunks - 1) at once, the first in the calling thread.

    Python threads rather than numba's own layers: `workqueue` aborts the process when two threads enter it
    (a viewer renders while a trainer trains), and tbb or OpenMP are not on every machine. Any number of
    threads may call this; tasks must not call it themselves.
    """
    if chunks == 1:
        task(0)
        return
    pool = _workers(chunks - 1)
    others = [pool.submit(task, chunk) for chunk in range(1, chunks)]
    try:
        task(0)
    finally:
        for other in others:  # their memory must not be freed while they write to it
            other.exception()
    for other in others:
        other.result()


def spans(items: int, chunks: int) -> list[tuple[int, int]]:
    """Cut range(items) into at most `chunks` runs (begin, end) of nearly equal length; at least one run."""
    chunks = max(1, min(items, chunks))
    return [(items * chunk // chunks, items * (chunk + 1) // chunks) for chunk in range(chunks)]


def _workers(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size < count:
            # A smaller pool that is dropped here still finishes what others submitted to it.
            _pool, _pool_size = ThreadPoolExecutor(count, thread_name_prefix="mnist3d"), count
        return _pool


def _forget_workers() -> None:
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)  # threads do not survive a fork
