"""One step of each variant before time counts, so that what must be compiled is compiled in nobody's time.

Each is made by a process of its own, with the cores and the GPU that a run has. So a class that fails takes no other
with it, and this process takes no memory of a GPU.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from ..runs.at_work import AtWork
from ..runs.config import Config
from ..sweeps.jobs import BEAT, Executor, Job, Outcome, variables_of


def one_step_each(
    configs: Mapping[str, Config], saved: frozenset[str], executor: Executor, module: str, cores: int
) -> dict[str, Outcome]:
    """What came of each, by its name.

    Args:
        configs: of the runs, by their names.
        saved: names of those that go on from a checkpoint: the file that such a run started from is not read again.
        executor: where the runs will be made; none of its places is taken.
        module: what Python runs for a step.
        cores: of a run.
    """
    found: dict[str, Outcome] = {}
    waiting = [*configs]
    doing = "making one step of each variant, which compiles what is not compiled yet"
    with TemporaryDirectory(prefix="mnist3d-") as folder, AtWork(doing) as work:
        for name, config in configs.items():
            config = dataclasses.replace(config, start_from=None) if name in saved else config
            (Path(folder) / f"{name}.yaml").write_text(config.to_yaml(), encoding="utf-8")
        while len(found) < len(configs):
            while waiting and len(configs) - len(waiting) - len(found) < executor.places:
                name = waiting.pop(0)
                words, log = (f"--config={Path(folder) / name}.yaml",), str(Path(folder) / f"{name}.txt")
                executor.submit(Job(name, module, words, str(Path.cwd()), log, variables_of(cores)))
            found |= {outcome.name: outcome for outcome in executor.poll()}
            work.tell(len(found) / len(configs))
            if len(found) < len(configs):
                time.sleep(BEAT)
    return found
