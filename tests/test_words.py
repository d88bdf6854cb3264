"""The words: none of the old ones is left where a user or a developer reads, and docs/conventions.md lists them all.

`CHANGELOG.md` and `research/` keep the words of their day, and so does the table at the end of `docs/conventions.md`.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mnist3d.cli.program import COMMANDS, run_command
from mnist3d.runs.version_0_1 import MOVED

ROOT = Path(__file__).parent.parent
TABLE = "## Old names"


@dataclass(frozen=True)
class Word:
    """A word that is not used any more.

    Args:
        old: as the table in docs/conventions.md names it.
        new: what is said instead.
        pattern: finds it, in any case.
        caught: sentences with the word.
        passed: sentences that are in order, though they come close.
    """

    old: str
    new: str
    pattern: str
    caught: tuple[str, ...]
    passed: tuple[str, ...] = ()


WORDS = (
    Word(
        "judge",
        "evaluation classifier",
        r"\bjudg(e|es|ed|ing|ement|ements|ments?)\b",
        ("the less sure judge", "it judges nothing", "trains the judges, once", "JUDGED at once"),
        ("scorecard.train_judges", "the evaluation classifiers agree"),
    ),
    Word("counterexample", "negative", r"\bcounter-?examples?\b", ("the counterexamples", "a counter-example")),
    Word("critic", "discriminator", r"\bcritics?\b", ("The critic of WGAN",), ("a critical path",)),
    Word(
        "pull",
        "nearest-image loss",
        r"\b(the|a|weighted|first) pull\b(?! request)|\bpull(s|ed|ing)?( back)? (to|towards?|at|on the)\b",
        ("before the pull begins", "views are pulled towards real ones", "the weighted pull", "nothing pulls at it"),
        ("open a pull request", "mlxtend pulls in pandas", "a long arrow pulls on its way", "pip install pulls it"),
    ),
    Word(
        "price",
        "class weight, class balance",
        r"(?<!at the )\bpric(e|es|ed|ing)\b",
        ("the prices so far", "a finite price", "a class is priced"),
        ("at the price of memory", "a precise number"),
    ),
    Word(
        "law",
        "pose distribution",
        r"(?<!Lambert )(?<!Lambert's )\blaws?\b(?! of Beer)",
        ("of each pose law", "drawn from the sphere's law", "two laws"),
        ("the Beer-Lambert law", "Lambert's law", "the law of Beer and Lambert", "outlawed"),
    ),
    Word("the seed's law", "`euler_normal`", r"\bseed's law\b", ("default the seed's law",)),
    Word(
        "share of a run",
        "progress",
        r"\bshares? of (a|the|its|every) run\b(?! that is done)",
        ("ascending shares of the run", "at this share of a run"),
        ("progress: share of the run that is done", "a share of the views of a run"),
    ),
    Word(
        "through, durch (of two numbers)",
        "ratio to",
        r"\bthrough (that|those) of\b|\btimes? through\b|\bdurch\b",
        ("the resolution through that of the one before", "one time through the other's", "acht durch zwei"),
        ("rays pass through the grid", "looks through all of a class", "frames go through a pipe"),
    ),
    Word("will not do", "invalid value", r"\b(will not|won't) do\b", ("its name will not do",), ("it will not start",)),
    Word("allowed are", "must be", r"\ballowed (are|is)\b", ("allowed are a, b", "allowed is [0, 1]"), ("is allowed",)),
    Word(
        "picture (of the data)",
        "image",
        r"\b(real|training|held-out|labelled|unlabelled|given|MNIST's|your|these) pictures?\b",
        ("5,000 real pictures", "unlabelled pictures", "these pictures have no classes"),
        ("the run's images", "in `pictures/reals.png`"),
    ),
    Word(
        "picture (of the volume)",
        "view",
        r"\bpictures?\b",
        ("the differentiable picture of a volume", "rendered pictures"),
        ("Sculpt a 3D object out of 2D pictures.", "runs/NAME/pictures/views.png", "a uint8 picture"),
    ),
)

# Where "picture" is the right word: a file that a person looks at, or the project's own line.
PICTURE_FILES = {
    r"2D pictures\b": "the project's line",
    r"`?pictures/\w*|\bpictures are in `runs|`pictures`": "the folder of a run",
    r"\bpicture of forty views|40 views as one picture|it is a picture; give a name": "the file of view --snapshot",
    r"\bfigures, pictures\b|\bdictionaries and pictures\b|: progress, pictures, files": "what a run writes",
    r"\buint8 pictures?\b|\bwritten as pictures\b": "what is written as PNG",
    r"\bpictures that (people look at|show them)": "the view atlas and the turntable, beside numbers",
    r"\bNo picture of it\b": "what a notebook shows",
    r"\bpicture image pictures images\b": "the old keys of targets, which are refused in one line",
}


def left_in(text: str) -> list[str]:
    """The old words in a text, each with what surrounds it."""
    text = " ".join(text.split())
    for exempt in PICTURE_FILES:
        text = re.sub(exempt, "", text)
    return [
        f"{word.old}: ... {text[max(0, found.start() - 40) : found.end() + 40]} ..."
        for word in WORDS
        for found in re.finditer(word.pattern, text, re.IGNORECASE)
    ]


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """What a person reads in a file, in pieces: the comments and strings of Python, each paragraph of anything else."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _texts_of_python(source)
        return
    if path.name == "conventions.md":
        source, _, _ = source.partition(TABLE)
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", source):
        yield line, re.sub(r"^\s*#", "", paragraph, flags=re.MULTILINE) if path.suffix == ".yaml" else paragraph
        line += paragraph.count("\n")


