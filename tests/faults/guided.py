"""The part of `fuzz_readers.py` that libFuzzer guides by what code a mutation reaches, through atheris.

Started by `fuzz_readers.py --minutes`; it starts itself again for each part.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

PART_SECONDS = 90.0


def guided(reader: str, minutes: float, seed: int) -> int:
    """Mutations that libFuzzer chooses by what code they reach.

    In parts of a minute and a half, each in a process of its own that goes on with the files of the part before: the
    fuzzer itself keeps some 10 KiB an execution.
    """
    import fuzz_readers

    end, part, figures = time.monotonic() + 60.0 * minutes, 0, list[list[float]]()
    with tempfile.TemporaryDirectory(dir=fuzz_readers.fast_folder()) as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, content in enumerate(fuzz_readers.seeds(reader)):
            (corpus / str(number)).write_bytes(content)
        while (left := end - time.monotonic()) > 1.0:
            given = [reader, str(min(left, PART_SECONDS)), str(seed + part), folder]
            code = subprocess.run([sys.executable, __file__, *given], stdout=subprocess.DEVNULL).returncode
            if not (report := Path(folder) / "report.json").exists():
                print(f"WRONG {reader}: part {part} ended with code {code} and no report; its files: {corpus}")
                return 1
            figures.append(json.loads(report.read_text()))
            report.unlink()
            part += 1
    executions, read, slowest, peak, found = (list(column) for column in zip(*figures, strict=True))
    print(
        f"{reader}: {sum(executions):,.0f} executions guided by coverage, in {part} parts, {sum(read):,.0f} read, "
        f"slowest {max(slowest):.2f} s, peak {max(peak):.0f} MiB of the whole process, {sum(found):.0f} findings"
    )
    return int(any(found))


def _guided_part(reader: str, seconds: float, seed: int, folder: Path) -> int:
    import fuzz_readers

    atheris: Any = importlib.import_module("atheris")
    ours = [f"mnist3d.{each}" for each in ("formats", "volumes", "storage", "runs.archive")]
    with atheris.instrument_imports(include=[*ours, "nrrd"]):
        import nrrd  # noqa: F401

        import mnist3d.runs.archive
        import mnist3d.volumes  # noqa: F401
    target, end = fuzz_readers.Target(reader, folder), time.monotonic() + seconds

    def once(content: bytes) -> None:
        target(content)
        if time.monotonic() > end:
            figures = [target.executions, target.read, target.slowest, fuzz_readers.peak(), len(target.found)]
            (folder / "report.json").write_text(json.dumps(figures))
            os._exit(0)

    options = [f"-max_total_time={int(seconds) + 60}", f"-seed={seed + 1}", "-rss_limit_mb=0", "-timeout=60"]
    atheris.Setup([sys.argv[0], *options, "-max_len=200000", "-print_final_stats=0", str(folder / "corpus")], once)
    atheris.Fuzz()
    return 1


if __name__ == "__main__":
    sys.exit(_guided_part(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
