"""Hostile volume files, some for each format: what each of them does is its name. Nothing in them is random.

`files_of(reader)` gives valid files too, which `fuzz_readers.py` mutates.
"""

# ruff: noqa: E501 (a file a line)

import bz2
import gzip
import io
import json
import lzma
import math
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

N = 6
GRID = np.arange(N**3, dtype=np.float32).reshape(N, N, N) / 100.0
PIECE = 2**24
HUGE = 10**9
Case = tuple[str, str, bytes | Callable[[Path], None]]  # what it is, suffix, content or what makes it


def bomb(count: int, wrap: Callable[[], Any], begin: bytes = b"") -> bytes:
    """Zeros behind a begin, packed."""
    packer, zeros = wrap(), bytes(PIECE)
    out = [packer.compress(begin)]
    while count > 0:
        out.append(packer.compress(zeros[:count]))
        count -= PIECE
    return b"".join([*out, packer.flush()])


GZ = partial(zlib.compressobj, 6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
DEFLATE = partial(zlib.compressobj, 6, zlib.DEFLATED, -zlib.MAX_WBITS)


def npy(shape: Any, descr: str = "<f4", data: bytes = b"", fortran: Any = False, version: int = 1) -> bytes:
    """A .npy that claims what it is told to."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    width = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(width, len(header)) + header + data


def of_npy() -> Iterator[Case]:
    """A plain array."""
    for name, shape in (
        ("claims 10^27", (HUGE,) * 3),
        ("claims 4 GiB", (1024,) * 3),
        ("negative", (-1, 4, 4)),
        ("two negative", (-6, -6, 6)),
        ("zero", (0, 4, 4)),
        ("overflow", (2**62, 4, 4)),
        ("many frames", (HUGE, 4, 4, 4)),
        ("64 axes", (1,) * 64),
    ):
        yield name, ".npy", npy(shape, data=GRID.tobytes())
    yield "objects", ".npy", npy((6, 6, 6), "|O", pickle.dumps(GRID))
    yield "text of 2^31", ".npy", npy((6, 6, 6), "<U536870912", bytes(4000))
    yield "shape is text", ".npy", npy("'abc'", data=GRID.tobytes())
    yield "nested header", ".npy", npy("(" * 3000 + ")" * 3000)
    yield "long header", ".npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * 10**6
    yield "header of 2 GB", ".npy", partial(hole, b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31), 2**31, b"")


def archive(**members: bytes) -> bytes:
    """A zip of .npy files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(f"{name}.npy", content)
    return file.getvalue()


def of_npz() -> Iterator[Case]:
    """Ours, with other claims."""
    whole = {"attenuation": npy((6, 6, 6), data=GRID.tobytes()), "absorbance": npy((6, 6, 6), data=bytes(864)),
             "spacing_xyz": npy((3,), "<f8", np.ones(3).tobytes())}  # fmt: skip
    for name, part in (
        ("claims 4.5 PB", npy((HUGE, 1024, 1024), data=bytes(100))),
        ("claims 4 GiB", npy((1024, 1024, 1024), data=bytes(100))),
        ("objects", npy((6, 6, 6), "|O", pickle.dumps(GRID))),
        ("bomb of 1 GB, small claim", npy((6, 6, 6), data=bytes(2**30))),
        ("bomb of 1 GB, claims 4", npy((1024, 1024, 1024), data=bytes(2**30))),
        ("no array", b"PK"),
        ("negative", npy((6, 6, -6), data=bytes(864))),
    ):
        yield name, ".npz", archive(**{**whole, "attenuation": part})
    yield "long spacing", ".npz", archive(**{**whole, "spacing_xyz": npy((HUGE,), "<f8", bytes(2**28))})
    yield "text as spacing", ".npz", archive(**{**whole, "spacing_xyz": npy((3,), "<U8", bytes(96))})
    yield "infinite spacing", ".npz", archive(**{**whole, "spacing_xyz": npy((3,), "<f8", np.full(3, 1e308).tobytes())})
    good = archive(**whole)
    end = good.rfind(b"PK\x05\x06")
    yield "table of 2 GB", ".npz", partial(hole, good[:end] + struct.pack("<I", 0), 2**31, _end_of(2**31))
    yield "100,000 members", ".npz", archive(**{f"a{k}": b"" for k in range(100_000)}, **whole)
    yield "packed by bzip2", ".npz", _bz2_zip(whole)


def _end_of(size: int) -> bytes:
    return b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 2**16 - 1, 2**16 - 1, size, 0, 0)


