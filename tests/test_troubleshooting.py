"""Messages that docs/troubleshooting.md quotes (bold code, `...` for what differs) are those of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
QUOTE = re.compile(r"\*\*`([^`]+)`")
BLANK = "\0"  # stands for a value in a message of the code


def messages(source: str) -> Iterator[str]:
    """Every text of a source, the values in it blank."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else BLANK for part in node.values)  # type: ignore
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_quoted_from(quote: str, texts: list[str]) -> bool:
    """Whether a text holds what the quote says: the same words in the same order, with values where it has `...`."""
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in quote.split("...")))
    return any(pattern.search(text) for text in texts)


def code() -> list[str]:
    sources = sorted((ROOT / "mnist3d").rglob("*.py"))
    return [" ".join(text.split()) for source in sources for text in messages(source.read_text(encoding="utf-8"))]


def test_every_quoted_message_is_one_of_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quotes = [" ".join(quote.split()) for quote in QUOTE.findall(page)]
    assert len(quotes) > 15
    texts = code()
    assert [quote for quote in quotes if not is_quoted_from(quote, texts)] == []


def test_a_message_that_there_is_not_is_noticed():
    texts = [*messages('print(f"port={port}: neither it nor the next {n} are free")')]
    assert is_quoted_from("port=...: neither it nor the next ... are free", texts)
    assert not is_quoted_from("port=...: neither it nor the next ... are taken", texts)
    assert not is_quoted_from("neither it are free ... port=", texts)
