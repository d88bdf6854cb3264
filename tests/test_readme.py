"""What stands at the top of the README, and what a package index makes of it."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tools.draw_badges import FOLDER, badges

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_of_mnist3d", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_badges_say_what_setup_cfg_and_the_results_say():
    drawn = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")}
    assert drawn == badges(), "python tools/draw_badges.py draws them anew"
    assert all(f"docs/badges/{name}" in README for name in drawn)


def test_links_are_absolute_where_the_address_of_the_repository_is_known(setup):
    found = LINK.findall(setup.description("https://example.org/us/mnist3d/"))
    assert len(found) == len(LINK.findall(README)) > 20
    for picture, target in found:
        assert target.startswith(f"https://example.org/us/mnist3d/{'raw' if picture else 'blob'}/main/")


def test_without_that_address_no_link_leads_nowhere(setup):
    description = setup.description(None)
    assert not LINK.findall(description)
    assert "mnist3d train" in description
    assert "quickstart" in description


def test_the_address_is_read_from_setup_cfg(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "HERE", tmp_path)
    (tmp_path / "setup.cfg").write_text("[metadata]\nproject_urls =\n    Source = https://example.org/us/mnist3d\n")
    assert setup.source() == "https://example.org/us/mnist3d"
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = mnist3d\n")
    assert setup.source() is None


def test_the_pictures_of_the_first_screen_are_light():
    moving = [ROOT / target for _, target in LINK.findall(README) if target.endswith(".gif")]
    assert moving
    assert all(path.stat().st_size < 3_000_000 for path in moving)
