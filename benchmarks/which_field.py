"""The table and the figure of docs/which_field.md: python benchmarks/which_field.py [--minutes 3] [--seeds 0,1,2]

Runs `mnist3d compare` on all volumes of mnist3d, three seeds each, one core a run: with six volumes 54 minutes of a
core. The folder is kept, so the same command goes on where it was stopped. The table goes between the two marks of the
page, the figure beside it, and the CSV into benchmarks/results/. Nothing else should run meanwhile.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mnist3d.version import __version__
from mnist3d.volumes import OWN_VOLUMES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "which_field.md"
FIGURE = "which_field.png"
PART = re.compile(r"(<!-- comparison -->\n).*?(<!-- end -->)", re.DOTALL)
FIRST = ("VoxelGrid", "HashGrid", "VMGrid")  # in the order in which they came


def main() -> int:
    """The exit code of the comparison; the page changes only where it is 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    volumes = [*FIRST, *(name for name in OWN_VOLUMES if name not in FIRST)]
    parser.add_argument("--volumes", default=",".join(volumes), help="default %(default)s")
    parser.add_argument("--minutes", default="3", help="of training a run (default %(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="of each volume (default %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("comparisons") / "which_field", help="default %(default)s")
    options = parser.parse_args()
    words = ["--volumes", options.volumes, "--minutes", options.minutes, "--seeds", options.seeds]
    done = subprocess.run([sys.executable, "-m", "mnist3d", "compare", *words, "--output", options.output], check=False)
    table, figure = options.output / "comparison.md", options.output / "comparison.png"
    if done.returncode != 0 or not figure.is_file():  # runs have failed, or it was stopped
        print(f"{PAGE}: not changed, as not all runs are complete", file=sys.stderr)
        return done.returncode or 1
    shutil.copy(figure, PAGE.parent / FIGURE)
    shutil.copy(options.output / "comparison.csv", ROOT / "benchmarks" / "results" / f"which_field-{__version__}.csv")
    content = table.read_text(encoding="utf-8").strip()
    content += f"\n\n![Each field once around, and its learning curves]({FIGURE})"
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(PART.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", page), encoding="utf-8")
    print(f"{PAGE}: the table is of now; its words are yours to check")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
