"""How much memory this process may still take, asked before much of it is taken; and how much it took at most.

What the machine has free, what the process's control groups leave it, and its own limits: the least of them counts. No
memory is reserved here.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import UserError
from .plain_files import size_in_words

NEVER_ASKED = 2**26  # bytes: what is free changes by as much from one moment to the next
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
OWN_STATUS = Path("/proc/self/status")
# Of a control group: its limit, its use, and what in that the kernel takes back when it is short of memory.
VERSION_2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))


def check_fits(needed: int, what: str, remedy: str, error: type[UserError], device: Any = "cpu") -> None:
    """Fail where something would not fit into the memory that is free; where that is not known, it is let go on.

    Args:
        needed: bytes, about.
        what: key, value and what takes the memory, for the message: "resolution=1000: the voxels take".
        remedy: what to do, for the message: "lower resolution".
        error: the kind to raise.
        device: torch's, where the memory is taken.

    Raises:
        UserError: of that kind; it would not fit.
    """
    if needed < NEVER_ASKED:
        return
    free = free_memory(device)
    if free is not None and needed > free:
        raise error(f"{what} about {size_in_words(needed)}, {size_in_words(free)} are free here; {remedy}")


def free_memory(device: Any = "cpu") -> int | None:
    """Bytes that this process may still take; None where nothing can be found out.

    Args:
        device: torch's; of a GPU its own memory.
    """
    if not str(device).startswith("cuda"):
        known = [most for most in (_of_machine(), *_of_groups(), *_of_process()) if most is not None]
        return max(min(known), 0) if known else None
    import torch  # `mnist3d presets` needs none

    # What torch keeps for itself between two tensors is free for the next.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def give_back() -> None:
    """Let the C library return to the system what was freed; where it is not glibc, nothing happens.

    It keeps pieces of up to 32 MiB for later, beside which others of another size do not fit: between two stages of
    large arrays that can be as much as both take.

    Source: Linux's documentation, malloc_trim(3).
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # musl has none
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory(status: Path = OWN_STATUS) -> int | None:
    """Bytes of memory that this process has held at the same time, at most so far; None where nobody counts them.

    Linux's `getrusage` would also count what the process that started this one held: it is kept when a program begins.

    Args:
        status: Linux's file about this process.

    Source: Linux's documentation, proc(5), VmHWM; getrusage(2), ru_maxrss.
    """
    try:
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes there
    import psutil

    try:
        return getattr(psutil.Process().memory_info(), "peak_wset", None)  # Windows
    except psutil.Error:
        return None


def _of_machine() -> int | None:
    """What the machine could give without a process being ended: free, to be taken back from caches, and swap."""
    import psutil

    try:
        return psutil.virtual_memory().available + psutil.swap_memory().free
    except (OSError, RuntimeError, NotImplementedError, AttributeError, ValueError):  # a /proc that hides it
        return None


def _of_groups(root: Path = GROUPS, own: Path = OWN_GROUPS) -> Iterator[int]:
    """What each limit of Linux's control groups leaves: the process's own group and all around it.

    Source: Linux's documentation, "Control Group v2", and "Memory Resource Controller" of version 1.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, kinds, name = [*line.split(":", 2), "", ""][:3]
        if kinds == "":
            mounts, files = (root, root / "unified"), VERSION_2
        elif "memory" in kinds.split(","):
            mounts, files = (root / "memory",), VERSION_1
        else:
            continue
        for mount in mounts:
            group = mount / name.lstrip("/")
            # In a container the name may be the host's, and only the mount's root is there.
            for place in (group, *group.parents):
                if (left := _left_in_group(place, *files)) is not None:
                    yield left
                if place == mount:
                    break


def _left_in_group(group: Path, limit: str, used: str, reclaimable: tuple[str, ...]) -> int | None:
    """What a control group leaves; None where it has no limit."""
    try:
        most = int((group / limit).read_text(encoding="utf-8"))  # "max" is no number
        taken = int((group / used).read_text(encoding="utf-8"))
        figures = dict(line.split(None, 1) for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        return most - taken + sum(int(figures.get(name, 0)) for name in reclaimable)
    except (OSError, ValueError):
        return None


def _of_process() -> Iterator[int]:
    """What `ulimit -v` and `ulimit -d` leave."""
    if sys.platform == "win32":
        return
    import resource

    import psutil

    try:
        taken = psutil.Process().memory_info()
    except psutil.Error:
        return
    for limit, used in (("RLIMIT_AS", taken.vms), ("RLIMIT_DATA", getattr(taken, "data", None))):
        most = resource.getrlimit(getattr(resource, limit))[0] if hasattr(resource, limit) else resource.RLIM_INFINITY
        if most != resource.RLIM_INFINITY and used is not None:
            yield most - used
