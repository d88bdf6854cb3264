"""The class that --volume names and the arguments of its constructor, for commands that build a volume."""

import argparse
from collections.abc import Callable, Sequence

from ..runs.class_paths import import_volume_class
from ..runs.validation import validated_arguments
from ..volumes import OWN_VOLUMES, Volume
from .flags import add_unlisted_options, add_volume_options
from .tool_parser import OneLineParser


def add_arguments_of(parser: OneLineParser, volume: type[Volume] | None) -> None:
    """Flags such as --volume.resolution 64, appended to `given` as they are typed.

    Args:
        parser: of a command.
        volume: the class that is named; None: those of all our own are taken, and none is shown.
    """
    parser.set_defaults(given=[])
    if volume is not None:
        add_volume_options(parser, volume)
    else:
        add_unlisted_options(parser, [*OWN_VOLUMES.values()])


def parsed_with_volume(
    arguments: Sequence[str], build_parser: Callable[[type[Volume] | None], OneLineParser]
) -> tuple[argparse.Namespace, type[Volume] | None]:
    """The options, and the class that --volume names, or None.

    Args:
        arguments: of the command line.
        build_parser: makes the parser of all flags, with those of a class.

    Returns:
        Options with `arguments`: those of the constructor, by name, defaults included; empty without a class.

    Raises:
        ConfigError: there is no such class, or its arguments are wrong.
    """
    choosing = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    choosing.add_argument("--volume")
    try:
        chosen = choosing.parse_known_args(arguments)[0].volume
    except argparse.ArgumentError:  # said by the parser of all flags
        chosen = None
    kind = None if chosen is None else import_volume_class(chosen)
    options = build_parser(kind).parse_args(arguments)
    given = {key.removeprefix("volume."): value for key, value in options.given}
    options.arguments = {} if kind is None else validated_arguments(kind, given, "volume")
    return options, kind
