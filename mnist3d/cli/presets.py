"""The presets: short YAML files of differences from the defaults, in `configs/` of a clone and in the package."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError
from ..invocation import program_name
from .tool_parser import OneLineParser, one_of

PACKAGE = Path(__file__).parents[1]
# An installed package holds its own; a clone has them at its top.
PRESETS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"


def preset_names() -> list[str]:
    """All presets, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_file(name: str) -> Path:
    """The file of a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in preset_names():
        raise ConfigError(f"{name}: no such preset{one_of(name, preset_names())}")
    return PRESETS / f"{name}.yaml"


def read_preset(name: str) -> str:
    """The YAML of a preset, as it is written.

    Raises:
        ConfigError: there is none of that name.
    """
    return preset_file(name).read_text(encoding="utf-8")


def build_parser() -> OneLineParser:
    """All flags."""
    train = program_name("train")
    parser = OneLineParser(
        prog=program_name("presets"),
        description="List the presets, or print one.",
        epilog=f"{train} --config NAME trains with a preset. {train} --config NAME --print_config prints all keys.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="preset to print; without it, all presets are listed")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, print."""
    name = build_parser().parse_args(arguments).name
    if name is not None:
        print(read_preset(name), end="")
        return
    for preset in preset_names():
        first, _, _ = read_preset(preset).partition("\n")
        print(f"{preset:15}{first.removeprefix('# ')}")
    print(f"\n{program_name('train')} --config NAME trains with one, {program_name('presets')} NAME prints it.")
