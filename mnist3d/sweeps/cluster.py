"""Sessions on a cluster, through Ray, which is imported here alone: each is a task that waits for its process.

Of Ray: init, remote, wait, get, cancel, cluster_resources, shutdown. All nodes see the sweep's folder under the same
path and have this package; the rest is Ray's.
"""

import time
from typing import Any

from ..errors import ConfigError, one_line
from ..storage.optional import require, to_install
from .jobs import BEAT, GRACE, Job, Outcome, run_job


class RayExecutor:
    """Sessions on a Ray cluster.

    Args:
        address: "auto" for the cluster that this machine belongs to, ray://HOST:PORT or HOST:PORT for another, "local"
            for one that begins and ends with the sweep.
        cores: of a run.
        gpus: of a run.
        at_once: sessions at the same time; None: as many as the cluster has cores and GPUs for.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, cores: int = 1, gpus: float = 0.0, at_once: int | None = None) -> None:
        self._ray: Any = require("ray", f"address={address}:", remedy=to_install("cluster"), error=ConfigError)
        self.cores, self.gpus, self.at_once = cores, gpus, at_once
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            hint = "ray start --head begins one, and without --address the runs are done on this machine"
            reason = one_line(str(error))[:200]
            raise ConfigError(f"address={address}: no Ray cluster answers there ({reason}); {hint}") from None
        # Ray must not begin a lost session again by itself: it would not know that there is a checkpoint.
        self._task = self._ray.remote(max_retries=0)(run_job)
        self._names: dict[Any, str] = {}
        self._began: dict[str, float] = {}

    @property
    def places(self) -> int:
        """As many as the cluster has room for now; nodes come and go."""
        if self.at_once is not None:
            return self.at_once
        found = self._ray.cluster_resources()
        room = found.get("CPU", 0.0) // self.cores
        if self.gpus:
            room = min(room, found.get("GPU", 0.0) / self.gpus + 1e-9)
        return max(1, int(room))

    def submit(self, job: Job) -> None:
        """Hand a session to Ray."""
        task = self._task.options(name=job.name, num_cpus=self.cores, num_gpus=self.gpus or None)
        self._names[task.remote(job)] = job.name
        self._began[job.name] = time.monotonic()

    def poll(self) -> list[Outcome]:
        """The sessions that have ended, well or with their node."""
        if not self._names:
            return []
        ended, _ = self._ray.wait([*self._names], num_returns=len(self._names), timeout=0)
        return [self._outcome(reference, self._names.pop(reference)) for reference in ended]

    def _outcome(self, reference: Any, name: str) -> Outcome:
        seconds, errors = time.monotonic() - self._began.pop(name), self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.TaskCancelledError:
            return Outcome(name, None, "stopped", seconds)
        except errors.RayTaskError as error:
            return Outcome(name, None, one_line(str(error).strip().rpartition("\n")[2]), seconds)
        except errors.RayError as error:
            # the node, the worker or the object is gone; what the run has saved is not
            words = one_line(f"{type(error).__name__}: {error}").partition(". ")[0]
            return Outcome(name, None, words[:200], seconds, lost=True)

    def cancel(self, name: str) -> None:
        """Ask a session to save and end: Ray raises KeyboardInterrupt in it."""
        for reference, known in self._names.items():
            if known == name:
                self._ray.cancel(reference)

    def close(self) -> None:
        """End all, and leave the cluster."""
        for name in [*self._names.values()]:
            self.cancel(name)
        until = time.monotonic() + GRACE
        while self._names and time.monotonic() < until:
            self.poll()
            time.sleep(BEAT)
        self._ray.shutdown()
