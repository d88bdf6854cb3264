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
from ..errors import ConfigError, DataError, RunsFailed
from ..invocation import program_name, to_type
from ..runs.at_work import AtWork
from ..runs.building import build_trainer
from ..runs.class_paths import import_volume_class
from ..runs.config import Config
from ..runs.signals import Ended
from ..storage.labels import printable
from ..storage.run_directory import RunDirectory
from ..sweeps.folder import Record, SweepFolder, saved_step
from ..sweeps.jobs import Executor
from ..sweeps.local import usable_cores
from ..sweeps.options import SweepOptions
from ..sweeps.plan import Planned, planned
from ..sweeps.session import Sweep
from ..sweeps.telling import Telling
from .compare_arguments import PLACES, ROOT, check_place, place_and_options
from .planned_configs import planned_configs, write_configs
from .presets import preset_names
from .sweep import CHILD, executor_of
from .tool_parser import OneLineParser

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
    measuring = Measuring()
    _prepare(measuring, configs)
    executor = executor_of(typed.address, sweep_options)
    threads = torch.get_num_threads()
    try:
        if typed.address is None and options.minutes is not None:
            _warm_up(place, variants, configs, runs)
        torch.set_num_threads(1)  # the cores are the runs'
        folder = SweepFolder(place, FOLDERS)
        try:
            check_place(place, options, typed)  # another process may have had it in between
            records = [Record(run) for run in runs]
            report = Report(folder, options, variants, configs, records, measuring, executor.places)
            _compare(folder, options, sweep_options, configs, records, executor, report, threads)
        finally:
            folder.release()
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
    """Have the classifiers, before there is a folder."""
    for name, config in configs.items():
        try:
            measuring.prepare(config)
        except DataError as error:  # the run will say so too, and fail alone
            print(printable(f"{name}: no scores: {error}"), file=sys.stderr)


def _warm_up(place: Path, variants: Sequence[Variant], configs: Mapping[str, Config], runs: Sequence[Planned]) -> None:
    """One step of each variant that has runs left, so that what must be compiled here is compiled in nobody's time.

    Raises:
        UserError: a variant cannot make a step.
    """
    left = {each.name for each in runs if not saved_step(place / "runs" / each.name)[1]}
    with AtWork("making one step of each variant, which compiles what is not compiled yet") as work:
        for number, variant in enumerate(variants):
            work.tell(number / len(variants))
            if left.isdisjoint(each.name for each in runs[number :: len(variants)]):
                continue
            try:
                build_trainer(configs[runs[number].name]).step()
            except (ConfigError, DataError) as error:
                raise type(error)(f"{variant.label}: {error}") from None


def _compare(
    folder: SweepFolder,
    options: CompareOptions,
    sweep_options: SweepOptions,
    configs: dict[str, Config],
    records: list[Record],
    executor: Executor,
    report: Report,
    threads: int,
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
    go_on = _to_go_on(options, configs, folder.shown)
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
    cores = f"{options.cores} core{'s' if options.cores > 1 else ''} each"
    left = math.ceil((len(records) - ready) / places) * (options.minutes or 0.0)
    about = f"; about {left:.0f} minutes and the measuring" if left >= 1.0 else ""
    telling.line(f"{len(records)} runs of {options.length}{before}, {places} at a time, {cores}; into {shown}{about}")
    if options.minutes is not None and places * options.cores > usable_cores():
        telling.line(f"at_once={places}: more than the {usable_cores()} cores here, so the runs slow each other down")


def _to_go_on(options: CompareOptions, configs: Mapping[str, Config], shown: Path) -> str:
    """A command line that works as it stands: classes of others are named again."""
    named = [config.volume["class_path"] for config in configs.values()]
    named += [each["class_path"] for config in configs.values() for each in config.objectives]
    if all(path.startswith("mnist3d.") for path in named):
        return to_type("compare", "--resume", shown)
    return to_type("compare", *options.words(), "--output", shown)


def _last_score(path: Path, config: Config) -> float | None:
    """The legible share that the run itself noted last: what is shown while others go on. No run is chosen by it."""
    found = Measured("", 0)
    take_records(found, RunDirectory(path).read_stats())
    return found.curve[-1]["legible"] if found.curve else None
