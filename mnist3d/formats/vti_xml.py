"""The XML around the numbers of a .vti: which arrays there are, where their numbers begin and how they are packed.

A stranger's XML: no document type (so no entities), no depth, no long names, and the text of an array is never
gathered, only its place in the file is.

Source: VTK's file formats, "XML file formats".
"""

import mmap
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from ..errors import VolumeFileError

PIECE = 2**16  # bytes that expat gets at once
MOST_DEPTH, MOST_ELEMENTS, LONGEST_TAG = 16, 10_000, 2**18
TAG_END = re.compile(rb"""(?:[^"'>]|"[^"]*"|'[^']*')*>""")
END = b"</VTKFile>"
LAST = 256  # bytes among which it must lie; ends of lines may follow it
APPENDED, ARRAY = "AppendedData", "DataArray"


@dataclass(frozen=True)
class Array:
    """A DataArray as its attributes tell it.

    Args:
        told: its attributes.
        begin, end: where its text lies in the file, in bytes.
    """

    told: dict[str, str]
    begin: int
    end: int


@dataclass
class Piece:
    """A part of the image: its extent, its arrays by the kind of data, and which ones are active."""

    told: dict[str, str]
    arrays: dict[str, list[Array]] = field(default_factory=dict)
    active: dict[str, str | None] = field(default_factory=dict)


@dataclass
class Outline:
    """What a .vti says before its appended data.

    Args:
        file, image: attributes of VTKFile and of ImageData.
        pieces: the parts of the image.
        appended: encoding of the appended data and where they begin, in bytes; None: there are none.
    """

    file: dict[str, str] = field(default_factory=dict)
    image: dict[str, str] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    appended: tuple[str, int] | None = None


class _Done(Exception):
    """The appended data begin, which are no XML."""


class _Reader:
    """Takes note of what expat finds."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.outline = content, Outline()
        self.open: list[str] = []
        self.found, self.text, self.longest = 0, 0, (0, 0)
        self.array: dict[str, str] | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.StartDoctypeDeclHandler = self.doctype

    def read(self) -> Outline:
        begin, size = 0, len(self.content)
        try:
            while begin < size:
                self.parser.Parse(self.content[begin : begin + PIECE], begin + PIECE >= size)
                begin += PIECE
                if begin - self.parser.CurrentByteIndex > LONGEST_TAG + PIECE:
                    raise ValueError(f"a name or value in its XML is longer than {LONGEST_TAG:,} bytes")
        except _Done:
            pass
        return self.outline

    def doctype(self, *_: object) -> None:
        raise ValueError("its XML has a document type, which no VTK file has")

    def start(self, name: str, told: dict[str, str]) -> None:
        self.open.append(name)
        self.found += 1
        if len(self.open) > MOST_DEPTH or self.found > MOST_ELEMENTS:
            raise ValueError(f"its XML has more than {MOST_DEPTH} levels or {MOST_ELEMENTS:,} elements")
        match self.open:
            case ["VTKFile"]:
                self.outline.file = told
            case ["VTKFile", "ImageData"]:
                self.outline.image = told
            case ["VTKFile", "ImageData", "Piece"]:
                self.outline.pieces.append(Piece(told))
            case ["VTKFile", "ImageData", "Piece", ("PointData" | "CellData") as kind]:
                self.outline.pieces[-1].arrays.setdefault(kind, [])
                self.outline.pieces[-1].active[kind] = told.get("Scalars")
            case ["VTKFile", "ImageData", "Piece", "PointData" | "CellData", "DataArray"]:
                self.array, self.text, self.longest = told, self.after_tag(), (0, 0)
            case ["VTKFile", "ImageData", "Piece", "PointData" | "CellData", "DataArray", _]:
                self.end_of_text()
            case ["VTKFile", "AppendedData"]:
                start = self.content.find(b"_", self.after_tag())
                if start < 0:
                    raise ValueError("its appended data do not begin")
                self.outline.appended = told.get("encoding", "base64"), start + 1
                raise _Done

    def end(self, name: str) -> None:
        if self.array is not None and len(self.open) == 5:
            self.end_of_text()
            self.outline.pieces[-1].arrays[self.open[3]].append(Array(self.array, *self.longest))
            self.array = None
        elif self.array is not None and len(self.open) == 6:
            self.text = self.after_tag()
        self.open.pop()

    def end_of_text(self) -> None:
        """The numbers are the longest text; an InformationKey stands before or behind them."""
        self.longest = max(self.longest, (self.text, self.parser.CurrentByteIndex), key=lambda text: text[1] - text[0])

    def after_tag(self) -> int:
        """Where the tag ends at which expat stands."""
        begin = self.parser.CurrentByteIndex
        found = TAG_END.match(self.content[begin : begin + LONGEST_TAG])
        if found is None:
            raise ValueError("a tag in its XML does not end")
        return begin + found.end()


def read_outline(path: Path, content: mmap.mmap) -> Outline:
    """What the XML says.

    Raises:
        VolumeFileError: it was cut short, or is no image.
        ValueError, expat.ExpatError: it is no XML as VTK writes it.
    """
    if not content[-LAST:].rstrip(b"\0\t\r\n ").endswith(END):
        raise VolumeFileError(f"{path}: damaged: it was cut short, as its end ({END.decode()}) is missing")
    outline = _Reader(content).read()
    if outline.file.get("type") != "ImageData":
        raise VolumeFileError(f"{path}: holds {outline.file.get('type', 'no image')}; must be ImageData")
    return outline