def _texts_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Comments on lines that follow each other, and strings that stand beside each other, are one text."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    pieces: list[tuple[int, int, str]] = []  # first line, last line, text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in kinds:
            continue
        text = token.string.lstrip("#") if token.type == tokenize.COMMENT else _without_quotes(token.string)
        if pieces and token.start[0] <= pieces[-1][1] + 1:
            first, _, before = pieces.pop()
            pieces.append((first, token.end[0], f"{before}{'' if before.endswith(' ') else ' '}{text}"))
        else:
            pieces.append((token.start[0], token.end[0], text))
    yield from ((first, text) for first, _, text in pieces)


def _without_quotes(literal: str) -> str:
    try:
        return str(ast.literal_eval(literal))
    except (ValueError, SyntaxError):  # an f-string, or a part of one
        return literal.strip("\"'")


def read_by_people() -> list[Path]:
    """Every file whose words are checked."""
    patterns = ("README.md", "docs/**/*.md", "configs/*.yaml", "mnist3d/**/*.py", "tools/*.py", "train.py")
    pages = ("inference.py", "mnist3d/viewer/page/*.*", "mnist3d/export/page.html")
    return sorted(path for pattern in (*patterns, *pages) for path in ROOT.glob(pattern))


def rows(heading: str) -> list[tuple[str, str]]:
    """The rows of the first table below a heading of docs/conventions.md."""
    below = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8").partition(f"{heading}\n")[2]
    table = re.search(r"\|-+\|-+\|\n((?:\|.*\|\n?)+)", below)
    assert table is not None, heading
    cells = [re.split(r"\s*(?<!\\)\|\s*", line.strip())[1:3] for line in table[1].splitlines()]
    return [(old, new) for old, new in cells]


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.old)
def test_every_pattern_catches_its_examples_and_nothing_beside(word: Word):
    assert word.caught
    for example in word.caught:
        assert any(found.startswith(f"{word.old}: ") for found in left_in(example)), example
    for example in word.passed:
        assert not left_in(example), example


def test_every_exemption_is_used():
    texts = [" ".join(text.split()) for path in read_by_people() for _, text in texts_of(path)]
    unused = [exempt for exempt in PICTURE_FILES if not any(re.search(exempt, text) for text in texts)]
    assert not unused


def test_words_are_found_in_comments_strings_docstrings_and_across_their_lines():
    source = '"""A view is pulled\n\ntowards it."""\n# of each\n# pose law\nx = f"{x}: allowed " "are a"\njudge = x\n'
    found = [word for _, text in _texts_of_python(source) for word in left_in(text)]
    assert [word.partition(":")[0] for word in found] == ["pull", "law", "allowed are"]


def test_no_old_word_is_left():
    """Not in README, docs, presets, pages, nor in the docstrings, comments and messages of the code."""
    files = read_by_people()
    assert {path.suffix for path in files} == {".md", ".py", ".yaml", ".html", ".css", ".js"}
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in files
        for line, text in texts_of(path)
        for word in left_in(text)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_old_word_is_left_in_the_help_of(command, capsys, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # as the command sets it, and only here
    with pytest.raises(SystemExit) as ended:
        run_command(command, ["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "usage" in text
    assert not left_in(text)


def test_the_page_about_conventions_has_the_same_table():
    assert sorted(rows(TABLE)) == sorted((word.old, word.new) for word in WORDS)


def test_the_page_about_conventions_has_every_option_that_moved():
    table = {name: new for old, new in rows("### Options and modules") for name in re.findall(r"`([\w.]+)`", old)}
    for old, new in MOVED.items():
        name = old.replace(".init_args", "")
        assert name in table
        assert f"`{new}`" in table[name], name


def test_no_old_name_of_the_api_is_left():
    """The identifiers in the second table, modules and keys aside."""
    modules = [old for old, new in rows("### Options and modules") if new.startswith("`mnist3d.")]
    old = {
        name
        for each, _ in rows("### Options and modules")
        if each not in modules
        for name in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*|(?:load|score)_[a-z]+)`", each)
    }
    assert {"Judges", "load_judges", "NearestPull"} <= old
    pattern = re.compile(rf"\b({'|'.join(sorted(old))})\b")
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in read_by_people()
        for line, text in texts_of(path)
        for name in pattern.findall(text)
    ]
    assert not found, "\n" + "\n".join(found)
