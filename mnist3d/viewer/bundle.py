"""The page as one text: `page/index.html` with its style and its scripts inside, so that one answer is all of it."""

import re
from importlib import resources

_STYLE = re.compile(r'<link rel="stylesheet" href="([a-z]+\.css)">')
_SCRIPT = re.compile(r'<script src="([a-z]+\.js)"></script>')


def page_bytes() -> bytes:
    """What a browser gets."""
    folder = resources.files(__package__ or "").joinpath("page")

    def text(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    page = _STYLE.sub(lambda found: f"<style>\n{text(found[1])}</style>", text("index.html"))
    return _SCRIPT.sub(lambda found: f"<script>\n{text(found[1])}</script>", page).encode()
