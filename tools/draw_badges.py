"""Draw the badges at the top of the README, docs/badges/*.svg, from setup.cfg and docs/results.md.

    python tools/draw_badges.py

What each says stands in a file that is kept true for other reasons, so a badge cannot become older than the project.
"""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "badges"
LETTER = 6.6  # width of a letter, in pixels, of 11 px sans-serif: generous, as each machine has another font
SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{name}: {value}">
<title>{name}: {value}</title>
<rect width="{width}" height="20" rx="3" fill="#3b3f4a"/>
<path d="M{left} 0h{right}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right}z" fill="{colour}"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{name_at}" y="14">{name}</text>
<text x="{value_at}" y="14">{value}</text>
</g>
</svg>
"""


def badges() -> dict[str, str]:
    """File name -> SVG."""
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg", encoding="utf-8")
    classifiers = metadata["metadata"]["classifiers"].split("\n")
    versions = [line.rpartition(":: ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)]
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    median = re.search(r"\*\*median\*\* \| \| \*\*(\.\d+) / ", results)
    assert median is not None, "docs/results.md has no line with the median of the default run"
    return {
        "python.svg": _badge("python", f"{versions[0]} to {versions[-1]}", "#2f6f9f"),
        "license.svg": _badge("license", metadata["metadata"]["license"], "#2f7d4f"),
        "legible.svg": _badge("legible views after ten minutes", f"{float(median[1]):.0%}", "#8a5a1f"),
    }


def _badge(name: str, value: str, colour: str) -> str:
    left, right = (round(LETTER * len(text) + 12) for text in (name, value))
    return SVG.format(
        name=name,
        value=value,
        colour=colour,
        left=left,
        right=right - 3,
        width=left + right,
        name_at=left / 2,
        value_at=left + right / 2,
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in badges().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