def _bz2_zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as packed:
        for name, content in members.items():
            packed.writestr(f"{name}.npy", content if name != "attenuation" else npy((6,) * 3, data=bytes(2**29)))
    return file.getvalue()


def hole(begin: bytes, size: int, end: bytes, path: Path) -> None:
    """A file with a hole, which takes no room."""
    with open(path, "wb") as file:
        file.write(begin)
        file.truncate(size)
        file.seek(0, 2)
        file.write(end)


def nrrd(data: bytes, **told: str) -> bytes:
    """An NRRD whose header says what it is told to."""
    fields = {"type": "float", "dimension": "3", "sizes": "6 6 6", "endian": "little", "encoding": "raw", **told}
    lines = "".join(f"{name.replace('_', ' ')}: {value}\n" for name, value in fields.items() if value)
    return f"NRRD0004\n{lines}\n".encode() + data


def of_nrrd() -> Iterator[Case]:
    """Raw, text, gzip, bzip2, and data beside."""
    raw = GRID.tobytes()
    for name, told in (
        ("claims 10^27", {"sizes": f"{HUGE} {HUGE} {HUGE}"}),
        ("claims 4 GiB", {"sizes": "1024 1024 1024"}),
        ("negative", {"sizes": "-6 -6 6"}),
        ("zero", {"sizes": "0 6 6"}),
        ("overflow", {"sizes": "4294967296 4294967296 1"}),
        ("sizes as text", {"sizes": "six 6 6"}),
        ("spacing of NaN", {"spacings": "nan nan nan"}),
        ("spacing of 1e308", {"spacings": "1e308 1e308 1e308"}),
        ("endless spacing", {"spacings": "1e999 1 1"}),
        ("10^12 lines skipped", {"line_skip": "1000000000000"}),
        ("bytes skipped", {"byte_skip": "9223372036854775808"}),
        ("of a million axes", {"dimension": "1000000", "sizes": "1 " * 100_000}),
        ("blocks", {"type": "block", "block_size": str(HUGE)}),
        ("/etc/passwd", {"data_file": "/etc/passwd"}),
        ("../..", {"data_file": "../../etc/passwd"}),
        ("a list", {"data_file": "LIST\n" + "a.raw\n" * 10_000}),
        ("a folder", {"data_file": "."}),
        ("text that is none", {"encoding": "ascii"}),
        ("gzip that is none", {"encoding": "gzip"}),
    ):
        yield name, ".nrrd", nrrd(raw, **told)
    yield "bomb of 1 GB, small claim", ".nrrd", nrrd(bomb(2**30, GZ), encoding="gzip")
    yield "bomb of 1 GB, claims 4", ".nrrd", nrrd(bomb(2**30, GZ), encoding="gzip", sizes="1024 1024 1024")
    yield "bomb that matches", ".nrrd", nrrd(bomb(4 * 400**3, GZ), encoding="gzip", sizes="400 400 400")
    yield "bomb behind a skip", ".nrrd", nrrd(bomb(2**30, GZ), encoding="gzip", byte_skip="-1")
    yield "bzip2 bomb", ".nrrd", nrrd(bomb(2**29, bz2.BZ2Compressor), encoding="bzip2")
    yield "a long number", ".nrrd", nrrd(b"1" * 10**7, encoding="ascii")
    yield "header without end", ".nrrd", b"NRRD0004\n" + b"a: b\n" * 10**6
    yield "line of 100 MB", ".nrrd", b"NRRD0004\ntype: " + b"f" * 10**8
    yield (
        "gzip name of 100 MB",
        ".nrrd",
        nrrd(gzip.compress(b"")[:3] + b"\x08" + bytes(6) + b"n" * 10**8, encoding="gz"),
    )
    yield "a pipe beside", ".nhdr", partial(_with_pipe, nrrd(b"", data_file="pipe"))


