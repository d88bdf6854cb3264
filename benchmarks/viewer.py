"""What the viewer costs a training, and how fast a page answers a hand that turns the volume.

    python benchmarks/viewer.py --run runs/NAME --output benchmarks/results/viewer-0.2.0.json

All at 48^3, unless told otherwise: the default run's grid is coarser at first and finer later. Slow-down: blocks of
steps of the first part (before the nearest-image loss begins), between blocks without viewer: one with a page open
that has been looked at for some seconds, read by the run's classifiers as in any run, one with the viewer and no page,
and for control one without viewer; the median of the ratios to the two neighbours' geometric mean. Noise that only
ever slows down draws all three medians a little below 0; "beyond control" is free of that. Latency: from a page's
request to the view, over a socket on this machine, training paused, and with a training that goes on. "processor"
compares the whole process's processor time, the client's included, which other programs disturb less: with one thread
on a core of its own the two are the same. "attributed" counts the processor time of the viewer's threads and of its
callback instead: exact, but blind to what they do to caches and locks. "drawing" is the processor time of one view on
one core, which other programs disturb least, and "shading" that of what is computed once a snapshot for shaded views.
With --run, latency and drawing are of that finished run's volume, else of an untrained one.
"""

import argparse
import json
import os
import random
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mnist3d import load_run
from mnist3d.callbacks.live_page import LivePage, start_page
from mnist3d.cli.parser import parse_command_line
from mnist3d.evaluation import Classifiers
from mnist3d.rendering import Shading
from mnist3d.runs.building import build_classifiers, build_trainer
from mnist3d.runs.config import Config
from mnist3d.storage.environment import environment
from mnist3d.training.trainer import Callback, Trainer
from mnist3d.viewer import Scene, Snapshot, Viewer, ViewerOptions
from mnist3d.viewer.drawing import drawn_view
from mnist3d.viewer.messages import png
from mnist3d.viewer.scene import View
from mnist3d.volumes.wrappers import FrozenField

WAYS = {"exact": 128, "shaded": 256}  # of looking: pixels
REPEATS = 30  # of drawing
SETTLING = 30  # steps after a page was opened, while it is drawn for the first time
RESAMPLES = 4000
GRID = ["--volume.resolution", "48", "--volume.grow_at", "null"]  # one pace from the first step to the last
ORBIT_STEP = 0.05  # radians between two views of a hand that turns


class Page(threading.Thread):
    """A page without a browser: takes every view in, and turns the volume if asked to.

    Args:
        viewer: that serves it.
        turning: ask for the next view as soon as one has arrived.
        views: end after so many; 0 for when the viewer ends.
        style: of the views.
    """

    def __init__(self, viewer: Viewer, turning: bool, views: int = 0, style: str = "exact") -> None:
        super().__init__(daemon=True)
        self.address = f"ws://127.0.0.1:{viewer.port}/socket?token={viewer.access.token}"
        self.turning, self.views = turning, views
        self.look = {"size": WAYS[style], "style": style}
        self.latencies: list[float] = []
        self.ready = threading.Event()
        self.done = threading.Event()

    def run(self) -> None:
        """Talk until told to end."""
        from websockets.exceptions import ConnectionClosed
        from websockets.sync.client import connect

        with connect(self.address, compression=None, proxy=None, close_timeout=1) as wire:
            number, asked = 1, time.perf_counter()
            wire.send(json.dumps({"view": {**self.look, "number": number}}))
            while not self.done.is_set():
                try:
                    data = bytes(wire.recv(timeout=1.0, decode=False))
                except TimeoutError:
                    continue
                except ConnectionClosed:
                    break
                message: dict[str, Any] = {"received": 1}
                head = json.loads(data[4 : 4 + struct.unpack(">I", data[:4])[0]])
                if head["kind"] == "frame" and head["number"] == number and self.turning:
                    self.latencies.append(1000.0 * (time.perf_counter() - asked))
                    if len(self.latencies) == self.views:
                        break
                    number, asked = number + 1, time.perf_counter()
                    view = {**self.look, "number": number, "azimuth": ORBIT_STEP * number, "moving": True}
                    message["view"] = view
                self.ready.set()
                try:
                    wire.send(json.dumps(message))
                except ConnectionClosed:
                    break
        self.ready.set()


