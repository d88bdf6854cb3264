"""What setup.cfg cannot say: where presets lie, and a description whose links lead somewhere outside the repository."""

import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def description(source: str | None) -> str:
    """The README for a package index, where the repository's relative links lead nowhere.

    Args:
        source: where the repository's files can be read; None: links become their text, and pictures their names.
    """
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    relative = r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)]+)\)"
    if source is None:
        return re.sub(relative, lambda link: f"({link[2]})" if link[1] else link[2], readme)
    address = source.rstrip("/")
    return re.sub(
        relative, lambda link: f"{link[1]}[{link[2]}]({address}/{'raw' if link[1] else 'blob'}/main/{link[3]})", readme
    )


def source() -> str | None:
    """The address in `project_urls` of setup.cfg, `Source = https://...`, once there is one."""
    settings = ConfigParser()
    settings.read(HERE / "setup.cfg", encoding="utf-8")
    found = re.search(r"^Source\s*=\s*(\S+)$", settings["metadata"].get("project_urls", ""), re.MULTILINE)
    return found[1] if found else None


if __name__ == "__main__":
    setup(
        long_description=description(source()),
        packages=[*find_packages(include=["mnist3d", "mnist3d.*"]), "mnist3d.configs"],
        package_dir={"mnist3d.configs": "configs"},
    )