def _with_pipe(content: bytes, path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.write_bytes(content)


def nifti(shape: Any = (N, N, N), kind: int = 16, offset: float = 352.0, pixdim: Any = (1, 1, 1), more: bytes = b"",
          bits: int = 32, dims: int | None = None, slope: float = 1.0, sform: int = 0) -> bytes:  # fmt: skip
    """A NIfTI-1 header, and four bytes that say whether extensions follow."""
    sizes = [len(shape) if dims is None else dims, *shape, *[1] * 7][:8]
    header = struct.pack("<i35xc8h", 348, b"r", *sizes) + bytes(14) + struct.pack("<3h", kind, bits, 0)
    header += struct.pack("<8f", 1, *pixdim, 1, 1, 1, 1) + struct.pack("<3f", offset, slope, 0)
    header = header.ljust(252, b"\0") + struct.pack("<2h", 0, sform)
    return header.ljust(344, b"\0") + b"n+1\0" + (more or bytes(4))


def of_nii() -> Iterator[Case]:
    """NIfTI-1, plain and gzipped, and a pair."""
    raw = GRID.tobytes()
    for name, header in (
        ("claims 10^13", nifti((32767, 32767, 32767))),
        ("claims 4 GiB", nifti((1024, 1024, 1024))),
        ("negative", nifti((-6, -6, 6))),
        ("zero", nifti((0, 6, 6))),
        ("no axis", nifti(dims=0)),
        ("7 axes", nifti((6, 6, 6, 32767, 32767, 32767, 32767))),
        ("-1 axes", nifti(dims=-1)),
        ("begins at 1e30", nifti(offset=1e30)),
        ("begins at NaN", nifti(offset=math.nan)),
        ("begins before", nifti(offset=-1e6)),
        ("complex", nifti(kind=1792, bits=128)),
        ("unknown type", nifti(kind=-5)),
        ("lengths 0", nifti(pixdim=(0, 0, 0))),
        ("lengths NaN", nifti(pixdim=(math.nan,) * 3, sform=1)),
        ("lengths 1e38", nifti(pixdim=(1e38,) * 3)),
        ("slope of NaN", nifti(slope=math.nan)),
        ("slope of 1e38", nifti(slope=1e38)),
        ("extension of 2 GB", nifti(offset=2**31, more=b"\1\0\0\0" + struct.pack("<2i", 2**31 - 16, 6))),
    ):
        yield name, ".nii", header + raw
        yield f"{name}, gzipped", ".nii.gz", gzip.compress(header + raw)
    yield "bomb, small claim", ".nii.gz", bomb(2**30, GZ, nifti() + raw)
    yield "bomb, claims 4", ".nii.gz", bomb(2**30, GZ, nifti((1024, 1024, 1024)))
    yield "bomb that matches", ".nii.gz", bomb(4 * 400**3, GZ, nifti((400, 400, 400)))
    yield (
        "bomb in an extension",
        ".nii.gz",
        bomb(2**31, GZ, nifti(offset=2**31, more=b"\1\0\0\0" + struct.pack("<2i", 2**31 - 16, 6))),
    )
    yield "gzip in gzip", ".nii.gz", gzip.compress(bomb(2**30, GZ))
    yield "a million empty parts", ".nii.gz", gzip.compress(nifti()) + gzip.compress(b"") * 1_000_000
    yield "a header alone", ".hdr", nifti()
    yield "voxels alone", ".img", raw
    yield "a pipe beside", ".hdr", lambda path: (os.mkfifo(path.with_suffix(".img")), path.write_bytes(nifti()))[0]


def mrc(shape: Any = (N, N, N), mode: int = 2, symmetry: int = 0, order: str = "<", stamp: bytes = b"DD\0\0", mz: int = 6,
        ispg: int = 1, axes: Any = (1, 2, 3), lengths: Any = (6, 6, 6), marked: bytes = b"MAP ") -> bytes:  # fmt: skip
    """An MRC2014 header."""
    head = struct.pack(f"{order}10i6f3i3f2i", *shape, mode, 0, 0, 0, 6, 6, mz, *lengths, 90, 90, 90, *axes, 0, 1, 1, ispg,
                       symmetry)  # fmt: skip
    return (head.ljust(208, b"\0") + marked + stamp).ljust(1024, b"\0")


def of_mrc() -> Iterator[Case]:
    """Plain and gzipped."""
    raw = GRID.tobytes()
    for name, header in (
        ("claims 10^28", mrc((2**31 - 1,) * 3)),
        ("claims 4 GiB", mrc((1024,) * 3)),
        ("negative", mrc((-6, -6, 6))),
        ("zero", mrc((0, 6, 6))),
        ("mode 99", mrc(mode=99)),
        ("4 bits", mrc(mode=101)),
        ("extended header of 2 GB", mrc(symmetry=2**31 - 1)),
        ("extended header of -1", mrc(symmetry=-1)),
        ("10^9 volumes", mrc((6, 6, 2**31 - 1), ispg=401, mz=1)),
        ("volumes of -1", mrc(ispg=401, mz=-1)),
        ("axes 1 1 1", mrc(axes=(1, 1, 1))),
        ("lengths NaN", mrc(lengths=(math.nan,) * 3)),
        ("lengths 1e38", mrc(lengths=(1e38,) * 3)),
        ("no stamp, no MAP, no sense", mrc((-1, 2**30, 7), stamp=b"??", marked=b"????")),
    ):
        yield name, ".mrc", header + raw
        yield f"{name}, gzipped", ".map.gz", gzip.compress(header + raw)
    yield "bomb, small claim", ".mrc.gz", bomb(2**30, GZ, mrc() + raw)
    yield "bomb, claims 4", ".mrc.gz", bomb(2**30, GZ, mrc((1024,) * 3))
    yield "bomb that matches", ".mrc.gz", bomb(4 * 400**3, GZ, mrc((400,) * 3))
    yield "bomb in the extended header", ".mrc.gz", bomb(2**31, GZ, mrc(symmetry=2**31 - 1))


def vti(arrays: str, extent: str = "0 5 0 5 0 5", spacing: str = "1 1 1", more: str = "", tail: bytes = b"",
        pieces: str | None = None, begin: str = "") -> bytes:  # fmt: skip
    """A .vti with what is told of its arrays."""
    pieces = pieces or f'<Piece Extent="{extent}"><PointData Scalars="a">{arrays}</PointData></Piece>'
    head = f'<?xml version="1.0"?>{begin}<VTKFile type="ImageData" byte_order="LittleEndian" {more}><ImageData WholeExtent='
    head += f'"{extent}" Spacing="{spacing}">{pieces}</ImageData>'
    return head.encode() + tail + b"</VTKFile>\n"


def appended(*parts: bytes) -> bytes:
    """Raw appended data."""
    return b'<AppendedData encoding="raw">_' + b"".join(parts) + b"</AppendedData>"


def of_vti() -> Iterator[Case]:
    """Raw, packed, text, and XML that is a trap."""
    u8, zlib_packed = 'header_type="UInt64"', 'header_type="UInt64" compressor="vtkZLibDataCompressor"'
    lz4_packed = 'header_type="UInt64" compressor="vtkLZ4DataCompressor"'
    xz_packed = 'header_type="UInt64" compressor="vtkLZMADataCompressor"'
    at = '<DataArray type="Float32" Name="a" format="appended" offset="0"/>'
    raw = struct.pack("<Q", GRID.nbytes) + GRID.tobytes()
    big, full = "0 1023 0 1023 0 1023", 4 * 2**30
    for name, made in (
        ("claims 10^27", vti(at, " ".join([f"0 {HUGE}"] * 3), more=u8, tail=appended(raw))),
        ("claims 4 GiB", vti(at, big, more=u8, tail=appended(raw))),
        ("length lies", vti(at, big, more=u8, tail=appended(struct.pack("<Q", full), bytes(99)))),
        ("backwards", vti(at, "5 0 5 0 5 0", more=u8, tail=appended(raw))),
        ("beyond 2^63", vti(at, f"0 {2**63} 0 5 0 5", more=u8, tail=appended(raw))),
        ("offset -8", vti(at.replace('"0"', '"-8"'), more=u8, tail=appended(raw))),
        ("offset 10^18", vti(at.replace('"0"', f'"{10**18}"'), more=u8, tail=appended(raw))),
        ("10^9 components", vti(at.replace("Name", f'NumberOfComponents="{HUGE}" Name'), more=u8, tail=appended(raw))),
        ("-1 components", vti(at.replace("Name", 'NumberOfComponents="-1" Name'), more=u8, tail=appended(raw))),
        ("spacing NaN", vti(at, spacing="nan nan nan", more=u8, tail=appended(raw))),
        ("spacing 1e308", vti(at, spacing="1e308 1e308 1e308", more=u8, tail=appended(raw))),
        ("spacing 0", vti(at, spacing="0 1 1", more=u8, tail=appended(raw))),
        ("10^18 blocks", vti(at, more=zlib_packed, tail=appended(struct.pack("<3Q", 10**18, 1, 0)))),
        ("a block of 4 GiB", vti(at, big, more=zlib_packed, tail=appended(struct.pack("<4Q", 1, full, 0, 99), bytes(99)))),
        ("an LZ4 block of 4 GiB", vti(at, big, more=lz4_packed, tail=appended(struct.pack("<4Q", 1, full, 0, 99), bytes(99)))),
        ("empty blocks", vti(at, more=zlib_packed, tail=appended(struct.pack("<3Q", 2**40, 0, 864)))),
        ("a packer of its own", vti(at, more=f'{u8} compressor="rm"', tail=appended(raw))),
        ("a type of its own", vti(at.replace("Float32", "Object"), more=u8, tail=appended(raw))),
        ("no such text", vti('<DataArray type="Float32" Name="a" format="ascii">x y z</DataArray>')),
        ("a long number", vti(f'<DataArray type="Float32" Name="a" format="ascii">{"1" * 10**7}</DataArray>')),
        ("no base64", vti(f'<DataArray type="Float32" Name="a" format="binary">{"?" * 4000}</DataArray>', more=u8)),
        ("entities", vti("&c;", begin=_ENTITIES)),
        ("an entity of a file", vti("&c;", begin='<!DOCTYPE a [<!ENTITY c SYSTEM "/etc/passwd">]>')),
        ("100,000 deep", vti("<a>" * 100_000 + "</a>" * 100_000)),
        ("a million elements", vti("<a/>" * 10**6)),
        ("a name of 10 MB", vti(f"<{'a' * 10**7}/>")),
        ("a value of 10 MB", vti(f'<a b="{"a" * 10**7}"/>')),
        ("2,000 whole pieces", vti("", more=u8, tail=appended(raw), pieces=(
            f'<Piece Extent="0 5 0 5 0 5"><PointData>{at}</PointData></Piece>' * 2000))),
        ("a piece outside", vti("", more=u8, tail=appended(raw), pieces=(
            f'<Piece Extent="100 105 0 5 0 5"><PointData>{at}</PointData></Piece>'))),
    ):  # fmt: skip
        yield name, ".vti", made
    for name, more, pack in (("zlib", zlib_packed, zlib.compressobj), ("xz", xz_packed, partial(lzma.LZMACompressor))):
        packed = bomb(2**30, pack)
        table = struct.pack("<4Q", 1, full, 0, len(packed))
        yield f"{name} bomb, claims 4", ".vti", vti(at, big, more=more, tail=appended(table, packed))
        table = struct.pack("<4Q", 1, GRID.nbytes, 0, len(packed))
        yield f"{name} bomb, small claim", ".vti", vti(at, more=more, tail=appended(table, packed))


_ENTITIES = '<!DOCTYPE a [<!ENTITY a "' + "a" * 100 + '">' + "".join(
    f'<!ENTITY {chr(98 + k)} "{f"&{chr(97 + k)};" * 100}">' for k in range(8)) + "]>"  # fmt: skip


def of_vdb() -> Iterator[Case]:
    """Our own file with other numbers, and a tree of almost nothing that stands for 4 TB."""
    good = _written(".vdb")
    begin = good.index(b"Tree_float_5_4_3")
    table = good.index(b"\x07\0\0\0density")
    yield "10^9 grids", ".vdb", good[: table - 4] + struct.pack("<i", HUGE) + good[table:]
    yield "no grid", ".vdb", good[: table - 4] + struct.pack("<i", 0) + good[table:]
    offsets = begin + 16 + 4
    yield (
        "a table in a circle",
        ".vdb",
        _put(_put(good, table - 4, struct.pack("<i", 1000)), offsets, struct.pack("<3q", table, table, table)),
    )
    yield "offsets beyond", ".vdb", _put(good, offsets, struct.pack("<3q", 2**62, 2**62, 2**62))
    yield "metadata of 4 GB", ".vdb", _put(good, 61, struct.pack("<2I", 1, 2**32 - 1))
    yield "10^9 metadata", ".vdb", _put(good, 61, struct.pack("<I", HUGE))
    yield "version 9", ".vdb", _put(good, 8, struct.pack("<I", 9))
    yield "cut", ".vdb", good[: len(good) // 2]
    for name, resolution in (("10^9 voxels an edge", [HUGE] * 3), ("text", "abc"), ("negative", [-1, 4, 4])):
        found = json.dumps({"resolution_zyx": resolution}).encode()
        at = good.index(b"mnist3d\x06\0\0\0string") + 17
        length = struct.unpack("<I", good[at : at + 4])[0]
        yield f"resolution: {name}", ".vdb", good[:at] + struct.pack("<I", len(found)) + found + good[at + 4 + length :]
    yield "32^3 tiles a node, 200 nodes", ".vdb", _tiles(200, 4096 * 2)
    yield "tiles far away", ".vdb", _tiles(4, 2**30)
    yield "the same node 200 times", ".vdb", _tiles(200, 0)


def _put(content: bytes, at: int, part: bytes) -> bytes:
    return content[:at] + part + content[at + len(part) :]


def _tiles(nodes: int, apart: int) -> bytes:
    """Nodes without children, of 32^3 inactive tiles each, packed to almost nothing."""

    def text(value: str) -> bytes:
        return struct.pack("<I", len(value)) + value.encode()

    packed = zlib.compress(np.ones(32**3, "<f4").tobytes(), 9)
    node = bytes(2 * 4096) + b"\x06" + struct.pack("<q", len(packed)) + packed
    begin = struct.pack("<qIIIB", 0x56444220, 224, 10, 0, 1) + b"0" * 36 + struct.pack("<I", 0) + struct.pack("<i", 1)
    begin += text("density") + text("Tree_float_5_4_3") + text("")
    tree = struct.pack("<I", 1) + struct.pack("<I", 0) + text("ScaleMap") + np.ones(15).tobytes()
    tree += struct.pack("<IfII", 1, 0.0, 0, nodes)
    tree += b"".join(struct.pack("<3i", k * apart // 4096 * 4096 % 2**31, 0, 0) + node for k in range(nodes))
    place = len(begin) + 24
    return begin + struct.pack("<3q", place, place + len(tree), place + len(tree)) + tree


def of_safetensors() -> Iterator[Case]:
    """A volume file, with another header."""
    from mnist3d.volumes import VoxelGrid, volume_bytes

    good = volume_bytes(VoxelGrid(4))
    length = int.from_bytes(good[:8], "little")
    told = json.loads(good[8 : 8 + length])
    description = json.loads(told["__metadata__"]["mnist3d"])
    weights = good[8 + length :]

    def made(header: dict[str, Any], data: bytes = weights) -> bytes:
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    def described(**changed: Any) -> bytes:
        return made({**told, "__metadata__": {"mnist3d": json.dumps({**description, **changed})}})

    def arguments(**changed: Any) -> bytes:
        return described(init_args={**description["init_args"], **changed})

    for name, content in (
        ("init_args a list", described(init_args=[1, 2])),
        ("init_args deep", described(init_args={"resolution": _deep(50)})),
        ("step a text", described(step="many")),
        ("step endless", described(step=math.inf)),
        ("renderer nonsense", described(renderer=[1])),
        ("class a module", described(class_path="os.system")),
        ("class long", described(class_path="mnist3d.volumes." + "V" * 10**5)),
        ("class null", described(class_path=None)),
        ("version text", described(format_version="1")),
        ("resolution 1024", arguments(resolution=1024)),
        ("resolution 10^18", arguments(resolution=10**18)),
        ("resolution NaN", arguments(resolution=math.nan)),
        ("resolution text", arguments(resolution="4")),
        ("resolution true", arguments(resolution=True)),
        ("10^5 growths", arguments(grow_at=[k / 10**5 for k in range(10**5)])),
        ("pyramid of text", arguments(pyramid=["a"])),
        ("10^9 levels", described(class_path="mnist3d.volumes.HashGrid", init_args={"num_levels": HUGE})),
        ("tables of 2^24", described(class_path="mnist3d.volumes.HashGrid", init_args={"log2_hashmap_size": 24})),
        ("unknown argument", arguments(shell="rm")),
        ("deep JSON", made({**told, "__metadata__": {"mnist3d": "[" * 10**6}})),
        ("metadata no JSON", made({**told, "__metadata__": {"mnist3d": "{"}})),
        ("digits", made({**told, "__metadata__": {"mnist3d": '{"format_version": ' + "9" * 10**6 + "}"}})),
        ("header of 99 MB", struct.pack("<Q", 99_000_000) + b" " * 99_000_000),
        ("header of 2^63", struct.pack("<Q", 2**63) + b"{}"),
        ("100,000 tensors", made({"__metadata__": told["__metadata__"], **{
            f"t{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(100_000)}}, b"")),
        ("shape of 10^27", made({**told, "bias": {"dtype": "F32", "shape": [HUGE] * 3, "data_offsets": [0, 8]}})),
        ("empty tensors", save({"bias": torch.zeros(0), "levels.0": torch.zeros(2, 0, 4, 4)}, told["__metadata__"])),
    ):  # fmt: skip
        yield name, ".safetensors", content
    from safetensors import safe_open  # noqa: F401 (imported before it is measured)
    from safetensors.torch import load

    tensors = load(good)
    for dtype in (torch.int64, torch.bool, torch.float8_e4m3fn, torch.complex64):
        other = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        yield f"weights of {dtype}", ".safetensors", save(other, told["__metadata__"])


def _deep(levels: int) -> Any:
    return [_deep(levels - 1)] if levels else 1


class _Call:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def of_pt() -> Iterator[Case]:
    """The first 3DMNIST's volume.pt."""
    shape = (N, N, N, 1)
    good = {name: torch.zeros(shape) for name in ("attenuation", "absorbance")}
    endless = torch.zeros(1).expand(1024, 1024, 1024, 1)

    def saved(content: Any, **options: Any) -> bytes:
        file = io.BytesIO()
        torch.save(content, file, **options)
        return file.getvalue()

    def repacked(content: bytes, change: Callable[[str, bytes], bytes], how: int = zipfile.ZIP_STORED) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", how) as new:
            for name in old.namelist():
                new.writestr(name, change(name, old.read(name)))
        return file.getvalue()

    def claims(name: str, part: bytes) -> bytes:  # numbers of the storage, in the pickle: 216 is a byte
        return part.replace(b"K\xd8", b"J\xff\xff\xff\x7f") if name.endswith(".pkl") else part

    yield "a view of one number", ".pt", saved({"attenuation": endless, "absorbance": endless})
    yield "a bytearray of 10^10", ".pt", saved({"attenuation": _Call(bytearray, 10**10), "absorbance": 0})
    yield "a call", ".pt", saved({"attenuation": _Call(os.mkdir, "harmed"), "absorbance": 0})
    yield "an old call", ".pt", pickle.dumps(_Call(os.mkdir, "harmed"))
    yield "storages of 2^31", ".pt", repacked(saved(good), claims)
    bigger = {name: torch.zeros(2**27, 1, 1, 1) for name in good}
    yield "packed, 1 GB", ".pt", repacked(saved(bigger), lambda _, part: part, zipfile.ZIP_DEFLATED)
    yield (
        "old storages of 2^31",
        ".pt",
        saved(good, _use_new_zipfile_serialization=False).replace(b"K\xd8", b"J\xff\xff\xff\x7f"),
    )
    yield "text of 4 GB", ".pt", b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a" * 1000
    yield (
        "deep",
        ".pt",
        repacked(
            saved(good),
            lambda name, part: b"\x80\x02" + b"(" * 10**5 + b"t" * 10**5 + b"." if name.endswith(".pkl") else part,
        ),
    )
    yield "sparse", ".pt", saved({name: torch.zeros(N, N, N, 1).to_sparse() for name in good})
    yield "cut", ".pt", saved(good)[:500]
    yield "2 GB of nothing", ".pt", partial(hole, b"PK\x03\x04", 2**31, b"")


def of_places() -> Iterator[Case]:
    """What is no file, under each name that is read."""
    for suffix in (*SUFFIXES, ".safetensors", ".pt"):
        yield "a pipe", suffix, os.mkfifo
        yield "a folder", suffix, Path.mkdir
        yield "a device", suffix, lambda path: path.symlink_to("/dev/zero")
        yield "empty", suffix, b""
    for suffix in (".nrrd", ".nii.gz", ".mrc", ".npy"):
        yield "a pipe as absorbance", suffix, partial(_beside, suffix)


def _beside(suffix: str, path: Path) -> None:
    path.write_bytes(next(files_of(READERS_OF[suffix])))
    os.mkfifo(path.with_name(f"{path.name.removesuffix(suffix)}_absorbance{suffix}"))


SUFFIXES = (".npz", ".npy", ".nrrd", ".nhdr", ".nii", ".nii.gz", ".hdr", ".img", ".mrc", ".mrc.gz", ".vti", ".vdb")
READERS_OF = {".nrrd": "nrrd", ".nii.gz": "nii.gz", ".mrc": "mrc", ".npy": "npy"}
CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "npy": of_npy, "npz": of_npz, "nrrd": of_nrrd, "nii": of_nii, "mrc": of_mrc, "vti": of_vti, "vdb": of_vdb,
    "safetensors": of_safetensors, "pt": of_pt, "places": of_places,
}  # fmt: skip


def _written(suffix: str) -> bytes:
    import tempfile

    from mnist3d.export import export_voxels

    with tempfile.TemporaryDirectory() as folder:
        return export_voxels(np.stack([GRID, GRID / 3.0]), Path(folder) / f"a{suffix}").read_bytes()


def files_of(reader: str) -> Iterator[bytes]:
    """Small valid files, to be mutated."""
    raw = GRID.tobytes()
    if reader == "npy":
        yield npy((6, 6, 6), data=raw)
        yield npy((2, 6, 6, 3), "<i4", bytes(864), fortran=True)
    elif reader == "nrrd":
        yield nrrd(
            raw, space="left-posterior-superior", space_directions="(1,0,0) (0,1,0) (0,.5,1)", kinds="domain " * 3
        )
        yield nrrd(gzip.compress(raw), encoding="gzip", spacings="1 2 3")
        yield nrrd(b"1 2.5 3e4 " * 9, encoding="ascii", sizes="3 3 3")
        yield nrrd(bz2.compress(raw), encoding="bzip2", axis_mins="0 0 0", axis_maxs="1 1 1")
    elif reader == "nii":
        yield nifti() + raw
        yield nifti((6, 6, 6, 1)) + raw
    elif reader == "nii.gz":
        yield gzip.compress(nifti() + raw)
    elif reader == "hdr":
        yield nifti()
    elif reader == "mrc":
        yield mrc() + raw
        yield mrc((6, 6, 6), mode=1, order=">", stamp=b"\x11\x11\0\0") + raw
    elif reader == "map.gz":
        yield gzip.compress(mrc() + raw)
    elif reader == "vti":
        at = '<DataArray type="Float32" Name="a" format="appended" offset="0"/>'
        yield vti(at, more='header_type="UInt64"', tail=appended(struct.pack("<Q", 864), raw))
        packed = zlib.compress(raw)
        table = struct.pack("<4I", 1, 864, 0, len(packed))
        yield vti(at, more='compressor="vtkZLibDataCompressor"', tail=appended(table, packed))
        yield vti(f'<DataArray type="Int16" Name="a" format="ascii">{"1 2 3 " * 72}</DataArray>')
    elif reader in ("vdb", "npz"):
        yield _written(f".{reader}")
    elif reader == "safetensors":
        from mnist3d.volumes import HashGrid, VoxelGrid, volume_bytes

        yield volume_bytes(VoxelGrid(4))
        yield volume_bytes(HashGrid(num_levels=2, log2_hashmap_size=4, max_resolution=8, hidden_dim=2))
    elif reader == "pt":
        for new in (True, False):
            file = io.BytesIO()
            content = {name: torch.zeros(3, 3, 3, 1) for name in ("attenuation", "absorbance")}
            torch.save(content, file, _use_new_zipfile_serialization=new)
            yield file.getvalue()
