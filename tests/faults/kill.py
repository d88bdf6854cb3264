"""Kill -9 at random moments: nothing that was saved is lost, and what is resumed ends with the same bits.

    python tests/faults/kill.py --rounds 200 --seed 0 --output kills.json

POSIX only, some minutes of one core. A round is one kill of a run or an export that has not ended yet. A run is killed
a few times, resumed each time, and then left to end; its volume must be that of a run that nobody disturbed, to the
bit. What is killed:

    training     while it saves after every third step
    growing      a volume that is refined twice on the way
    rewinding    a run that the watchdog takes back once: one weight becomes NaN at a step, before the first save
    saving       while it saves after every step
    saving beside  the same, the disk waited for beside the training, as for a large state
    two sessions a second one of the same run is refused while the first lives, and takes over when it was killed
    exporting    an orbit, voxels and a mesh over files that are there: each stays the old one or is the new one
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
sys.path.insert(0, str(Path(__file__).parents[1]))

from fork_server import forked, import_once

TINY = "--trainer.views 4 --volume.resolution 12 --renderer.image_size 12 --data.limit 40 --viewer.enabled false"
TINY += " --discriminator.channels [4,8] --scorecard.every 0 --trainer.max_steps 30"
GO_ON = ["--viewer.enabled", "false"]
# At one step of the whole run, before its first save, so that every session goes back to the same state.
ONE_NAN = """
import torch
from mnist3d.training.trainer import Trainer
whole = Trainer._step
def wounded(trainer):
    if trainer.steps_done == 6 and trainer.rate_scale == 1.0:
        with torch.no_grad():
            next(trainer.volume.parameters()).view(-1)[0] = float("nan")
    return whole(trainer)
