"""Rules about README.md and docs/: each takes pages, and says what is wrong in a line each; none reads the network."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

# Those of mkdocs.yml that decide what is a heading, a table or code.
EXTENSIONS = ["tables", "fenced_code", "toc"]
# How a line begins that GitHub takes for a list or a table, and that is plain text to mkdocs after a paragraph.
LOOSE = re.compile(r"[-*+] |\d+\. |\|")
NAMED_FILE = re.compile(r"(?:benchmarks|configs|docs|mnist3d|notebooks|research|tests|tools)/[\w./-]+\.\w+")
LOADS = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
# What Material writes into each page as an address that no browser fetches.
NO_REQUEST = ("canonical", "next", "prev", "alternate")


@dataclass
class Page:
    """What a Markdown file holds, as both GitHub and mkdocs understand it.

    Args:
        path: of the file.
        anchors: what a link can name behind `#`, on GitHub and on the site alike.
        links: of text and of images, as written.
        blocks: of code.
        spans: code within a line.
        loose: lines that only GitHub takes for a list or a table.
    """

    path: Path
    anchors: set[str]
    links: list[str]
    blocks: list[str]
    spans: list[str]
    loose: list[str]


def read_page(path: Path) -> Page:
    """A Markdown file, taken apart."""
    import markdown  # comes with mkdocs; only who tests the docs needs it

    reader = _Reader()
    reader.feed(markdown.markdown(path.read_text(encoding="utf-8"), extensions=EXTENSIONS))
    found, seen = set(reader.ids), []
    for anchor, heading in reader.headings:
        seen.append(github_anchor(heading))
        if anchor != seen[-1] or seen.count(anchor) > 1:
            found.discard(anchor)
    loose = [line for text in reader.paragraphs for line in text.splitlines()[1:] if LOOSE.match(line.strip())]
    return Page(path, found, reader.links, reader.blocks, reader.spans, loose)


def github_anchor(heading: str) -> str:
    """What GitHub names a heading by: lower case, hyphens for spaces, all other marks dropped."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def wrong_links(pages: Sequence[Page], docs: Path) -> list[str]:
    """Links that lead nowhere.

    Args:
        pages: all of them; a link to one of these may name an anchor.
        docs: the folder that becomes the site; a page in it can link only to what is in it.
    """
    by_path = {page.path.resolve(): page for page in pages}
    wrong = []
    for page in pages:
        for link in page.links:
            reason = _wrong_link(page, link, by_path, docs.resolve())
            if reason:
                wrong.append(f"{page.path.name}: {link}: {reason}")
    return wrong


def _wrong_link(page: Page, link: str, by_path: dict[Path, Page], docs: Path) -> str:
    try:
        parts = urlsplit(link)
    except ValueError:
        return "is no address"
    if parts.scheme or parts.netloc:
        return "" if re.fullmatch(r"https?://(?:[\w-]+\.)+[a-z]{2,}(?::\d+)?(?:/\S*)?", link) else "is no address"
    target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path.resolve()
    if link.startswith("/"):
        return "begins at the root, which is another one on GitHub and on the site"
    if not target.exists():
        return "no such file"
    if page.path.resolve().is_relative_to(docs) and not target.is_relative_to(docs):
        return "is not in docs/, so the site does not have it; name the file without a link"
    if parts.fragment and (target not in by_path or parts.fragment not in by_path[target].anchors):
        return "no such heading"
    return ""


def wrong_names(page: Page, root: Path) -> list[str]:
    """Files of the repository that a page names and that there are not; NAME in capitals stands for any."""
    named = [name for text in page.spans + page.blocks for name in NAMED_FILE.findall(text)]
    return [
        f"{page.path.name}: there is no {name}"
        for name in dict.fromkeys(named)
        if not re.search(r"\b[A-Z]+\b", Path(name).stem) and not (root / name).exists()
    ]


def loose_lines(page: Page) -> list[str]:
    """Lists and tables without an empty line before them, which mkdocs shows as one paragraph."""
    return [f"{page.path.name}: an empty line is missing above: {line.strip()[:60]}" for line in page.loose]


def wrong_nav(settings: Path) -> list[str]:
    """Pages that mkdocs.yml does not list, and the other way round."""
    values = yaml.safe_load(settings.read_text(encoding="utf-8"))
    docs, listed = settings.parent / values["docs_dir"], list(_leaves(values["nav"]))
    there = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    return [
        *(f"{name}: in docs/, not in the nav of mkdocs.yml" for name in there if name not in listed),
        *(f"{name}: in the nav of mkdocs.yml, not in docs/" for name in listed if name not in there),
        *(f"{name}: twice in the nav of mkdocs.yml" for name in sorted(set(listed)) if listed.count(name) > 1),
    ]


def _leaves(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
        return
    for each in tree.values() if isinstance(tree, dict) else tree:
        yield from _leaves(each)


def requests(site: Path) -> list[str]:
    """What a browser would fetch from elsewhere for the pages of a built site."""
    found = []
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text = path.read_text(encoding="utf-8")
        reader = _Requests()
        reader.feed(text if path.suffix == ".html" else "")
        styles = text if path.suffix == ".css" else " ".join(reader.styles)
        found += [f"{path.relative_to(site)}: {address}" for address in reader.addresses]
        found += [
            f"{path.relative_to(site)}: {address}"
            for address in re.findall(r"""(?:url\(|@import )\s*["']?((?:https?:)?//[^)"'\s]+)""", styles)
        ]
    return found


class _Requests(HTMLParser):
    """Addresses on other servers that a page loads something from, and its own styles."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self.in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get(LOADS.get(tag, "")) or ""
        if re.match(r"(?:https?:)?//", address) and given.get("rel") not in NO_REQUEST:
            self.addresses.append(address)
        self.in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.styles.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.in_style = False


@dataclass
class _Open:
    """An element that is not closed yet."""

    tag: str
    anchor: str
    text: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    """Headings, links, code and paragraphs of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.blocks: list[str] = []
        self.spans: list[str] = []
        self.paragraphs: list[str] = []
        self.open: list[_Open] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("href", "src") if name in given]
        if re.fullmatch(r"h\d|p|pre|code", tag):
            self.open.append(_Open(tag, given.get("id", "")))

    def handle_data(self, data: str) -> None:
        code = any(each.tag == "code" for each in self.open)
        for each in self.open:
            each.text.append("code" if code and each.tag == "p" else data)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1].tag != tag:
            return
        done = self.open.pop()
        text = "".join(done.text)
        if tag == "code":
            if any(each.tag == "pre" for each in self.open):
                self.blocks.append(text)
            else:
                self.spans.append(" ".join(text.split()))  # it may be broken across two lines
        elif tag == "p":
            self.paragraphs.append(text)
        elif tag != "pre":
            self.headings.append((done.anchor, text))
