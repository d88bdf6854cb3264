"""Checkpoints made wrong at random, each opened by a process of its own: refused in one line, or a run that goes on.

    python tests/faults/checkpoints.py                    300 files, two minutes of one core
    python tests/faults/checkpoints.py --seed 1 --only 17

Linux only. A real `resume.pt` gets other bytes, an end too early, or another value anywhere in its state: of another
shape, precision, order, kind. After that the run takes two steps and saves. A signal, an exception that is no
`RunError`, a message of several lines, a file that cannot be read again, more than a gigabyte of memory or ten seconds
of computing is a fault; with one the exit code is 1.
"""

import argparse
import os
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a fork of a process with threads may hang

import torch
from checkpoint_mutants import REFUSED, TAKEN, at_random, written
from test_trainer import bars
from trainers import make_trainer

from mnist3d.callbacks.checkpoints import Checkpoints
from mnist3d.errors import NotSaved, RunError
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.checkpoint import load_checkpoint
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.training.options import TrainerOptions
from mnist3d.training.trainer import Trainer
from mnist3d.volumes import HashGrid, Volume, VoxelGrid

SECONDS, PEAK = 10, 1024.0  # of the processor; MiB, torch included
VOLUMES: dict[str, Callable[[], Volume]] = {
    "VoxelGrid": lambda: VoxelGrid(8, pyramid=[], grow_at=[2, 4]),
    "HashGrid": lambda: HashGrid(num_levels=3, log2_hashmap_size=8, levels_at=[2], implementation="torch"),
}
WENT_ON, REFUSAL, NOT_SAVED = 0, 2, 3
ENDS = {WENT_ON: "went on", REFUSAL: "refused in one line", NOT_SAVED: "went on into NaN, which was not saved"}


def make(volume: str) -> Trainer:
    """A small run."""
    torch.manual_seed(0)
    options = TrainerOptions(max_steps=30, views=2)
    return make_trainer(VOLUMES[volume](), AbsorptionRenderer(16), bars(count=12), options)


def went(content: bytes, volume: str) -> tuple[int, str]:
    """Open such a checkpoint, go on, save; how that ended and what was said."""
    with tempfile.TemporaryDirectory(prefix="mnist3d-checkpoints-") as folder:
        run, trainer = RunDirectory(folder), make(volume)
        run.resume_path.write_bytes(content)
        try:
            load_checkpoint(trainer, run)
        except RunError as error:
            return (REFUSAL, str(error)) if "\n" not in str(error) else (1, f"several lines: {error!r}")
        trainer.step()
        trainer.step()
        try:
            Checkpoints(run).finish(trainer)
        except NotSaved as error:  # a huge number is a number
            return NOT_SAVED, str(error)
        load_checkpoint(make(volume), run)
    return WENT_ON, f"went on from step {trainer.steps_done - 2}"


def in_fork(content: bytes, volume: str) -> tuple[int, str, float]:
    """`went` in a process of its own; its exit code (-N: signal N), what it said, its peak of memory in MiB."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out)
        code, said = 1, ""
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            code, said = went(content, volume)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(into, said.encode(errors="backslashreplace")[:4000])
        os._exit(code)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        said = pipe.read().decode()
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), said, usage.ru_maxrss / 1024.0


def main() -> int:
    """All cases, and the table of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=300, help="files at random, besides those of the unit tests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of one case, whose message is printed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    saved = {}
    for volume in VOLUMES:
        trainer = make(volume)
        for _ in range(3):
            trainer.step()
        saved[volume] = written(trainer.state_dict())
    counts: Counter[str] = Counter()
    faults, largest = 0, 0.0
    named = [] if options.only is not None else [*REFUSED, *TAKEN]
    numbers = [*range(options.cases)] if options.only is None else [options.only]
    for case in [*named, *numbers]:
        if isinstance(case, str):
            volume, what = "VoxelGrid", case
            content = {**REFUSED, **TAKEN}[case](saved[volume])
        else:
            volume = [*VOLUMES][case % len(VOLUMES)]
            what, content = at_random(saved[volume], 1_000_000 * options.seed + case)
        code, said, peak = in_fork(content, volume)
        largest = max(largest, peak)
        ended = ENDS.get(code, f"signal {-code}" if code < 0 else "error")
        if peak > PEAK:
            ended = "too much memory"
        counts[ended] += 1
        faulty = ended not in ENDS.values()
        faults += faulty
        if faulty or options.only is not None:
            print(f"{case} ({volume}; {what}): {ended}: {said[:500]}")
    print(", ".join(f"{count} {ended}" for ended, count in counts.most_common()), end="")
    print(f"; {faults} faults in {sum(counts.values())} files, peak memory {largest:.0f} MiB")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
