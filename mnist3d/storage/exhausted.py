"""What it looks like when the system has no more of something: memory, disk, open files.

Told by the kind of an error and by its words, so that no library need be imported to ask.
"""

import errno
import re

# Of torch's allocators on the CPU and on a GPU, of the system, of libraries.
NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|failed to map segment"
    r"|could not create a (?:primitive|memory object)"  # oneDNN, which says no more
    r"|can't start new thread|std::bad_alloc|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
ASKED = re.compile(r"(?:tried|trying) to allocate ([\d.]+ ?\w+)", re.IGNORECASE)
# The state of a machine, and names that it does not take: no mistake in a program.
STATES = ("EMFILE", "ENFILE", "ENOSPC", "EDQUOT", "EROFS", "EIO", "ENODEV", "ESTALE", "EFBIG", "EAGAIN")
NAMES = ("ENAMETOOLONG", "ELOOP", "EACCES", "EPERM", "EILSEQ")
OF_THE_SYSTEM = {getattr(errno, name) for name in (*STATES, *NAMES) if hasattr(errno, name)}
REMEDIES = {
    errno.EMFILE: "; raise the limit of open files, ulimit -n",
    errno.ENOSPC: "; free some space",
    errno.EFBIG: "; raise the limit of a file's size, ulimit -f",
}


def out_of_memory(error: BaseException) -> str | None:
    """What a message says of an error that means that there is no more memory, such as how much was asked for.

    Returns:
        Words for a message; None for any other error.
    """
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:
        found = error.errno == errno.ENOMEM
    elif isinstance(error, RuntimeError | ImportError | OSError | SystemError):
        found = NO_MEMORY.search(words) is not None
    else:
        found = isinstance(error, MemoryError)
    if not found:
        return None
    on = " on the GPU" if "CUDA" in words else ""
    asked = ASKED.search(words)
    return f"out of memory{on}" + (f" ({asked[1]} more were asked for)" if asked else "")


def system_failure(error: BaseException) -> str | None:
    """What a message says of a system call that failed for what the machine lacks; None for any other error."""
    if not isinstance(error, OSError) or error.errno is None or error.errno not in OF_THE_SYSTEM:
        return None
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror}{REMEDIES.get(error.errno, '')}"
