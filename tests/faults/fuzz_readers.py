"""Hostile volume files, and mutated ones: each reader refuses in one line, or reads.

    python tests/faults/fuzz_readers.py                             the hostile files: each in a process of its own
    python tests/faults/fuzz_readers.py --only "vti"                those of one format
    python tests/faults/fuzz_readers.py --minutes 10 --reader nrrd  valid files, mutated, guided by coverage (atheris)
    python tests/faults/fuzz_readers.py --executions 100            100 mutations a reader, by the seed alone

A finding is any exception that is no UserError, a signal, 10 s of the processor, a message of several lines, more than
1 GiB for what is refused, or more than four times the finished array for what is read. Linux only.
"""

import argparse
import gzip
import importlib.util
import io
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
os.environ.setdefault("OMP_NUM_THREADS", "1")

SECONDS, MOST, FREE = 10, 1024.0, 96.0  # of the processor; MiB of what is refused; MiB that any reading may take
FREE_WHILE_FUZZING = 2**29  # bytes
READERS = {  # name: suffix
    **{name: f".{name}" for name in ("npy", "npz", "nrrd", "nii", "nii.gz", "hdr", "mrc", "map.gz", "vti", "vdb")},
    "safetensors": ".safetensors",
    "pt": ".pt",
    "checkpoint": ".resume",
}


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of the name of a format or of a case")
    parser.add_argument("--minutes", type=float, help="of mutations of the files of --reader, guided by coverage")
    parser.add_argument("--executions", type=int, help="mutations of each reader's files, or of those of --reader")
    parser.add_argument("--reader", choices=READERS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.minutes is None and options.executions is None:
        return hostile(options.only)
    if options.minutes is not None:
        if options.reader is None:
            parser.error("--minutes needs --reader")
        if importlib.util.find_spec("atheris") is not None:
            from guided import guided

            return guided(options.reader, options.minutes, options.seed)
        print("atheris is not installed (pip install atheris): not guided by coverage")
        return _for_minutes(options.reader, options.minutes, options.seed)
    names = [options.reader] if options.reader else list(READERS)
    return max(mutated(name, options.executions, options.seed) for name in names)


def read(path: Path) -> int:
    """Bytes of what a file holds, once it is read."""
    from mnist3d.formats import read_voxels
    from mnist3d.volumes import load_volume

    if path.suffix == ".resume":
        from mnist3d.runs import archive

        archive.read_archive(path, 2**20)
        return 1
    if path.suffix in (".safetensors", ".pt"):
        return sum(weight.nbytes for weight in load_volume(path).state_dict().values())
    return read_voxels(path, negative="clip", not_finite="empty").nbytes


def hostile(only: str) -> int:
    """Each hostile file in a fork: peak memory over what was there before, time, and what was said."""
    import nibabel.nifti2  # noqa: F401 (so that no import is measured)
    import nrrd  # noqa: F401
    import numcodecs.blosc  # noqa: F401
    import torch
    from volume_cases import CASES

    from mnist3d.formats import read_voxels  # noqa: F401

    torch.zeros(2).sum()
    wrong, count, most = 0, 0, 0.0
    for kind, cases in CASES.items():
        if only in CASES and only != kind:
            continue
        for name, suffix, content in cases():
            if only not in f"{kind} {name}":
                continue
            with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
                path = Path(folder) / f"a{suffix}"
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    content(path)
                said, mib, seconds = _in_fork(path)
            count, most = count + 1, max(most, mib if said.startswith("refused") else 0.0)
            wrong += said.startswith("WRONG")
            print(f"{kind:11} {name:32} {suffix:8} {mib:6.0f} MiB {seconds:5.1f} s  {said[:150]}", flush=True)
    print(f"{count} files, {wrong} wrong, at most {most:.0f} MiB for what is refused")
    return int(wrong > 0)


def fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _in_fork(path: Path) -> tuple[str, float, float]:
    """What became of it, peak memory in MiB, and seconds of the processor."""
    back, out = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(back)
        os.dup2(out, 2)  # whatever a library prints
        resource.setrlimit(resource.RLIMIT_CPU, (4 * SECONDS, 4 * SECONDS))
        begin = peak()
        try:
            said = _outcome(path)
            mib = peak() - begin
            os.write(out, f"\n{mib} {said}".encode("utf-8", "replace"))
        finally:
            os._exit(0)
    os.close(out)
    begin, said = time.monotonic(), b""
    while piece := os.read(back, 2**16):
        said += piece
    os.close(back)
    _, status, usage = os.wait4(pid, 0)
    seconds = usage.ru_utime + usage.ru_stime
    printed, _, told = said.decode("utf-8", "replace").rpartition("\n")
    if os.WIFSIGNALED(status):
        return f"WRONG signal {signal.Signals(os.WTERMSIG(status)).name}", 0.0, seconds
    mib, _, outcome = told.partition(" ")
    if printed.strip():
        outcome = f"WRONG prints {printed.strip()[:100]!r}"
    elif seconds > SECONDS and outcome.startswith("refused"):
        outcome = f"WRONG takes long; {outcome}"
    elif outcome.startswith("refused") and float(mib) > MOST:
        outcome = f"WRONG takes much; {outcome}"
    elif outcome.startswith("read") and float(mib) > max(4.0 * float(outcome.split()[1]), 0.0) + FREE:
        outcome = f"WRONG takes more than four times the array; {outcome}"
    return outcome, float(mib), seconds


def peak() -> float:
    """MiB that the process had at most."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _outcome(path: Path) -> str:
    from mnist3d.errors import UserError

    try:
        return f"read {read(path) / 2**20:.1f} MiB"
    except UserError as error:
        lines = str(error).splitlines()
        return f"refused {lines[0]}" if len(lines) == 1 and len(lines[0]) < 1000 else f"WRONG {len(lines)} lines"
    except ValueError as error:
        if path.suffix == ".resume":
            return f"refused {error}"
        return f"WRONG {traceback.format_exc()[-300:]}".replace("\n", " | ")
    except BaseException:
        return f"WRONG {traceback.format_exc()[-300:]}".replace("\n", " | ")


def seeds(reader: str) -> list[bytes]:
    """Valid files of a reader, in each form."""
    from volume_cases import files_of

    if reader != "checkpoint":
        return [form for content in files_of(reader) for form in forms(reader, content)]
    import torch

    parameter = torch.nn.Parameter(torch.zeros(3, 2))
    optimiser = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimiser.step()
    file = io.BytesIO()
    torch.save({"steps": 3, "optimiser": optimiser.state_dict(), "volume": {"a": parameter.detach()}}, file)
    return forms(reader, file.getvalue())


RAW, OPENED = b"\1", b"\0"  # the first byte of what is mutated
ZIPPED, GZIPPED = ("npz", "pt", "checkpoint"), ("nii.gz", "map.gz")


def forms(reader: str, content: bytes) -> list[bytes]:
    """A valid file as it is, and, of one that has checksums, what is in it: a mutation there reaches the reader."""
    if reader in GZIPPED:
        return [RAW + content, OPENED + gzip.decompress(content)]
    if reader in ZIPPED and zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [(name.encode(), archive.read(name)) for name in archive.namelist()]
        opened = b"".join(bytes([len(name)]) + name + len(each).to_bytes(4, "little") + each for name, each in entries)
        return [RAW + content, OPENED + opened]
    return [RAW + content]


def file_of(reader: str, mutant: bytes) -> bytes:
    """The file of a form, packed again with checksums that are right."""
    first, rest = mutant[:1], mutant[1:]
    if first != OPENED:
        return rest
    if reader in GZIPPED:
        return gzip.compress(rest, 1)
    if reader not in ZIPPED:
        return rest
    packed, stream = io.BytesIO(), io.BytesIO(rest)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two entries of one name
        while length := stream.read(1):
            name = stream.read(length[0]).decode("latin-1").replace("\0", "_") or "_"
            size = int.from_bytes(stream.read(4), "little")
            archive.writestr(zipfile.ZipInfo(name), stream.read(size))
    return packed.getvalue()


class Target:
    """Reads what it is given, and keeps what is wrong, once each."""

    def __init__(self, reader: str, folder: Path) -> None:
        from mnist3d.formats import voxel_array
        from mnist3d.storage import memory

        # A line of voxels becomes a large cube, rightly; here each execution must be quick, and the fuzzer's process
        # stays small: what takes more than this is refused as on a machine that has no more.
        voxel_array.GROWN_FREELY, voxel_array.MOST_GROWTH = 2**18, 64
        memory.free_memory = lambda device="cpu": FREE_WHILE_FUZZING
        self.reader, self.path = reader, folder / f"a{READERS[reader]}"
        self.executions, self.found = 0, dict[str, bytes]()
        self.read, self.slowest = 0, 0.0
        if reader == "hdr":
            self.path.with_suffix(".img").write_bytes(bytes(352 + 864))

    def __call__(self, mutant: bytes) -> None:
        content = file_of(self.reader, mutant)
        self.path.write_bytes(content)
        self.executions += 1
        begin, before = time.process_time(), peak()
        outcome = _outcome(self.path)
        seconds = time.process_time() - begin
        self.slowest = max(self.slowest, seconds)
        self.read += outcome.startswith("read")
        if seconds > SECONDS:
            outcome = f"WRONG takes {seconds:.0f} s"
        if peak() - before > MOST:
            outcome = f"WRONG takes more than {MOST:.0f} MiB"
        if outcome.startswith("WRONG") and outcome not in self.found:
            self.found[outcome] = content
            kept = Path(tempfile.gettempdir()) / f"found_{abs(hash(outcome)) % 10**8}{self.path.suffix}"
            kept.write_bytes(content)
            print(f"{outcome}\n  kept as {kept}", file=sys.stderr, flush=True)

    def report(self, name: str, how: str) -> int:
        """Print the figures; the exit code."""
        print(f"{name}: {self.executions:,} executions {how}, {self.read:,} read, slowest {self.slowest:.2f} s, "
              f"peak {peak():.0f} MiB of the whole process, {len(self.found)} findings", flush=True)  # fmt: skip
        return int(bool(self.found))


def mutated(reader: str, executions: int, seed: int) -> int:
    """Mutations by the seed alone."""
    draw, files = random.Random(f"{seed} {reader}"), seeds(reader)
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        target = Target(reader, Path(folder))
        for content in files:
            target(content)
        if target.read != len(files):
            print(f"{reader}: a valid file is refused: {_outcome(target.path)}")
            return 1
        for _ in range(executions):
            target(mutation(draw, draw.choice(files)))
        return target.report(reader, f"of seed {seed}")


INTERESTING = [0, 1, -1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, -(2**31), 10**9]
WORDS = [b"-1", b"0", b"1e308", b"nan", b"inf", b"99999999999", b"none", b"", b"(", b"\n", b"/etc/passwd", b"LIST"]


def mutation(draw: random.Random, content: bytes) -> bytes:
    """A few bytes, numbers or words are others; parts are lost, doubled or exchanged."""
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        at = draw.randrange(min(len(found), draw.choice((64, 400, len(found)))) or 1)
        match draw.randrange(6):
            case 0:
                found[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                width = draw.choice((1, 2, 4, 8))
                number = draw.choice(INTERESTING) % 2 ** (8 * width)
                found[at : at + width] = number.to_bytes(width, draw.choice(("little", "big")))
            case 2:
                found[at : at + draw.randrange(8)] = draw.choice(WORDS)
            case 3:
                del found[at : at + draw.choice((1, 4, 32, 1000))]
            case 4:
                other = draw.randrange(len(found) + 1)
                found[at:at] = found[other : other + draw.choice((1, 8, 64))]
            case _:
                found[at : at + 1] = bytes([found[at] ^ 1 << draw.randrange(8)]) if at < len(found) else b""
    return bytes(found)


def _for_minutes(reader: str, minutes: float, seed: int) -> int:
    draw, files, end = random.Random(f"{seed} {reader}"), seeds(reader), time.monotonic() + 60.0 * minutes
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        target: Callable[[bytes], None] = Target(reader, Path(folder))
        while time.monotonic() < end:
            target(mutation(draw, draw.choice(files)))
        return target.report(reader, f"of seed {seed}")  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
