"""Ways to damage a file: what each returns is written in its place. Seeded; none needs to know much of a format."""

import gzip
import io
import json
import os
import random
import re
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

NUMBERS = [0, 1, -1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 10**6, 10**9, -(2**31)]
WORDS = [
    "-1",
    "0",
    "1e999",
    "-1e400",
    "NaN",
    ".nan",
    "Infinity",
    "9" * 30,
    "2147483648",
    "1000000000",
    "9223372036854775808",
]
WORDS += [
    "0.5",
    "[]",
    '"x"',
    "null",
    "true",
    "{}",
    "../../x",
    "/dev/zero",
    "pipe",
    "os.system",
    "\u202e",
    "é" * 300,
    "\\u0000",
]
WORDS += [
    "2024-01-01",
    "1:30",
    "!!python/object/apply:os.system [touch harmed]",
    "*a",
    "0.0.0.0",
    "1e-320",
    "4294967296",
]
PIECE = 2**26  # bytes of zeros that are packed once and repeated
BOMB = 2**31  # bytes that a bomb unpacks to: twice the bound on memory
HEAD = 600  # bytes at the start that hold the header of most formats


def flipped(draw: random.Random, content: bytes) -> bytes:
    """A few bytes are others."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 16)):
        if changed:
            place = draw.randrange(min(len(changed), draw.choice([HEAD, len(changed)])))
            changed[place] = draw.randrange(256)
    return bytes(changed)


def cut(draw: random.Random, content: bytes) -> bytes:
    """The end is missing, or all."""
    return content[: draw.choice([0, 1, draw.randrange(len(content) + 1), draw.randrange(min(len(content), HEAD) + 1)])]


def repeated(draw: random.Random, content: bytes) -> bytes:
    """A piece stands there many times."""
    begin = draw.randrange(len(content) + 1)
    piece = content[begin : begin + draw.randint(1, 200)]
    return content[:begin] + piece * draw.choice([2, 10, 1000]) + content[begin:]


def overwritten(draw: random.Random, content: bytes) -> bytes:
    """A piece is zeros, ones or noise."""
    begin = draw.randrange(len(content) + 1)
    length = draw.randint(1, 400)
    fill = draw.choice([bytes(length), b"\xff" * length, draw.randbytes(length)])
    return content[:begin] + fill + content[begin + length :]


def numbers_changed(draw: random.Random, content: bytes) -> bytes:
    """Whole numbers at places where headers have them."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        size, order = draw.choice([2, 4, 4, 8]), draw.choice("<>")
        if len(changed) < size:
            break
        begin = draw.randrange(
            0, min(len(changed) - size, HEAD) + 1, draw.choice([1, 2, 4]) if len(changed) > 16 else 1
        )
        value = draw.choice(NUMBERS) % 2 ** (8 * size)
        changed[begin : begin + size] = struct.pack(order + {2: "H", 4: "I", 8: "Q"}[size], value)
    return bytes(changed)


def words_changed(draw: random.Random, content: bytes) -> bytes:
    """Numbers and words of a text are others."""
    found = list(re.finditer(rb"-?[0-9][0-9.e+-]*|[A-Za-z_]{2,}", content[:20000]))
    for each in sorted(draw.sample(found, min(len(found), draw.randint(1, 3))), key=lambda each: -each.start()):
        content = content[: each.start()] + draw.choice(WORDS).encode() + content[each.end() :]
    return content


def lines_changed(draw: random.Random, content: bytes) -> bytes:
    """Lines of a text are missing, doubled, exchanged, in another encoding or very deep."""
    lines = content.split(b"\n")
    place = draw.randrange(len(lines))
    deep = draw.choice([b"[" * 100_000, b'{"a":' * 50_000, b"- " * 50_000, b"? " * 30_000, b"x" * 10**6])
    laughs = b"\n".join(b"k%d: &k%d [%s]" % (n, n, b", ".join([b"*k%d" % (n - 1)] * 9)) for n in range(1, 12))
    what = draw.randrange(8)
    if what == 0:
        del lines[place]
    elif what == 1:
        lines.insert(place, lines[draw.randrange(len(lines))])
    elif what == 2:
        draw.shuffle(lines)
    elif what == 3:
        return content.decode("utf-8", "replace").encode(draw.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7"]))
    elif what == 4:
        lines[place] = deep
    elif what == 5:
        lines.insert(0, b"k0: &k0 [lol]\n" + laughs)
    elif what == 6:
        lines[place] += b" \xff\xfe\x00"
    else:
        lines[place] = lines[place].partition(b":")[0] + b": " + deep
    return b"\n".join(lines)


PLAIN: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bytes flipped": flipped,
    "cut short": cut,
    "a piece repeated": repeated,
    "a piece overwritten": overwritten,
    "numbers in the header": numbers_changed,
    "words and numbers": words_changed,
}
OF_TEXT = {**PLAIN, "lines": lines_changed}


def inside(draw: random.Random, content: bytes) -> bytes:
    """What an archive holds is damaged, and packed again: the damage lies behind all checksums."""
    change = draw.choice(list(PLAIN.values()))
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(change(draw, gzip.decompress(content)), 1)
    if content[:4] == b"PK\3\4":
        return zipped(content, change, draw)
    length = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and length < len(content):  # safetensors
        header = draw.choice([words_changed, json_changed, json_changed])(draw, content[8 : 8 + length])
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    return change(draw, content)


