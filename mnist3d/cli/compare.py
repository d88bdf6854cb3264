"""Compare volumes, losses or any options side by side: equal time or equal steps, several seeds each.

Makes one table (terminal, CSV, Markdown) and one figure: each variant once around, and the learning curves. Each run is
a process of its own. The same command again goes on where it was stopped or killed.
"""

import argparse
import dataclasses
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..comparisons.measuring import Measured, Measuring, take_records
from ..comparisons.options import DEFAULT_MINUTES, SPEC_FILE, CompareOptions
from ..comparisons.report import CSV_FILE, FIGURE_FILE, FOLDERS, MARKDOWN_FILE, Report
from ..comparisons.table import text_of
from ..comparisons.variants import Variant, swept, variants_of
from ..comparisons.warming_up import one_step_each
from ..errors import ConfigError, RunsFailed
from ..invocation import program_name, to_type
from ..runs.at_work import AtWork
from ..runs.class_paths import import_volume_class
from ..runs.config import Config
from ..runs.signals import Ended
from ..storage.labels import printable
from ..storage.run_directory import RESUME_FILE, RunDirectory
from ..sweeps.folder import Record, SweepFolder, has_file, saved_step
from ..sweeps.jobs import Executor
from ..sweeps.local import usable_cores
from ..sweeps.options import SweepOptions
from ..sweeps.plan import Planned, planned
from ..sweeps.session import Sweep
from ..sweeps.telling import Telling
from .compare_arguments import PLACES, ROOT, check_place, place_and_options
from .planned_configs import imports_nothing, planned_configs, words_of_trust, write_configs
from .presets import preset_names
from .sweep import CHILD, executor_of
from .tool_parser import OneLineParser

