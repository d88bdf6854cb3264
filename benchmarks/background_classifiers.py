"""What a run loses while its classifiers are trained beside it: python benchmarks/background_classifiers.py

A run whose images have no classifiers yet. Every few seconds the process that trains them is stopped, or goes on, and
each time the run's steps are counted: so what else the machine does falls on both alike. Prints JSON: steps a second
with and without, the median of the ratios of neighbours with its quartiles, and the processor time that the process
got. POSIX only.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import tempfile
import time

import psutil

from mnist3d.callbacks.classifier_training import ClassifierTraining
from mnist3d.cli.parser import parse_command_line
from mnist3d.runs.building import build_run
from mnist3d.training.report import StepReport
from mnist3d.training.trainer import Trainer

WARM_UP = 40  # steps, which compile and load


class Switch:
    """A callback that stops the process and lets it go on, and counts steps in between.

    Args:
        seconds: between two changes.
        count: of changes, after which the run ends.
    """

    def __init__(self, seconds: float, count: int) -> None:
        self.seconds, self.count, self.stopped = seconds, count, False
        self.rates: list[tuple[bool, float]] = []
        self.began: tuple[float, int] | None = None
        self.processor = 0.0

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Change where it is time."""
        children = psutil.Process().children()
        if report.step < WARM_UP or not children:
            return
        now = time.monotonic()
        if self.began is not None and now - self.began[0] < self.seconds:
            return
        if self.began is not None:
            since, step = self.began
            self.rates.append((self.stopped, (report.step - step) / (now - since)))
            with contextlib.suppress(psutil.Error):
                self.processor = sum(children[0].cpu_times()[:2])
        self.stopped = not self.stopped
        os.kill(children[0].pid, signal.SIGSTOP if self.stopped else signal.SIGCONT)
        self.began = time.monotonic(), report.step
        trainer.stop_requested = len(self.rates) >= self.count

    def finish(self, trainer: Trainer) -> None:
        """Nothing is left to do."""


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="between two changes")
    parser.add_argument("--count", type=int, default=24, help="of changes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # where no classifiers lie
        words = ["--data.limit", "1000", "--viewer.enabled", "false", "--volume.grow_at", "null"]
        parts = build_run(parse_command_line([*words, "--run_dir", f"{folder}/run"]))
        switch = Switch(options.seconds, options.count)
        training = [each for each in parts.callbacks if isinstance(each, ClassifierTraining)]
        parts.trainer.run([*training, switch])
        parts.run.release()
    ratios = [
        one / other for (stopped, one), (_, other) in zip(switch.rates, switch.rates[1:], strict=False) if not stopped
    ]
    result = {
        "steps_per_s_beside": round(statistics.median(rate for stopped, rate in switch.rates if not stopped), 2),
        "steps_per_s_alone": round(statistics.median(rate for stopped, rate in switch.rates if stopped), 2),
        "ratio_quartiles": [round(each, 3) for each in statistics.quantiles(ratios, n=4)],
        "process_cpu_s": round(switch.processor, 2),
        "share_trained": round(training[0].share, 3),
        "windows": len(switch.rates),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