def zipped(content: bytes, change: Callable[[random.Random, bytes], bytes], draw: random.Random) -> bytes:
    """A zip archive with one member damaged."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            held = old.read(name)
            new.writestr(name, change(draw, held) if name == chosen else held)
    return buffer.getvalue()


def json_changed(draw: random.Random, content: bytes) -> bytes:
    """A value somewhere in a JSON object is another; JSON in a text too, as in the metadata of a volume."""
    values = json.loads(content)
    place = values
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = draw.choice(keys)
        held = place[key]
        if isinstance(held, str) and held[:1] == "{":
            place[key] = json_changed(draw, held.encode()).decode()
            break
        if not isinstance(held, dict | list) or not held or draw.random() < 0.2:
            wrong = [
                -1,
                10**9,
                2**63,
                1e308,
                float("nan"),
                None,
                True,
                "x",
                "",
                [],
                {},
                [[]] * 50,
                {"a": {"b": 1}},
                "é" * 500,
            ]
            place[key] = draw.choice([*wrong, [held] * 1000])
            break
        place = held
    return json.dumps(values).encode()


def bomb(content: bytes) -> bytes:
    """As small as the file was, and gigabytes once it is unpacked; of a format that packs nothing, a long file."""
    if content[:2] == b"\x1f\x8b":
        start = gzip.compress(gzip.decompress(content)[:HEAD], 1)
        return start + _zeros_in_gzip() * (BOMB // PIECE)
    if content[:4] == b"PK\3\4":
        return _zip_bomb(content)
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return _png_bomb()
    if b"encoding: gzip" in content[:HEAD]:
        header, end, body = content.partition(b"\n\n")
        return header + end + gzip.compress(gzip.decompress(body)[:64], 1) + _zeros_in_gzip() * (BOMB // PIECE)
    return content[:HEAD]  # followed by a hole: see `write`


@cache
def _zeros_in_gzip() -> bytes:
    return gzip.compress(bytes(PIECE), 1)


def _zeros_deflated(size: int) -> bytes:
    """A raw deflate stream of zeros."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * (size // PIECE) + packer.flush()


def _zip_bomb(content: bytes) -> bytes:
    """One member unpacks to `BOMB` bytes: its own start, and zeros; `zipfile` would pack them all."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        held = {name: old.read(name) for name in old.namelist()}
    largest = max(held, key=lambda name: len(held[name]))
    buffer, central = io.BytesIO(), b""
    for name, member in held.items():
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        packed, size, check = packer.compress(member), len(member), zlib.crc32(member)
        if name == largest:
            packed += packer.flush(zlib.Z_FULL_FLUSH) + _zeros_deflated(BOMB)
            size += BOMB
            for _ in range(BOMB // PIECE):
                check = zlib.crc32(bytes(PIECE), check)
        else:
            packed += packer.flush()
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, check, len(packed), size, len(name.encode()), 0)
        central += (
            b"PK\1\2"
            + struct.pack("<H", 20)
            + fields
            + struct.pack("<HHHII", 0, 0, 0, 0, buffer.tell())
            + name.encode()
        )
        buffer.write(b"PK\3\4" + fields + name.encode() + packed)
    begins = buffer.tell()
    buffer.write(central + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, len(held), len(held), len(central), begins, 0))
    return buffer.getvalue()


def _png_bomb(edge: int = 32768) -> bytes:
    """A picture of a gigabyte of black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0))
    size = -(-edge * (edge + 1) // PIECE) * PIECE
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"\x78\x01" + _zeros_deflated(size)) + chunk(b"IEND", b"")


def no_file(draw: random.Random, path: Path) -> str:
    """Something else of that name; what it is."""
    path.unlink()
    kind = draw.choice(
        ["pipe", "socket", "folder", "to a pipe", "to /dev/zero", "to a folder", "to itself", "to nothing"]
    )
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        before = os.getcwd()
        os.chdir(path.parent)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
        os.chdir(before)
    elif kind == "folder":
        path.mkdir()
    else:
        beside = path.parent / "pipe beside"
        os.mkfifo(beside)
        targets = {"to a pipe": beside, "to /dev/zero": "/dev/zero", "to a folder": "/usr", "to itself": path.name}
        path.symlink_to(targets.get(kind, "nowhere"))
    return kind


def damage(draw: random.Random, path: Path, kind: str, others: dict[str, bytes]) -> str:
    """Put something hostile in the place of a file; what was done, in words.

    Args:
        draw: decides.
        path: of the valid file.
        kind: of `KINDS`.
        others: contents of other valid files, by their name.
    """
    if kind == "no file":
        return no_file(draw, path)
    content = path.read_bytes()
    if kind == "another kind of file":
        name = draw.choice([name for name in sorted(others) if name != path.name])
        path.write_bytes(others[name])
        return f"holds {name}"
    if kind == "bomb":
        changed = bomb(content)
        path.write_bytes(changed)
        if len(changed) <= HEAD:
            with open(path, "r+b") as file:
                file.truncate(BOMB)  # a hole: no byte of it is on the disk
        return f"unpacks or goes on to {BOMB >> 20} MiB"
    if kind == "inside":
        changed = inside(draw, content)
    else:
        kinds = PLAIN if b"\0" in content else OF_TEXT
        kind = draw.choice(list(kinds))
        changed = kinds[kind](draw, content)
    path.write_bytes(changed)
    return f"{kind}: {len(content)} -> {len(changed)} bytes"


KINDS = {"damaged": 6, "inside": 6, "bomb": 2, "another kind of file": 1, "no file": 2}  # and how often of 17
