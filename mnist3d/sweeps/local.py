"""Sessions on this machine: a thread for each, which waits for its process.

Cores are shared out by number: each process has as many threads as cores. None is tied to a core, as a second sweep
would be tied to the same ones; `taskset` around the sweep is obeyed, by its number of cores and by all its processes.
"""

import os
import queue
import threading
from dataclasses import replace

from ..errors import ConfigError
from .jobs import GRACE, Job, Outcome, run_job


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch  # only who asks for GPUs needs it

    return [str(number) for number in range(torch.cuda.device_count())]


def gpu_places(gpus: float, devices: list[str]) -> list[str]:
    """What each place sees, as CUDA_VISIBLE_DEVICES has it.

    Args:
        gpus: that a run has, > 0; below 1, runs share one.
        devices: there are.

    Raises:
        ConfigError: there are fewer than one run needs.
    """
    if gpus < 1.0:
        shared = [device for _ in range(int(1.0 / gpus + 1e-9)) for device in devices]
    else:
        count = int(gpus)
        shared = [",".join(devices[k : k + count]) for k in range(0, len(devices) - count + 1, count)]
    if not shared:
        raise ConfigError(f"gpus={gpus:g}: this machine has {len(devices)}; must be less, 0 computes on processors")
    return shared


class LocalExecutor:
    """Sessions on this machine.

    Args:
        cores: of a run, >= 1.
        gpus: of a run; 0: none is seen by it.
        at_once: sessions at the same time; None: as many as there are cores and GPUs for.

    Raises:
        ConfigError: the machine has not enough for one run.
    """

    def __init__(self, cores: int = 1, gpus: float = 0.0, at_once: int | None = None) -> None:
        here = usable_cores()
        if cores > here:
            raise ConfigError(f"cores={cores}: this machine has {here}; must be {here} or less")
        free = gpu_places(gpus, visible_gpus()) if gpus else [""] * (at_once or here // cores)
        self._free = free if at_once is None else free[:at_once]
        self._places = len(self._free)
        self._taken: dict[str, tuple[threading.Event, str]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    @property
    def places(self) -> int:
        """Sessions at the same time."""
        return self._places

    def submit(self, job: Job) -> None:
        """Begin a session."""
        stop, seen = threading.Event(), self._free.pop(0)
        self._taken[job.name] = stop, seen
        job = replace(job, variables={**job.variables, "CUDA_VISIBLE_DEVICES": seen})
        thread = threading.Thread(target=self._run, args=(job, stop), name=f"sweep {job.name}", daemon=True)
        self._threads[job.name] = thread
        thread.start()

    def poll(self) -> list[Outcome]:
        """The sessions that have ended."""
        found = []
        while not self._ended.empty():
            outcome = self._ended.get()
            self._free.append(self._taken.pop(outcome.name)[1])
            self._threads.pop(outcome.name).join()
            found.append(outcome)
        return found

    def cancel(self, name: str) -> None:
        """Ask a session to save and end."""
        if name in self._taken:
            self._taken[name][0].set()

    def close(self) -> None:
        """End all."""
        for stop, _ in self._taken.values():
            stop.set()
        for thread in self._threads.values():
            thread.join(GRACE)

    def _run(self, job: Job, stop: threading.Event) -> None:
        try:
            self._ended.put(run_job(job, stop))
        except Exception as error:  # a mistake of ours ends this run, not the sweep
            self._ended.put(Outcome(job.name, None, f"{type(error).__name__}: {error}"))