STEP = f"{__package__}.compare_child"  # what Python runs for one step of a variant
USERS_ERROR = 2  # the exit code of a process that its user's error has ended
SOURCE = "the command"  # what a comparison is begun with, in messages
TITLES = ("run", "state", "step", "legible", "minutes")
EXAMPLE = """examples:

  mnist3d compare --volumes VoxelGrid,HashGrid,VMGrid --minutes 3 --seeds 0,1,2
  mnist3d compare --volumes VoxelGrid,my_package.MyVolume --steps 500
  mnist3d compare --vary adversarial.pairing=relativistic,hinge --minutes 3

The page Which field of the docs shows what comes of it."""


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(
        prog=program_name("compare"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLE,
    )
    parser.add_argument(
        "--volumes",
        metavar="A,B,...",
        help="what is compared: volumes of our own, each with the preset that was tuned for it; class paths "
        "package.Class, with the defaults of the class; presets; YAML files. A class path imports its code, so name "
        "only a class that you trust",
    )
    parser.add_argument(
        "--vary",
        metavar="KEY=A,B,...",
        action="append",
        help="compare the values of a key of train, beside the volumes or in their place; may be repeated, then all "
        "combinations are compared",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="preset or YAML file that all runs begin with, in place of each volume's own preset: only the volume is "
        "another, with the defaults of its class",
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", help="a key of train that all runs have; may be repeated"
    )
    parser.add_argument(
        "--minutes", help=f"equal time: minutes of training a run, > 0 (default {DEFAULT_MINUTES:g}, without --steps)"
    )
    parser.add_argument("--steps", help="equal steps: steps a run, >= 1")
    parser.add_argument("--seeds", metavar="A,B,...", help="seeds of each variant (default 0,1,2)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"folder of the comparison; default in {ROOT}/")
    parser.add_argument(
        "--resume", type=Path, metavar="FOLDER", help="go on with the comparison in a folder, as it was begun"
    )
    for name, meaning in PLACES.items():
        parser.add_argument(f"--{name}", help=meaning)
    parser.add_argument(
        "--address",
        help="run on a Ray cluster, as mnist3d sweep does; equal time is equal only on equal machines",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="with --resume: let the runs read the folders and files that their configurations name, and download",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, check every run, train them, measure them, print the table."""
    typed = build_parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mnist3d.evaluation").setLevel(logging.INFO)  # training the classifiers is announced
    place, options = place_and_options(typed)
    variants = variants_of(options, preset_names())
    resumed = typed.resume is not None
    if not resumed:
        _check_classes(variants)
    sweep_options = swept(options, variants)
    runs = planned(sweep_options, [variant.label for variant in variants])
    with AtWork("checking the runs") as work:
        told = work.over(runs, len(runs))
        configs = planned_configs(place, told, resumed=resumed, trust=typed.trust, kind="comparison", source=SOURCE)
    _check_different(variants, [configs[run.name] for run in runs])
    executor = executor_of(typed.address, sweep_options)
    threads = torch.get_num_threads()
    try:
        folder = SweepFolder(place, FOLDERS)  # before any work: the runs of a comparison that goes on there have time
        try:
            check_place(place, options, typed)  # another process may have had it in between
            measuring = Measuring()
            _prepare(measuring, configs)
            if typed.address is None and options.minutes is not None:
                _warm_up(folder, variants, configs, runs, executor, options.cores)
            torch.set_num_threads(1)  # the cores are the runs'
            records = [Record(run) for run in runs]
            report = Report(folder, options, variants, configs, records, measuring, executor.places)
            go_on = _to_go_on(options, configs, folder.shown, typed.address)
            _compare(folder, options, sweep_options, configs, records, executor, report, threads, go_on)
        finally:
            folder.release(SPEC_FILE)
    finally:
        executor.close()
        torch.set_num_threads(threads)


def _check_classes(variants: Sequence[Variant]) -> None:
    """Import the classes that were typed, so that a wrong one is told by the flag that named it.

    Raises:
        ConfigError: there is no such class, or it is no volume.
    """
    for variant in variants:
        if (path := variant.settings.get("volume")) is not None:
            try:
                import_volume_class(path)
            except ConfigError as error:
                raise ConfigError(f"volumes={str(error).removeprefix('volume=')}") from None


def _check_different(variants: Sequence[Variant], configs: Sequence[Config]) -> None:
    """Fail on two variants that would be the same runs.

    Raises:
        ConfigError: there are two.
    """
    known: dict[str, str] = {}
    for variant, config in zip(variants, configs, strict=False):  # those of the first seed come first
        said = json.dumps(dataclasses.asdict(config), sort_keys=True)
        if said in known:
            raise ConfigError(f"{known[said]} and {variant.label}: are the same configuration; leave one out")
        known[said] = variant.label


def _prepare(measuring: Measuring, configs: Mapping[str, Config]) -> None:
    """Have the classifiers, and say which runs have none: with images that cannot be read, a run fails alone."""
    unread: dict[str, list[str]] = {}
    for name, config in configs.items():
        if why := measuring.prepare(config):
            unread.setdefault(why, []).append(name)
    for why, (first, *others) in unread.items():
        more = f" and {len(others)} more" if others else ""
        print(printable(f"{first}{more}: no scores: {why}"), file=sys.stderr)


def _warm_up(
    folder: SweepFolder,
    variants: Sequence[Variant],
    configs: Mapping[str, Config],
    runs: Sequence[Planned],
    executor: Executor,
    cores: int,
) -> None:
    """One step of each variant that has runs left; a variant that fails there is said, and its runs fail alone.

    Raises:
        ConfigError: a new comparison has a variant that its user's error lets make no step.
    """
    chosen: dict[str, str] = {}  # the label of the variant, by the name of the run
    for number, variant in enumerate(variants):
        names = (each.name for each in runs[number :: len(variants)])
        if (name := next((name for name in names if not saved_step(folder.run(name))[1]), None)) is not None:
            chosen[name] = variant.label
    saved = frozenset(name for name in chosen if has_file(folder.run(name), RESUME_FILE))
    outcomes = one_step_each({name: configs[name] for name in chosen}, saved, executor, STEP, cores)
    for name, label in chosen.items():
        if outcomes[name].code == 0:
            continue
        why = outcomes[name].error or f"ended by itself with code {outcomes[name].code}"
        if outcomes[name].code == USERS_ERROR and not (folder.path / SPEC_FILE).is_file():
            raise ConfigError(f"{label}: {why}")  # nothing has begun, so nothing is lost
        print(printable(f"{label}: its first step failed: {why}"), file=sys.stderr)


def _compare(
    folder: SweepFolder,
    options: CompareOptions,
    sweep_options: SweepOptions,
    configs: dict[str, Config],
    records: list[Record],
    executor: Executor,
    report: Report,
    threads: int,
    go_on: str,
) -> None:
    """In a folder that is taken, to the last line."""
    folder.write(SPEC_FILE, options.to_yaml())
    with AtWork("writing the configurations"):
        write_configs(folder, configs)
    telling = Telling(sys.stderr, [record.name for record in records], TITLES)
    seconds = folder.restore(records)

    def conclude() -> None:
        torch.set_num_threads(threads)  # the runs have ended
        report.write()

    sweep = Sweep(
        folder, sweep_options, configs, records, executor, _last_score, None, telling, CHILD, seconds, conclude
    )
    _announce(telling, options, records, executor.places, folder.shown)
    try:
        sweep.run()
    except BaseException as error:  # a full disk, for one, keeps what was saved before
        asked = isinstance(error, KeyboardInterrupt | Ended)
        telling.line(f"stopped{', and what the runs had reached is saved' if asked else ''}; go on with: {go_on}")
        raise
    print(*text_of(report.rows), sep="\n")
    shown_at = folder.shown
    figure = f", {FIGURE_FILE}" if (folder.path / FIGURE_FILE).is_file() else ""
    print(printable(f"The table and the figure: {shown_at}/{MARKDOWN_FILE}, {CSV_FILE}{figure}"))
    if report.missing:
        print(printable(f"{FIGURE_FILE}: {report.missing}"), file=sys.stderr)
    failed = [record for record in records if record.standing.state == "failed"]
    if failed:
        first = f"{failed[0].name}: {failed[0].error}"
        raise RunsFailed(f"{len(failed)} of {len(records)} runs failed ({first}); the same command tries them again")


def _announce(telling: Telling, options: CompareOptions, records: Sequence[Record], places: int, shown: Path) -> None:
    ready = sum(record.standing.state == "done" for record in records)
    before = f", {ready} of them ready" if ready else ""
    left = math.ceil((len(records) - ready) / places) * (options.minutes or 0.0)
    about = f"; about {left:.0f} minutes and the measuring" if left >= 1.0 else ""
    where = f"{places} at a time, {options.places_in_words} each; into {shown}"
    telling.line(f"{len(records)} runs of {options.length}{before}, {where}{about}")
    if options.minutes is not None and places * options.cores > usable_cores():
        telling.line(f"at_once={places}: more than the {usable_cores()} cores here, so the runs slow each other down")


def _to_go_on(options: CompareOptions, configs: Mapping[str, Config], shown: Path, address: str | None) -> str:
    """A command line that works as it stands: classes of others are named again, and files are trusted again."""
    where = [] if address is None else ["--address", address]
    if imports_nothing(configs.values()):
        return to_type("compare", "--resume", shown, *words_of_trust(configs.values()), *where)
    return to_type("compare", *options.words(), "--output", shown, *where)


def _last_score(path: Path, config: Config) -> float | None:
    """The legible share that the run itself noted last: what is shown while others go on. No run is chosen by it."""
    found = Measured("", 0)
    take_records(found, RunDirectory(path).read_stats())
    return found.curve[-1]["legible"] if found.curve else None
