"""Train many runs: a grid, random or listed configurations, each with several seeds. Say which is best.

One folder holds all runs, a table that grows, and a page with their view atlases side by side. The same command again
goes on where it was stopped or killed.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..errors import ConfigError, DataError, RunError, RunsFailed
from ..invocation import program_name, to_type
from ..runs.at_work import AtWork
from ..runs.config import Config
from ..runs.signals import Ended
from ..runs.validation import from_text, options_of, validated
from ..storage.labels import printable
from ..sweeps.cluster import RayExecutor
from ..sweeps.folder import PAGE_FILE, SPEC_FILE, TABLE_FILE, Record, SweepFolder, is_unused
from ..sweeps.jobs import Executor
from ..sweeps.local import LocalExecutor
from ..sweeps.options import SweepOptions, read_options
from ..sweeps.plan import Planned, planned
from ..sweeps.selection import Selection
from ..sweeps.session import Sweep, final_table
from ..sweeps.telling import Telling
from .planned_configs import imports_nothing, planned_configs, words_of_trust, write_configs
from .tool_parser import OneLineParser

SWEEPS_ROOT = "sweeps"  # where new ones go, in the folder in which the command is typed
CHILD = f"{__package__}.sweep_child"  # what Python runs for a session of a run
IN_PLACE = {  # of SPEC.yaml: what may change when a sweep goes on
    "cores": "processor cores a run, >= 1",
    "gpus": "GPUs a run, >= 0; below 1, runs share one",
    "at_once": "runs at the same time, >= 1",
    "minutes": "after which all runs are stopped and saved, > 0; those of earlier sessions count",
    "keep": "all, or best: the checkpoints of all other runs are removed once all is done",
}
EXAMPLE = """a SPEC.yaml:

  base: {config: digits, trainer.max_steps: 500}
  grid: {volume.resolution: [32, 48]}
  seeds: 4

The page Sweeps of the docs explains all its keys."""


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(
        prog=program_name("sweep"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLE,
    )
    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC.yaml", help="what is swept")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help=f"folder of the sweep; default {SWEEPS_ROOT}/, then SPEC"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FOLDER", help="go on with the sweep in a folder, in place of SPEC.yaml"
    )
    parser.add_argument(
        "--address",
        help="run on a Ray cluster: auto for the one that this machine belongs to, ray://HOST:PORT for another, local "
        "for one that ends with the sweep; default without Ray, on this machine's cores",
    )
    for name, meaning in IN_PLACE.items():
        parser.add_argument(f"--{name}", help=f"{meaning}; in place of what SPEC.yaml says")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="with --resume: let the runs read the folders and files that their configurations name, and download",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, check every run, train them, print the table and the best."""
    typed = build_parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mnist3d.evaluation").setLevel(logging.INFO)  # training the classifiers is announced
    place, options = _place_and_options(typed)
    runs = planned(options)
    with AtWork("checking the runs") as work:
        told, resumed = work.over(runs, len(runs)), typed.resume is not None
        configs = planned_configs(place, told, resumed=resumed, trust=typed.trust, kind="sweep", source="the SPEC.yaml")
    _check_lengths(options, configs)
    executor = executor_of(typed.address, options)
    threads = torch.get_num_threads()
    try:
        folder = SweepFolder(place)  # before any work, as another sweep may go on there
        try:
            _check_place(place, options, typed)  # another process may have had it in between
            selection = Selection(options.score)
            _prepare(selection, options, configs)
            torch.set_num_threads(1)  # the cores are the runs'
            _sweep(folder, options, runs, configs, executor, selection, _to_go_on(typed, configs, folder.shown))
        finally:
            folder.release()
    finally:
        executor.close()
        torch.set_num_threads(threads)


def _place_and_options(typed: argparse.Namespace) -> tuple[Path, SweepOptions]:
    """The folder, and what is swept in it.

    Raises:
        ConfigError, RunError: neither or both are given, or the folder holds another sweep.
    """
    if (typed.spec is None) == (typed.resume is None):
        raise ConfigError("SPEC.yaml and resume: one of the two must be given, what is swept or where it goes on")
    if typed.resume is not None:
        if typed.output is not None:
            raise ConfigError("output and resume: a sweep goes on in its own folder; give only one of the two")
        if not (typed.resume / SPEC_FILE).is_file():
            raise RunError(f"resume={typed.resume}: no sweep lies there, {SPEC_FILE} is missing")
        return typed.resume, _overridden(read_options(typed.resume / SPEC_FILE), typed)
    if typed.trust:
        raise ConfigError("trust: is for a sweep that is there already; add --resume FOLDER, or leave --trust out")
    options = _overridden(read_options(typed.spec), typed)
    place = typed.output or Path(SWEEPS_ROOT) / typed.spec.stem
    _check_place(place, options, typed)
    return place, options


