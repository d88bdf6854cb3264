"""A `resume.pt` of anybody, opened: bounded while it is read, and no tensor longer than what the file holds of it.

torch.load with `weights_only` runs no code of a file. But it unpacks what is compressed, and believes the length that
the file gives for each tensor. What the tensors must be is `training.checked_state`.
"""

import bisect
import errno
import io
import itertools
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO, ClassVar, cast

import torch

from ..storage.plain_files import PIECE, open_plain, size_in_words

MOST_ENTRIES = 100_000
KEPT = 2**16  # bytes of an entry that is held in memory; the pickle always is
LOCAL_MARK = b"PK\x03\x04"
LOCAL_HEADER = struct.Struct("<4s22x2H")  # of a zip entry: its mark, the lengths of the name and of what else is said
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
    with cast("io.BufferedReader", open_plain(path)) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"holds more than {size_in_words(most)}", str(path))
        try:
            packed = _repacked(file, size)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about kinds of tensors that are refused later
                return torch.load(cast("IO[bytes]", packed), map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # whatever an odd file leads a parser to
            raise ValueError(f"{error}" or type(error).__name__) from None


class _Written:
    """What a zip archive is written to: bytes that are kept, and stretches of another file where the same bytes lie."""

    def __init__(self) -> None:
        self.parts: list[bytes | range] = []
        self.source: int | None = None  # where in the other file lies what is written next; None: keep it

    def write(self, content: bytes) -> int:
        """Append."""
        if self.source is None:
            self.parts.append(bytes(content))
        else:
            self.parts.append(range(self.source, self.source + len(content)))
            self.source += len(content)
        return len(content)

    def flush(self) -> None:
        """Nothing waits."""


class _Joined(io.RawIOBase):
    """Bytes and stretches of a file, one after another, as one file that can be read.

    Args:
        parts: the stretches as ranges of places in the file.
        file: where they lie.
    """

    def __init__(self, parts: list[bytes | range], file: io.BufferedReader) -> None:
        self._parts, self._file, self._place = parts, file, 0
        self._begins = [0, *itertools.accumulate(map(len, parts))]

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As of any file."""
        self._place = max(0, offset + (0, self._place, self._begins[-1])[whence])
        return self._place

    def tell(self) -> int:
        """As of any file."""
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """As much as there is room for, which torch takes for granted."""
        room = memoryview(buffer).cast("B")
        begin, filled = self._place, 0
        while filled < len(room) and begin + filled < self._begins[-1]:
            number = bisect.bisect_right(self._begins, begin + filled) - 1
            skipped = begin + filled - self._begins[number]
            part = self._parts[number][skipped : skipped + len(room) - filled]
            if isinstance(part, bytes):
                room[filled : filled + len(part)] = part
            else:
                self._file.seek(part.start)
                if self._file.readinto(room[filled : filled + len(part)]) != len(part):
                    raise ValueError("it became shorter while it was read")
            filled += len(part)
        self._place += filled
        return filled


def _repacked(file: io.BufferedReader, size: int) -> _Joined:
    """What a zip archive holds, each entry compared with its checksum, as a new archive.

    So torch's reader of zip files finds what ours has looked at, and nothing else. The new archive has headers of its
    own, and the numbers of large entries where they lie in the old one: the state is in memory once, as tensors.

    Args:
        file: the archive.
        size: bytes in it.
    """
    written, sizes, pickles = _Written(), {}, {}
    with zipfile.ZipFile(file) as archive:
        listed = archive.infolist()
    if len(listed) > MOST_ENTRIES or len({entry.filename for entry in listed}) < len(listed):
        raise ValueError("no archive as torch writes them: too many entries, or two of one name")
    if any(not 0 <= entry.header_offset < size for entry in listed):
        raise ValueError("no archive as torch writes them: entries outside it")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in listed):
        raise ValueError("no archive as torch writes them: compressed")
    if sum(entry.file_size for entry in listed) > size:
        raise ValueError("no archive as torch writes them: entries within each other")
    with zipfile.ZipFile(cast("IO[bytes]", written), "w", zipfile.ZIP_STORED) as copy:
        for entry in listed:
            name, sizes[entry.filename] = entry.filename, entry.file_size
            new = zipfile.ZipInfo(name)
            new.file_size = entry.file_size  # which decides about the kind of header
            pieces = _pieces(file, entry)
            if is_pickle := name.endswith("/data.pkl") and name.count("/") == 1:
                pieces = [b"".join(pieces)]
                pickles[name] = pieces[0]
            with copy.open(new, "w") as target:
                if not is_pickle and entry.file_size > KEPT:
                    written.source = _begin(file, entry)
                for piece in pieces:
                    target.write(piece)
                written.source = None
            if new.CRC != entry.CRC:
                raise ValueError(f"{name} is damaged: it does not have its checksum")
    _check_lengths(pickles, sizes)
    return _Joined(written.parts, file)


def _begin(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where the content of an entry lies: behind a header of its own."""
    file.seek(entry.header_offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or header[:4] != LOCAL_MARK:
        raise ValueError("no archive as torch writes them: an entry without a header")
    _, name, extra = LOCAL_HEADER.unpack(header)
    return entry.header_offset + LOCAL_HEADER.size + name + extra


def _pieces(file: BinaryIO, entry: zipfile.ZipInfo) -> Iterable[bytes]:
    """The content of an entry."""
    file.seek(_begin(file, entry))
    left = entry.file_size
    while left > 0:
        piece = file.read(min(PIECE, left))
        if not piece:
            raise ValueError(f"{entry.filename} is cut off")
        left -= len(piece)
        yield piece


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
