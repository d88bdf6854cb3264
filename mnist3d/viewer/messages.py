"""What goes over the wire, both ways.

page -> viewer    JSON text: {"view": {...}, "received": n, "do": "pause", ...}, every key optional
viewer -> page    bytes: 4 (length of the header, big endian), header (JSON), image (PNG) if any
"""

import io
import json
import struct
from dataclasses import dataclass
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from .scene import View

ACTIONS = ("pause", "resume", "stop", "train", "download")  # they change the run, or take something away
COMMANDS = (*ACTIONS, "open", "scenes")


@dataclass(frozen=True)
class Request:
    """What a page said.

    Args:
        view: the newest view that it wants, or None.
        received: messages of ours that arrived since it last spoke.
        command: one of `COMMANDS`, or None.
        argument: of the command: a scene's or a file's name.
    """

    view: View | None = None
    received: int = 0
    command: str | None = None
    argument: str = ""


def parse_request(text: str | bytes) -> Request:
    """What a page sent.

    Raises:
        ValueError: it is no such message.
    """
    if not isinstance(text, str):
        raise ValueError("a message must be text")
    try:
        message = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("a message must be an object")
    received, command, argument = message.get("received", 0), message.get("do"), message.get("name", "")
    if not isinstance(received, int) or not 0 <= received <= 1000:
        raise ValueError("received must be a small number")
    if command is not None and command not in COMMANDS:
        raise ValueError("unknown command")
    if not isinstance(argument, str):
        raise ValueError("name must be text")
    view = View.from_message(message["view"]) if "view" in message else None
    return Request(view, received, command, argument)


def pack(header: dict[str, Any], image: UInt8[ndarray, "..."] | None = None) -> bytes:
    """A message to a page."""
    head = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    body = b"" if image is None else png(image)
    return struct.pack(">I", len(head)) + head + body


def png(image: UInt8[ndarray, "..."]) -> bytes:
    """Grey (H, W) or colours (H, W, 3) as PNG: without loss, and packed in little time rather than little room."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