def _check_place(place: Path, options: SweepOptions, typed: argparse.Namespace) -> None:
    """Fail where a sweep can neither begin nor go on.

    Raises:
        ConfigError: the folder holds something else.
    """
    if typed.resume is None and (place / SPEC_FILE).is_file():
        differing = options.differing(read_options(place / SPEC_FILE))
        if differing:
            raise ConfigError(
                f"output={place}: holds a sweep with another {differing[0]}; give another --output FOLDER"
            )
    elif typed.resume is None and not is_unused(place):
        raise ConfigError(f"output={place}: holds something else; give another --output FOLDER")


def _overridden(options: SweepOptions, typed: argparse.Namespace) -> SweepOptions:
    """With what was typed."""
    hints, values = options_of(SweepOptions), dataclasses.asdict(options)
    given = {name: getattr(typed, name) for name in IN_PLACE if getattr(typed, name) is not None}
    values |= {name: from_text(hints[name].hint, text) for name, text in given.items()}
    return validated(SweepOptions, values, "")


def _check_lengths(options: SweepOptions, configs: dict[str, Config]) -> None:
    """Runs are compared at the same step."""
    for name, config in configs.items():
        if options.halving.rungs and config.trainer.max_steps is None:
            raise ConfigError(
                f"{name}: halving.rungs are shares of trainer.max_steps, which is null; add base.trainer.max_steps"
            )


def executor_of(address: str | None, options: SweepOptions) -> Executor:
    each = (options.cores, options.gpus, options.at_once)
    return LocalExecutor(*each) if address is None else RayExecutor(address, *each)


def _prepare(selection: Selection, options: SweepOptions, configs: dict[str, Config]) -> None:
    """Have the classifiers, before anything is written.

    Raises:
        ConfigError: runs must be compared, and their images have no classes.
    """
    for name, config in configs.items():
        try:
            selection.prepare(config, must=bool(options.halving.rungs) or options.keep == "best")
        except DataError as error:  # the run will say so too, and fail alone
            print(printable(f"{name}: no scores: {error}"), file=sys.stderr)


def _sweep(
    folder: SweepFolder,
    options: SweepOptions,
    runs: Sequence[Planned],
    configs: dict[str, Config],
    executor: Executor,
    selection: Selection,
    go_on: str,
) -> None:
    """In a folder that is taken, to the last line."""
    folder.write(SPEC_FILE, options.to_yaml())
    with AtWork("writing the configurations"):
        write_configs(folder, configs)
    records, telling = [Record(run) for run in runs], Telling(sys.stderr, [run.name for run in runs])
    seconds = folder.restore(records)
    sweep = Sweep(folder, options, configs, records, executor, selection.score, selection.map, telling, CHILD, seconds)
    ready = sum(record.standing.state in ("done", "dropped") for record in records)
    before = f", {ready} of them ready" if ready else ""
    telling.line(f"{len(runs)} runs{before}, {executor.places} at a time; into {folder.shown}")
    try:
        sweep.run()
    except BaseException as error:  # a full disk, for one, keeps what was saved before
        asked = isinstance(error, KeyboardInterrupt | Ended)
        telling.line(f"stopped{', and what the runs had reached is saved' if asked else ''}; go on with: {go_on}")
        raise
    print(*map(printable, final_table(telling, records)), sep="\n")
    _conclude(sweep, go_on)


def _to_go_on(typed: argparse.Namespace, configs: Mapping[str, Config], shown: Path) -> str:
    """A command line that works as it stands: classes of others are named again, and files are trusted again."""
    where = [] if typed.address is None else ["--address", typed.address]
    if typed.resume is not None or imports_nothing(configs.values()):
        return to_type("sweep", "--resume", shown, *words_of_trust(configs.values()), *where)
    given = [word for name in IN_PLACE if (text := getattr(typed, name)) is not None for word in (f"--{name}", text)]
    return to_type("sweep", typed.spec, "--output", shown, *given, *where)


def _conclude(sweep: Sweep, go_on: str) -> None:
    """The last lines: what is left, what failed, and the best.

    Raises:
        RunsFailed: some did.
    """
    states, shown = [record.standing.state for record in sweep.records], sweep.folder.shown
    if (left := states.count("waiting") + states.count("paused")) > 0:
        over = f"the {sweep.options.minutes:g} minutes are over with {left} of {len(states)} runs unfinished"
        sweep.telling.line(f"{over}; go on with: {go_on} --minutes MORE")
    print(printable(f"All runs side by side: {shown / PAGE_FILE}; as a table: {shown / TABLE_FILE}"))
    if (best := sweep.best) is not None:
        path = shown / "runs" / best.name
        look = to_type("view", path, *_naming(sweep.configs[best.name]))
        said = f"The best of {states.count('done')}, {sweep.options.score} {best.score:.3f}, lies in {path}"
        print(printable(f"{said}. Look at it: {look}"))
    failed = [record for record in sweep.records if record.standing.state == "failed"]
    if failed:
        first = f"{failed[0].name}: {failed[0].error}"
        raise RunsFailed(f"{len(failed)} of {len(states)} runs failed ({first}); the same command tries them again")


def _naming(config: Config) -> list[str]:
    volume = config.volume["class_path"]
    return [] if volume.startswith("mnist3d.") else ["--volume", volume]