MEASURES = ("wall", "processor")
KINDS = ("page", "no_page", "control")
Seconds = tuple[float, float]  # as MEASURES


def timed(trainer: Trainer, callbacks: list[Any], steps: int) -> Seconds:
    """Wall seconds, and the whole process's processor seconds, for so many steps, callbacks included."""
    began, used = time.perf_counter(), time.process_time()
    for _ in range(steps):
        report = trainer.step()
        for live in callbacks:
            live.after_step(trainer, report)
    return time.perf_counter() - began, time.process_time() - used


def opened(live: LivePage, style: str = "exact") -> Page:
    """A page that looks on, after what is saved up for it is gone: that is spent once, not all along."""
    page = Page(live.viewer, turning=False, style=style)
    page.start()
    page.ready.wait(10.0)
    live.viewer.allowance.pay(live.viewer.allowance.saved())
    return page


def page_of(trainer: Trainer, config: Config) -> LivePage:
    """As a run starts it: with the classifiers that read its views, where there are any."""
    found = build_classifiers(config, print)
    classifiers = found if isinstance(found, Classifiers) else None
    page = start_page(ViewerOptions(port=0), trainer, "benchmark", classifiers, None)
    assert page is not None
    return page


def slow_down(steps: int, rounds: int, arguments: list[str]) -> dict[str, Any]:
    """Per cent by which each kind is slower than its neighbours without viewer.

    A round is none, page, none, no page, none, control: a machine that becomes slower or faster does so for both sides
    of a ratio, and no two ratios of a kind share a measurement.
    """
    config = parse_command_line([*GRID, *arguments, "--trainer.max_steps", "1000000"]).config
    trainer = build_trainer(config)
    timed(trainer, [], 10)
    live = page_of(trainer, config)
    callbacks: list[Callback] = [live]
    ratios: dict[str, list[float]] = {f"{kind}_{of}": [] for kind in KINDS for of in MEASURES}
    before = timed(trainer, [], steps)
    for kind in KINDS * rounds:
        page = None
        if kind == "page":
            page = opened(live)
            timed(trainer, callbacks, SETTLING)
        own = timed(trainer, [] if kind == "control" else callbacks, steps)
        if page is not None:
            page.done.set()
            page.join(10.0)
        after = timed(trainer, [], steps)
        for of, middle, *around in zip(MEASURES, own, before, after, strict=True):
            ratios[f"{kind}_{of}"].append(100.0 * (middle / statistics.geometric_mean(around) - 1.0))
        print(f"{kind}: {ratios[f'{kind}_wall'][-1]:+.1f} %", flush=True)
        before = after
    live.viewer.close()
    found: dict[str, Any] = {kind: spread(values, "per cent slower") for kind, values in ratios.items()}
    found["beyond control"] = {
        f"{kind}_{of}": round(found[f"{kind}_{of}"]["median"] - found[f"control_{of}"]["median"], 2)
        for kind in KINDS[:2]
        for of in MEASURES
    }
    return found


def first_scene(trainer: Trainer, run: Path | None) -> Scene:
    """What is looked at: a finished run, or the untrained volume."""
    if run is None:
        return Scene("benchmark", trainer.renderer.options, Snapshot(FrozenField(trainer.averaged), 0))
    finished = load_run(run)
    return Scene("benchmark", finished.renderer.options, Snapshot(FrozenField(finished.volume), 0))


def latency(views: int, arguments: list[str], run: Path | None) -> dict[str, Any]:
    """Milliseconds from request to view: at rest, then beside a training."""
    trainer = build_trainer(parse_command_line([*GRID, *arguments, "--trainer.max_steps", "1000000"]).config)
    timed(trainer, [], 5)
    viewer = Viewer(ViewerOptions(port=0), first=first_scene(trainer, run))
    viewer.start()
    found = {}
    for style, size in WAYS.items():
        for kind in ("paused", "training"):
            viewer.allowance.unlimited = kind == "paused"
            page = Page(viewer, turning=True, views=views, style=style)
            page.start()
            while page.is_alive():
                timed(trainer, [], 1) if kind == "training" else page.join(0.2)
            name = f"{style} {size}, {kind}"
            found[name] = spread(page.latencies[3:], "milliseconds")
            print(f"{name}: {found[name]}", flush=True)
    viewer.close()
    return found


