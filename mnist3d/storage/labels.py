"""Names as labels inside files: a run, a class or a title can be of any script, what a format holds may not.

Text -> text that a format or a font's library takes. True names stand in the .json beside each file.
"""

import unicodedata

# Control characters, bytes of a file name that were no text (lone surrogates), separators of lines and paragraphs.
ESCAPED = ("Cc", "Cs", "Zl", "Zp")
TURNED = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # would show what follows in another order


def printable(text: str) -> str:
    r"""The text in one line and in any script; what no reader of text takes is written as \n, \x1b or \udcff."""
    return "".join(_escape(each) if _misleads(each) else each for each in text)


def ascii_label(text: str, most: int) -> str:
    r"""The text for a header of so many ASCII characters: others are written as \xf6 or \u4e2d, as in the .json.

    Escaped and not transliterated: Greek and Chinese keep no less than German does, and no two names become one.

    Args:
        text: a name, of any script.
        most: characters, at least 3; a longer label ends in ..., never in half an escape.
    """
    parts = [_escape(each) if not each.isascii() else printable(each) for each in text]
    if sum(map(len, parts)) <= most:
        return "".join(parts)
    while sum(map(len, parts)) > most - 3:
        parts.pop()
    return f"{''.join(parts)}..."


def _misleads(character: str) -> bool:
    return unicodedata.category(character) in ESCAPED or unicodedata.bidirectional(character) in TURNED


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