Trainer._step = wounded
"""
BESIDE = "import mnist3d.callbacks.checkpoints as saves\nsaves.LARGE = 0"
RUNS: dict[str, tuple[str, str]] = {  # more arguments, and a patch
    "training": ("--trainer.save_every 3steps", ""),
    "growing": ("--trainer.save_every 4steps --volume.grow_at [0.3,0.6]", ""),
    "rewinding": ("--trainer.save_every 8steps", ONE_NAN),
    "saving": ("--trainer.save_every 1steps", ""),
    "saving beside": ("--trainer.save_every 1steps", BESIDE),
    "two sessions": ("--trainer.save_every 3steps --seed 1", ""),
}
EXPORTS: dict[str, list[str]] = {
    "orbit.mp4": ["orbit", "--frames", "30", "--size", "96"],
    "voxels.npz": ["voxels", "--resolution", "96"],
    "voxels.nrrd": ["voxels", "--resolution", "96"],
    "mesh.ply": ["mesh", "--resolution", "64"],
}
EXPORTED = "saving"  # the run that is exported
BEGUN = ("starting at step", "going on at step")
KILLS_OF_A_RUN = (2, 6)
HANG = 600.0  # s without an end: something waits for ever


@dataclass
class Count:
    """What became of the rounds of one kind.

    Args:
        kills: processes that were killed before they ended.
        resumed: sessions that went on from a checkpoint.
        begun_again: sessions killed before there was one.
        ended: runs, or exports, that were left to end.
        refused: second sessions that were refused, as they must be.
        lost: checkpoints that were there and were not after a kill, or older; files of which half was there.
        other_bits: ends that differ from that of an undisturbed run.
        litter: temporary folders that were still there at the end.
    """

    kills: int = 0
    resumed: int = 0
    begun_again: int = 0
    ended: int = 0
    refused: int = 0
    lost: int = 0
    other_bits: int = 0
    litter: int = 0


class Harness:
    """Starts commands in forks of this process, and kills them.

    Args:
        folder: everything lies below it.
        chance: draws the moments.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.log, self.seconds = folder / "log", {"run": 0.5, **dict.fromkeys(EXPORTS, 0.5)}

    def start(self, arguments: list[str], patch: str = "", log: Path | None = None) -> int:
        """A command, in a process group of its own."""
        number = os.open(log or self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            return forked(arguments, folder=self.folder, out=number, err=number, patch=patch)
        finally:
            os.close(number)

    def end(self, pid: int) -> int:
        """Its exit code."""
        began = time.monotonic()
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() - began > HANG:
                os.killpg(pid, signal.SIGKILL)
                raise SystemExit(f"hangs: {self.said()}")
            time.sleep(0.002)

    def run(self, arguments: list[str], patch: str = "") -> None:
        """A command that must succeed."""
        if (code := self.end(self.start(arguments, patch))) != 0:
            raise SystemExit(f"{' '.join(arguments)}: exit code {code}\n{self.said()}")

    def killed(self, pid: int, length: float, begun: Callable[[], bool]) -> bool:
        """Kill it at a random moment, mostly once it has begun; False if it had ended before."""
        over = time.monotonic() + HANG
        if self.chance.random() < 0.85:
            while not begun() and time.monotonic() < over:
                if self._has_ended(pid):
                    return False
                time.sleep(0.001)
        until = time.monotonic() + self.chance.uniform(0.0, length)
        while time.monotonic() < until:
            if self._has_ended(pid):
                return False
            time.sleep(0.0005)
        if self._has_ended(pid):
            return False
        os.killpg(pid, signal.SIGKILL)
        return self.end(pid) == -signal.SIGKILL

    def _has_ended(self, pid: int) -> bool:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def said(self) -> str:
        """What the last command has said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def has_begun(self) -> bool:
        """Whether a run says so."""
        return any(mark in self.said() for mark in BEGUN)


def weights(run: Path) -> tuple[int, str]:
    """Step and weights of a run's volume: -1 where there is none; an error where it is damaged."""
    path = run / "volume.safetensors"
    if not path.is_file():
        return -1, ""
    content = path.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    length = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    if len(content) != size + length:
        raise ValueError("cut off")
    return json.loads(header["__metadata__"]["mnist3d"])["step"], hashlib.sha256(content[size:]).hexdigest()


def litter(folder: Path) -> int:
    """Temporary folders below a folder."""
    return sum(".writer" in names or (not names and not inner) for place, inner, names in os.walk(folder)
               if Path(place).name.startswith("."))  # fmt: skip


def kill_run(harness: Harness, kind: str, number: int, count: Count, most: int) -> None:
    """One run that is killed a few times, and resumed until it ends."""
    more, patch = RUNS[kind]
    run = harness.folder / f"{kind.replace(' ', '-')}-{number}"
    new = ["train", *TINY.split(), *more.split(), "--run_dir", run.name]
    kills, best = min(most, harness.chance.randint(*KILLS_OF_A_RUN)), -1
    while True:
        resumes = (run / "resume.pt").is_file()
        if not resumes:
            shutil.rmtree(run, ignore_errors=True)
        count.resumed, count.begun_again = count.resumed + resumes, count.begun_again + (not resumes and best >= 0)
        pid = harness.start(["train", "--resume", run.name, *GO_ON] if resumes else new, patch)
        if kind == "two sessions" and kills > 0:
            _second_is_refused(harness, pid, run, count)
        if kills <= 0:
            break
        if not harness.killed(pid, harness.seconds["run"], harness.has_begun):
            break
        kills, count.kills = kills - 1, count.kills + 1
        try:
            step = weights(run)[0]
        except (OSError, ValueError, KeyError):
            step = -2
        count.lost += step < best
        count.begun_again += step < 0 and best < 0
        best = max(best, step)
    code = harness.end(pid) if kills <= 0 or _alive(pid) else 0
    if code != 0 and "is complete" not in harness.said():
        count.lost += 1
        print(f"{kind}: {harness.said()}", file=sys.stderr)
    count.ended += 1
    count.other_bits += weights(run) != harness_reference(harness, kind)
    if (
        "is complete" not in harness.said()
    ):  # a killed session may have saved its last step, and left no work for others
        count.litter += litter(run)
    shutil.rmtree(run)


def _alive(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def harness_reference(harness: Harness, kind: str) -> tuple[int, str]:
    """Step and weights of the undisturbed run; made when first asked for."""
    more, patch = RUNS[kind]
    run = harness.folder / f"whole-{kind.replace(' ', '-')}"
    if not run.exists():
        began = time.monotonic()
        pid = harness.start(["train", *TINY.split(), *more.split(), "--run_dir", run.name], patch)
        while not harness.has_begun() and not harness._has_ended(pid):
            time.sleep(0.002)
        began = time.monotonic()
        if harness.end(pid) != 0:
            raise SystemExit(harness.said())
        harness.seconds["run"] = time.monotonic() - began
        if kind == "rewinding" and "rewinds" not in harness.said() and "back at step" not in harness.said():
            raise SystemExit(f"no rewind: {harness.said()}")
    return weights(run)


def _second_is_refused(harness: Harness, first: int, run: Path, count: Count) -> None:
    """While the first session has the run, a second one is refused in one line."""
    while not (run / "resume.pt").is_file() or not harness.has_begun():
        if harness._has_ended(first):
            return
        time.sleep(0.002)
    log = harness.folder / "second"
    os.kill(first, signal.SIGSTOP)  # or it could end before the second has asked
    code = harness.end(harness.start(["train", "--resume", run.name, *GO_ON], log=log))
    os.kill(first, signal.SIGCONT)
    said = log.read_text(encoding="utf-8")
    # The first may have finished its work already.
    if code == 2 and ("in use by another process" in said or "is complete" in said):
        count.refused += 1
    else:
        count.lost += 1
        print(f"a second session: {code} {said}", file=sys.stderr)


def kill_export(harness: Harness, name: str, count: Count) -> None:
    """An export over a file that is there, killed; then once more, to the end."""
    folder = harness.folder / "exports"
    folder.mkdir(exist_ok=True)
    command, *options = EXPORTS[name]
    path = folder / name
    arguments = [command, f"whole-{EXPORTED}", "--output", str(path.relative_to(harness.folder)), *options]
    if not path.exists():
        began = time.monotonic()
        harness.run(arguments)
        harness.seconds[name] = time.monotonic() - began
        (harness.folder / f"whole-{name}").write_bytes(path.read_bytes())
    new, old = (harness.folder / f"whole-{name}").read_bytes(), b"the file that was there\n" * 1000
    path.write_bytes(old)
    pid = harness.start(arguments)
    if harness.killed(pid, harness.seconds[name], lambda: any(folder.glob(f".{name}.*"))):
        count.kills += 1
        count.lost += _dateless(path.read_bytes()) not in (old, _dateless(new))
    elif _alive(pid):
        harness.end(pid)
    harness.run(arguments)
    count.ended += 1
    count.other_bits += _dateless(path.read_bytes()) != _dateless(new)
    count.litter += litter(folder)


def _dateless(content: bytes) -> bytes:
    """A NRRD file says when it was written."""
    return re.sub(rb"# on [^\n]*\n", b"", content[:1000]) + content[1000:] if content[:4] == b"NRRD" else content


def kill_many(rounds: int, seed: int, kinds: list[str], folder: Path) -> dict[str, Count]:
    """So many kills, spread evenly.

    Args:
        rounds: kills, at least.
        seed: of the moments.
        kinds: of what is killed.
        folder: an empty one.
    """
    harness = Harness(folder, random.Random(seed))
    counts = {kind: Count() for kind in kinds}
    for kind in kinds:
        harness_reference(harness, EXPORTED if kind == "exporting" else kind)
    for number in range(20 * rounds):
        left = rounds - sum(count.kills for count in counts.values())
        if left <= 0:
            break
        kind = min(kinds, key=lambda kind: counts[kind].kills + counts[kind].ended / 100)
        if kind == "exporting":
            kill_export(harness, [*EXPORTS][number % len(EXPORTS)], counts[kind])
        else:
            kill_run(harness, kind, number, counts[kind], left)
    return counts


def main() -> None:
    """Kill, and say what was lost; exit code 1 where anything was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="kills (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default %(default)s)")
    kinds = [*RUNS, "exporting"]
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds, help="kinds (default all)")
    parser.add_argument("--output", type=Path, help="JSON file for the counts")
    options = parser.parse_args()
    import_once()
    folder = Path(tempfile.mkdtemp(prefix="kill-"))
    try:
        counts = kill_many(options.rounds, options.seed, options.only, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    names = [*asdict(Count())]
    print(f"{'':14}" + "".join(f"{name:>13}" for name in names))
    for kind, count in counts.items():
        print(f"{kind:14}" + "".join(f"{asdict(count)[name]:13}" for name in names))
    if options.output is not None:
        record = {"rounds": options.rounds, "seed": options.seed, "counts": {k: asdict(c) for k, c in counts.items()}}
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(count.lost or count.other_bits or count.litter for count in counts.values()))


if __name__ == "__main__":
    main()
