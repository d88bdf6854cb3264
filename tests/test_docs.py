"""README.md and docs/: links resolve, commands can be typed, tables say what the code says, the site builds."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import need
from docs_commands import command_lines, complaints, wrong_commands
from docs_rules import Page, github_anchor, loose_lines, read_page, requests, wrong_links, wrong_names, wrong_nav

from tools import write_reference

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
# What was once so may be named there, but a link must lead somewhere.
HISTORY = [ROOT / "CHANGELOG.md", *sorted((ROOT / "research").glob("*.md"))]


@pytest.fixture(scope="module", autouse=True)
def _mkdocs():
    need(importlib.util.find_spec("mkdocs"), "mkdocs is not installed: pip install -e '.[docs]'")


def build_site(settings: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`mkdocs build --strict`, with what it says."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", settings, "--site-dir", site]
    # An advertisement about the next mkdocs, no warning about this site.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    return [read_page(path) for path in PAGES]


@pytest.fixture
def page(tmp_path: Path):
    """Writes a made-up page and reads it."""

    def write(text: str, name: str = "docs/page.md") -> Page:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return read_page(path)

    return write


# --- the docs as they are


def test_every_link_resolves(pages: list[Page]):
    assert sum(len(each.links) for each in pages) > 30
    assert wrong_links([*pages, *map(read_page, HISTORY)], DOCS) == []


def test_every_named_file_exists(pages: list[Page]):
    assert [line for each in pages for line in wrong_names(each, ROOT)] == []


def test_lists_and_tables_are_lists_and_tables_on_the_site_too(pages: list[Page]):
    assert [line for each in pages if DOCS in each.path.parents for line in loose_lines(each)] == []


def test_every_command_line_can_be_typed(pages: list[Page]):
    assert sum(len([*command_lines(block)]) for each in pages for block in each.blocks) > 30
    assert [line for each in pages for line in wrong_commands(each)] == []


def test_every_page_is_in_the_nav_and_the_other_way_round():
    assert wrong_nav(ROOT / "mkdocs.yml") == []


def test_the_tables_are_what_the_code_says(capsys: pytest.CaptureFixture[str]):
    assert write_reference.main(["--check"]) == 0, capsys.readouterr().err


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path):
    built = build_site(ROOT / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr + built.stdout
    assert (tmp_path / "site" / "index.html").is_file()
    assert requests(tmp_path / "site") == []


# --- that each check can fail


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("missing.md", "no such file"),
        ("missing.png", "no such file"),
        ("other.md#nowhere", "no such heading"),
        ("#nowhere", "no such heading"),
        ("other.md#twice_1", "no such heading"),  # mkdocs' name; GitHub's is twice-1
        ("other.md#twice-1", "no such heading"),  # GitHub's name
        ("../README.md", "the site does not have it"),
        ("/docs/other.md", "begins at the root"),
        ("https://", "is no address"),
        ("http:/one.slash/x", "is no address"),
        ("https://[x", "is no address"),
        ("ftp://example.org/x", "is no address"),
    ],
)
def test_a_link_that_leads_nowhere_is_caught(page, tmp_path: Path, link: str, reason: str):
    other = page("# Other\n\n## Twice\n\n## Twice\n", "docs/other.md")
    readme = page("# Read me\n", "README.md")
    for text in (f"# A\n\nSee [this]({link}).\n", f"# A\n\n![this]({link})\n", f'# A\n\n<img src="{link}">\n'):
        (wrong,) = wrong_links([page(text), other, readme], tmp_path / "docs")
        assert wrong.startswith(f"page.md: {link}: ")
        assert reason in wrong


def test_links_that_resolve_are_not_complained_about(page, tmp_path: Path):
    other = page('# Other\n\n## A `b="c"`: d, e\'s f_g\n\n## Twice\n\n## Twice\n', "docs/other.md")
    links = ["other.md", "other.md#other", "other.md#a-bc-d-es-f_g", "#here", "other.md#twice"]
    links += ["https://example.org", "http://localhost.test:8328/a?b=c#d"]
    one = page("# Here\n\n" + "\n".join(f"[x]({link})" for link in links))
    assert len(one.links) == len(links)
    assert wrong_links([one, other], tmp_path / "docs") == []


def test_an_anchor_is_what_github_makes_of_a_heading():
    # from GitHub's own pages: marks go, each space becomes a hyphen
    assert github_anchor("The other sum: `quadrature`") == "the-other-sum-quadrature"
    assert github_anchor("One & two") == "one--two"


def test_a_file_that_there_is_not_is_caught(page):
    text = "# A\n\n`docs/gone.md`, `docs/NAME.md`, `configs/letters.yaml`\n\n    python tools/gone.py\n"
    assert wrong_names(page(text), ROOT) == ["page.md: there is no docs/gone.md", "page.md: there is no tools/gone.py"]


def test_a_list_without_an_empty_line_above_is_caught(page):
    assert len(loose_lines(page("# A\n\nThree:\n- one\n- two\n"))) == 2
    assert len(loose_lines(page("# A\n\nA table:\n| a | b |\n|---|---|\n| 1 | 2 |\n"))) == 3
    assert loose_lines(page("# A\n\nThree:\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nwords\n`- x`\n")) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("mnist3d sculpt", "no command sculpt"),
        ("mnist3d trian --seed 1", "no command trian"),
        ("mnist3d train --trainer.view 8", "no flag --trainer.view"),
        ("mnist3d train --trainer.views 1", "trainer.views=1"),
        ("mnist3d train --trainer.views", "expected one argument"),
        ("mnist3d train --config digit", "no preset digit"),
        ("mnist3d train --volume my.Beads --radius 1", "no flag --radius"),
        ("mnist3d train --objectives.add my.Smooth --trainer.wieght 1", "no flag --trainer.wieght"),
        ("python -m mnist3d train --sed 1", "no flag --sed"),
        ("mnist3d presets digit", "no preset digit"),
        ("mnist3d orbit RUN --frames 1", "frames"),
        ("mnist3d mesh RUN --output a.stl --matter dark", "matter"),
        ("mnist3d view [RUN | volume.safetensors] [--prot N]", "--prot"),
        ("python train.py --trainer.max_minute 2", "no flag --trainer.max_minute"),
        ("python inference.py RUN --snapshots a.png", "--snapshots"),
        ("python tools/render_orbit.py RUN --out a.gif", "--out"),
        ("python tools/draw_layout.py --chekc", "it has no --chekc"),
        ("python tools/draw_gone.py", "no such file"),
        ('mnist3d train --targets.rings "[{classes: [Bag, Boot], colour: 1}]"', "colour: no such key"),
        ('pip install -e ".[exprot]" && pip list', "no extra exprot"),
        ("X=1 mnist3d page RUN --outptu a.html | tee log", "--outptu"),
        ("mnist3d train \\\n    --sed 1", "no flag --sed"),
        ("$ mnist3d voxels RUN --resolution 0   # too few", "resolution"),
    ],
)
def test_a_command_line_that_cannot_be_typed_is_caught(page, line: str, reason: str):
    block = "# A\n\n" + "".join(f"    {part}\n" for part in line.splitlines())
    (wrong,) = wrong_commands(page(block))
    assert reason in wrong


def test_a_command_line_within_a_sentence_is_read_too(page):
    assert wrong_commands(page("# A\n\nType `mnist3d orbit RUN`; `mnist3d orbit\n--frames N` says how many.\n")) == []
    assert len(wrong_commands(page("# A\n\nType `mnist3d orbit RUN --frame 12` or `mnist3d orbits`.\n"))) == 2


@pytest.mark.parametrize(
    "line",
    [
        "mnist3d",
        "mnist3d --help",
        "mnist3d COMMAND --help",
        "mnist3d train --help",
        "mnist3d train [--config PRESET] [--KEY VALUE ...]",
        "mnist3d train --config letters --trainer.max_minutes N",
        "mnist3d train --config my.yaml --config=hash_grid --volume.num_levels 2",
        "mnist3d train --volume my.Beads --volume.radius 1 --objectives.add my.Smooth --smoothness.weight 2",
        "mnist3d train --resume runs/NAME --trainer.max_steps 300  # goes on",
        'mnist3d train --trainer "{max_steps: 300}" --print_config > my.yaml',
        'mnist3d train --targets.rings "[{classes: [Bag, Boot]}]"',
        "mnist3d orbit RUN --output orbit.gif && ls",
        "mnist3d train: error: sed: no such key, did you mean seed?",
        "from mnist3d import load_run",
        'pip install -e ".[test]" && python -m pytest',
        "python benchmarks/renderer.py --help",
        "python examples/NAME.py --flag",
    ],
)
def test_a_command_line_that_can_be_typed_is_not_complained_about(line: str):
    assert [reason for words in command_lines(line) for reason in complaints(words)] == []


def test_a_flag_that_no_command_has_is_caught(page):
    assert wrong_commands(page("# A\n\n`--seed 1`, `--snapshot`, `--KEY VALUE`, `--volume my.X`, `--volume.y`\n")) == []
    assert wrong_commands(page("# A\n\n`--sed 1` or `--volume.radius`\n")) == [
        "page.md: --sed: no command has that flag",
        "page.md: --volume.radius: no command has that flag",
    ]


def test_a_nav_that_is_not_what_the_folder_holds_is_caught(page, tmp_path: Path):
    page("# A\n", "docs/one.md")
    page("# A\n", "docs/two.md")
    settings = tmp_path / "mkdocs.yml"
    settings.write_text("docs_dir: docs\nnav:\n  - One: one.md\n  - More:\n      - three.md\n      - Again: one.md\n")
    assert [line.split(":")[0] for line in wrong_nav(settings)] == ["two.md", "three.md", "one.md"]
    settings.write_text("docs_dir: docs\nnav:\n  - One: one.md\n  - More:\n      - Two: two.md\n")
    assert wrong_nav(settings) == []


def copied_docs(folder: Path) -> Path:
    shutil.copytree(DOCS, folder / "docs")
    return Path(shutil.copy(ROOT / "mkdocs.yml", folder))


def test_a_site_with_links_that_lead_nowhere_is_not_built(tmp_path: Path):
    links = ("missing.md", "#nowhere", "conventions.md#also_nowhere", "../README.md")
    settings = copied_docs(tmp_path)
    with (tmp_path / "docs" / "viewer.md").open("a") as file:
        file.writelines(f"\n[x]({link})\n" for link in links)
    built = build_site(settings, tmp_path / "site")
    assert built.returncode != 0
    warned = [line for line in built.stderr.splitlines() if line.startswith("WARNING")]
    assert [sum(f"'{link}'" in line for line in warned) for link in links] == [1, 1, 1, 1], built.stderr


@pytest.mark.parametrize(
    "text",
    [
        '<link rel="stylesheet" href="https://fonts.example.org/a.css">',
        '<script src="//cdn.example.org/a.js"></script>',
        '<img src="http://example.org/a.png">',
        "<style>@import 'https://example.org/a.css';</style>",
    ],
)
def test_a_page_that_loads_from_elsewhere_is_caught(tmp_path: Path, text: str):
    (tmp_path / "a.html").write_text(f'<a href="https://example.org">a link</a> <img src="a.png"> {text}')
    (wrong,) = requests(tmp_path)
    assert "example.org" in wrong


def test_a_style_that_loads_from_elsewhere_is_caught(tmp_path: Path):
    (tmp_path / "a.css").write_text("a { background: url(b.png) } b { background: url('https://example.org/b.png') }")
    assert requests(tmp_path) == ["a.css: https://example.org/b.png"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("| `8328` |", "| `8329` |", "viewer is not what the code says"),
        ("`seed`", "`sed`", "run is not what the code says"),
        ("<!-- generated: viewer -->", "<!-- generated: veiwer -->", "viewer has no place"),
        ("<!-- generated: poses -->", "<!-- generated: data -->", "data stands there twice"),
        ("Mappings are merged", "Mappings merge", ""),  # prose is nobody's but the author's
    ],
)
def test_a_table_that_is_not_what_the_code_says_is_caught_and_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
):
    for name in ("command_line.md", "configuration.md"):
        shutil.copy(DOCS / name, tmp_path)
    write_reference.main([], tmp_path)
    page = tmp_path / "configuration.md"
    right = page.read_text()
    assert old in right
    page.write_text(right.replace(old, new, 1))
    assert write_reference.main(["--check"], tmp_path) == (1 if message else 0)
    assert message in capsys.readouterr().err
    if "not what" in message:
        assert write_reference.main([], tmp_path) == 0
        assert page.read_text() == right