def drawing(arguments: list[str], run: Path | None) -> dict[str, Any]:
    """Milliseconds of one core's processor time: a view as it is drawn and packed, and a shading."""
    trainer = build_trainer(parse_command_line([*GRID, *arguments]).config)
    scene, found, usual = first_scene(trainer, run), {}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        shading = Shading(scene.snapshot.volume)
        work: dict[str, Callable[[int], object]] = {"shading": lambda _: Shading(scene.snapshot.volume)}
        for style, size in (*WAYS.items(), ("exact", WAYS["shaded"])):

            def view(k: int, style: str = style, size: int = size) -> bytes:
                look = View.from_message({"style": style, "size": size, "azimuth": ORBIT_STEP * k})
                return png(drawn_view(scene.snapshot, scene.renderer, look, shading=shading))

            work[f"{style} {size}"] = view
        for name, make in work.items():
            make(0)
            took = []
            for k in range(REPEATS):
                began = time.thread_time()
                make(k)
                took.append(1000.0 * (time.thread_time() - began))
            found[name] = spread(took, "milliseconds")
            print(f"{name}: {found[name]}", flush=True)
    finally:
        torch.set_num_threads(usual)
    return found


def attributed(steps: int, arguments: list[str]) -> dict[str, Any]:
    """What the viewer's threads and its callback use, in per cent of the training's own time; Linux only."""
    config = parse_command_line([*GRID, *arguments, "--trainer.max_steps", "1000000"]).config
    trainer = build_trainer(config)
    live = page_of(trainer, config)
    found = {}
    for kind in ("no_page", "page", "shaded_page"):
        page = None if kind == "no_page" else opened(live, "shaded" if kind == "shaded_page" else "exact")
        if page is not None:
            timed(trainer, [live], SETTLING)
        clocks = [
            time.pthread_getcpuclockid(thread.ident)
            for thread in threading.enumerate()
            if thread.name.startswith("mnist3d-") and thread.ident is not None
        ]
        threads_before, live_used, training_used = sum(map(time.clock_gettime, clocks)), 0.0, 0.0
        for _ in range(steps):
            began = time.thread_time()
            report = trainer.step()
            stepped = time.thread_time()
            live.after_step(trainer, report)
            training_used += stepped - began
            live_used += time.thread_time() - stepped
        used = sum(map(time.clock_gettime, clocks)) - threads_before + live_used
        if page is not None:
            page.done.set()
            page.join(10.0)
        found[kind] = {"per cent": round(100.0 * used / training_used, 2), "training seconds": round(training_used, 1)}
        print(f"attributed, {kind}: {found[kind]}", flush=True)
    live.viewer.close()
    return found


def spread(values: list[float], unit: str) -> dict[str, Any]:
    """Median, quartiles, and an interval that holds the median 19 times in 20 (bootstrap, percentiles)."""
    low, _, high = statistics.quantiles(values, n=4)
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    interval = medians[RESAMPLES // 40], medians[-RESAMPLES // 40 - 1]
    return {
        "median": round(statistics.median(values), 2),
        "interval": [round(value, 2) for value in interval],
        "quartiles": [round(low, 2), round(high, 2)],
        "n": len(values),
        "unit": unit,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="in each measurement (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="of six measurements (default %(default)s)")
    parser.add_argument("--views", type=int, default=150, help="of each latency (default %(default)s)")
    parser.add_argument("--run", type=Path, help="finished run whose volume is looked at; default an untrained one")
    parser.add_argument("--output", type=Path, help="JSON file")
    options, rest = parser.parse_known_args()
    if options.rounds < 2 or options.views < 5:
        parser.error("at least 2 rounds and 5 views are needed for a median and its quartiles")
    began_load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    record = {
        "drawing": drawing(rest, options.run),
        "latency": latency(options.views, rest, options.run),
        "attributed": attributed(6 * options.steps, rest) if hasattr(time, "pthread_getcpuclockid") else None,
        "slow_down": slow_down(options.steps, options.rounds, rest),
        "threads": torch.get_num_threads(),
        "load_before": began_load,
        "load_after": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "environment": environment("cpu"),
    }
    print(json.dumps({key: record[key] for key in ("slow_down", "attributed", "latency", "drawing")}, indent=2))
    if options.output is not None:
        options.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
