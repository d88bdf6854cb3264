"""A `resume.pt` of anybody, opened: bounded while it is read, and no tensor longer than what the file holds of it.

torch.load with `weights_only` runs no code of a file. But it unpacks what is compressed, and believes the length that
the file gives for each tensor. What the tensors must be is `training.checked_state`.
"""

import errno
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import torch

from ..storage.plain_files import open_plain, size_in_words

MOST_ENTRIES = 100_000
# Bytes of a number in a storage, by the name that torch writes; a tensor of another kind is none of ours.
ITEM_SIZES = {
    **dict.fromkeys(("ByteStorage", "CharStorage", "BoolStorage", "UntypedStorage"), 1),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    "ComplexDoubleStorage": 16,
}


def read_archive(path: Path, most: int) -> Any:
    """What `torch.save` wrote: tensors on the CPU and plain values.

    Args:
        path: the file.
        most: bytes that it may hold.

    Raises:
        OSError: it cannot be read, is no plain file, or holds more.
        ValueError: it is damaged, or no archive as torch writes them; one line.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"holds more than {size_in_words(most)}", str(path))
        try:
            packed = _repacked(file, size)
        except OSError:
            raise
        except Exception as error:  # whatever an odd file leads a parser to
            raise ValueError(f"{error}" or type(error).__name__) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of tensors that are refused later
            return torch.load(packed, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise ValueError(f"{error}" or type(error).__name__) from None


def _repacked(file: BinaryIO, size: int) -> io.BytesIO:
    """What a zip archive holds, each entry compared with its checksum, as a new archive.

    So torch's reader of zip files finds what ours has looked at, and nothing else. One entry is in memory at a time,
    beside the new archive.

    Args:
        file: the archive.
        size: bytes in it.
    """
    packed, sizes, pickles = io.BytesIO(), {}, {}
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as copy:
        listed = archive.infolist()
        if len(listed) > MOST_ENTRIES or len({entry.filename for entry in listed}) < len(listed):
            raise ValueError("no archive as torch writes them: too many entries, or two of one name")
        if any(not 0 <= entry.header_offset < size for entry in listed):
            raise ValueError("no archive as torch writes them: entries outside it")
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in listed):
            raise ValueError("no archive as torch writes them: compressed")
        if sum(entry.file_size for entry in listed) > size:
            raise ValueError("no archive as torch writes them: entries within each other")
        for entry in listed:
            name, content = entry.filename, archive.read(entry)
            copy.writestr(name, content)
            sizes[name] = len(content)
            if name.endswith("/data.pkl") and name.count("/") == 1:
                pickles[name] = content
    _check_lengths(pickles, sizes)
    packed.seek(0)
    return packed


def _check_lengths(pickles: dict[str, bytes], sizes: dict[str, int]) -> None:
    """Whether each tensor's numbers are all in the file: torch would go on reading in somebody else's memory."""
    if len(pickles) != 1:
        raise ValueError("no archive as torch writes them: data.pkl is missing")
    ((name, content),) = pickles.items()
    root = name.partition("/")[0]
    _Lengths(content, {key.removeprefix(f"{root}/data/"): size for key, size in sizes.items()}).load()


class _Anything:
    """Stands for whatever class or function a pickle names. Nothing is imported."""

    def __init__(self, name: str = "") -> None:
        self._name = name

    def __call__(self, *_: Any) -> "_Anything":
        return _Anything()

    def __setitem__(self, *_: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """A list's."""

    extend = add = append


def _no_bytearray(_: Any) -> None:
    """Python makes one of any length before it looks whether that many bytes follow."""
    raise ValueError("holds a bytearray, as no checkpoint does")


# The one in Python: the one in C takes as much memory as the file says for the things that it remembers.
class _Lengths(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Goes through a pickle without making anything, and compares each tensor's storage with its entry.

    Args:
        content: of data.pkl.
        sizes: bytes of each entry, by its key.
    """

    def __init__(self, content: bytes, sizes: dict[str, int]) -> None:
        super().__init__(io.BytesIO(content))
        self.sizes = sizes

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,  # pyright: ignore[reportAttributeAccessIssue]
        pickle.BYTEARRAY8[0]: _no_bytearray,
    }

    def find_class(self, module: str, name: str) -> _Anything:
        return _Anything(name)

    def persistent_load(self, pid: Any) -> _Anything:
        kind, storage, key, _, count = cast("tuple[Any, ...]", pid)
        size = ITEM_SIZES.get(storage._name) if isinstance(storage, _Anything) else None
        if kind != "storage" or size is None or type(key) is not str or type(count) is not int:
            raise ValueError("holds a tensor of an unknown kind")
        if count < 0 or self.sizes.get(key) != size * count:
            raise ValueError(f"tensor {key} is cut off: {self.sizes.get(key, 0)} bytes of {size * count}")
        return _Anything()
