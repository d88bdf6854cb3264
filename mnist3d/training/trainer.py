"""The training loop: grow, draw a batch, prepare every objective, sum their losses, step, average, report.

It knows no objective by name, prints nothing and writes nothing: progress, pictures, files and the page are callbacks.
"""

import copy
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..data.images import ImageSet
from ..geometry.arrays import without_autocast
from ..geometry.rotations import PoseOptions
from ..rendering.renderer import AbsorptionRenderer
from ..volumes.base import Volume
from .averaging import Average
from .checked_state import check_state, load_adam, load_module
from .drawing import unclaimed_rotations
from .objectives.base import Batch, Objective
from .options import ADAM_BETAS, TrainerOptions, rate_factor
from .processes import ALONE, ConnectionLost, Processes
from .report import StepReport, as_numbers
from .step_settings import OneOrder, prepare_cublas, without_tf32

AVERAGE_DECAY = 0.98  # of the averaged volume, each step

# What no rewind turns back.
GOES_ON = ("generator", "torch_rng", "cuda_rng", "steps_done", "seconds_done")


@runtime_checkable
class Callback(Protocol):
    """Something that watches a run."""

    def after_step(self, trainer: "Trainer", report: StepReport) -> None:
        """Called after every step."""

    def finish(self, trainer: "Trainer") -> None:
        """Called once when the run ends, however it ends."""


@runtime_checkable
class Beginner(Protocol):
    """A callback that looks at the run before its first step too."""

    def begin(self, trainer: "Trainer") -> None:
        """Called once before the first step, of a resumed run too."""


class Trainer:
    """Trains a volume: holds its objectives, its optimiser and the random generators.

    Args:
        volume: the volume to train; training runs on its device.
        renderer: makes its views.
        images: real images, of the renderer's size.
        objectives: one or more, on the volume's device, no two of one name; see `build_objectives`.
        options: length, batch size and learning rate.
        poses: the pose distribution that views are drawn from.
        seed: of rotations, real images and what objectives draw. The weights' start comes from torch's own generator.
        deterministic: whether a step adds in one order wherever torch can (`torch.use_deterministic_algorithms`), so
            that two runs on a GPU agree to the bit; slower there.
        processes: those that share the work of each step; each makes a trainer of its own, of the same arguments.

    Raises:
        ValueError: no objective, two of one name, images of another size than the views, a volume of float16, or more
            processes than views.
    """

    def __init__(
        self,
        volume: Volume,
        renderer: AbsorptionRenderer,
        images: ImageSet,
        objectives: Sequence[Objective],
        *,
        options: TrainerOptions | None = None,
        poses: PoseOptions | None = None,
        seed: int = 0,
        deterministic: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        names = [objective.name for objective in objectives]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"objectives={names}: must be one or more, each with a name of its own")
        if images.images.shape[-2:] != (shape := renderer.image_size):
            raise ValueError(f"images are {tuple(images.images.shape[-2:])}, views {shape}: both must be of one size")
        self.options, self.poses, self.processes = options or TrainerOptions(), poses or PoseOptions(), processes
        if self.options.views < processes.count:
            least = f"the number of processes, {processes.count}; each renders a part of them"
            raise ValueError(f"trainer.views={self.options.views}: must be >= {least}")
        self.device, precision = volume.like().device, volume.like().dtype
        if precision == torch.float16:
            raise ValueError(
                "volume is torch.float16: the squares of gradients that Adam keeps would be 0 there; train it in "
                "float32 or bfloat16, then volume.half()"
            )
        if deterministic:
            prepare_cublas(self.device)
        self._one_order = OneOrder(deterministic)
        self.volume, self.renderer = volume, renderer
        self.averaged = copy.deepcopy(volume).requires_grad_(False)
        if precision == torch.bfloat16:  # of 8 bits the mean would stand still
            self.averaged.float()
        self._following = Average(self.averaged, volume)
        self.images = images.images.to(self.device)
        self.labels = None if images.labels is None else images.labels.to(self.device)
        self.class_names = images.class_names
        self.objectives = nn.ModuleDict({objective.name: objective for objective in objectives})
        self.volume_optimiser = self._volume_adam()
        self.generator = torch.Generator().manual_seed(seed)
        self.steps_done, self.seconds_done, self.rate_scale, self.stop_requested = 0, 0.0, 1.0, False
        self.grown_at = 0  # step of the last growth in this session: the pace is another since
        self.whole = True  # False while a step is made, and after an error in one: then it is in no file
        self._resumed_at = time.monotonic()
        self._stop_at: int | None = None
        self._agreed: float | None = None  # the progress at which all processes make the next step
        self._shared = processes.count == 1  # whether all processes have the state of the first

    def run(self, callbacks: Iterable[Callback] = ()) -> None:
        """Step until the run is complete or a stop is requested; then let every callback finish.

        Every callback finishes, whatever the others raise. The first error is raised at the end, others are logged.
        """
        callbacks = list(callbacks)
        self.stop_requested = False
        self._resumed_at = time.monotonic()
        self._stop_at = None if self.options.stop_after is None else self.steps_done + self.options.stop_after
        errors: list[BaseException] = []
        try:
            for callback in callbacks:
                if isinstance(callback, Beginner):
                    callback.begin(self)
            while self._goes_on():
                report = self.step()
                for callback in callbacks:
                    callback.after_step(self, report)
        except BaseException as error:
            errors.append(error)
            if self.processes.count > 1 and self.whole:  # the others wait for a word whether to go on
                self.stop_requested = True
                with suppress(ConnectionLost):
                    self._goes_on()
        self._agreed, self.seconds_done, self._resumed_at = None, self.seconds, time.monotonic()
        for callback in callbacks:
            try:
                callback.finish(self)
            except Exception as error:
                errors.append(error)
        for error in errors[1:]:
            logging.getLogger(__name__).warning("%s", " ".join(str(error).split()))
        if errors:
            raise errors[0]

    def step(self) -> StepReport:
        """One training step, on new rotations and new real images, in the volume's full precision.

        `torch.autocast` has no influence on it, and convolutions of a GPU do not round to TF32 meanwhile; where the
        trainer is deterministic, torch's deterministic algorithms are asked for meanwhile.

        Raises:
            RuntimeError: inside `torch.no_grad()` or `torch.inference_mode()`, or another process is gone.
        """
        if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
            raise RuntimeError("training needs gradients: leave torch.no_grad() and torch.inference_mode() before it")
        if self._agreed is None:
            self._goes_on()
        self.whole = False
        with without_autocast(self.images), without_tf32(), self._one_order.held(), self.processes.together():
            report = self._step()
        self.whole = True
        return report

    def _step(self) -> StepReport:
        assert self._agreed is not None
        progress, self._agreed = self._agreed, None
        self._grow(progress)
        rate = rate_factor(progress)
        for group in self.volume_optimiser.param_groups:
            group["lr"] = self.options.volume_rate * group.get("rate", 1.0) * rate * self.rate_scale
        batch = self._batch(progress, rate * self.rate_scale)
        for objective in self.each_objective():
            objective.prepare(batch)
        losses = [loss for objective in self.each_objective() if (loss := objective.loss(batch)) is not None]
        if losses:
            self.volume_optimiser.zero_grad(set_to_none=True)
            sum(losses[1:], losses[0]).backward()
            self.processes.average_gradients(self.volume.parameters())
            self.volume_optimiser.step()
        self.steps_done += 1
        self._average()
        return StepReport(self.steps_done, self.progress, self._metrics(batch))

    def each_objective(self) -> list[Objective]:
        """The objectives in their order."""
        return [objective for objective in self.objectives.values() if isinstance(objective, Objective)]

    @property
    def seconds(self) -> float:
        """Training time so far, earlier sessions of a resumed run included."""
        return self.seconds_done + time.monotonic() - self._resumed_at

    def leave_out(self, seconds: float) -> None:
        """Do not count this time, such as a pause, as training time."""
        self._resumed_at += seconds

    @property
    def progress(self) -> float:
        """Share of the run that is done, [0, 1]: by steps where `max_steps` is set, else by minutes."""
        if self.options.max_steps is not None:
            return min(self.steps_done / self.options.max_steps, 1.0)
        return min(self.seconds / self.options.seconds_limit, 1.0)

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs: tensors and plain values only, so `weights_only=True` loads it."""
        return {
            "volume": self.volume.state_dict(),
            "averaged": self.averaged.state_dict(),
            "objectives": self.objectives.state_dict(),
            "volume_optimiser": self.volume_optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "steps_done": self.steps_done,
            "seconds_done": self.seconds,
            "rate_scale": self.rate_scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Each part is compared with what this trainer holds before anything computes with it, so a state may come from
        a file of anybody. After an error some parts may be loaded: load another state, or make a new trainer.

        Raises:
            RuntimeError, ValueError: the state is of another version or of other options, or damaged; one line.
        """
        check_state(state, self.state_dict())
        for name in ("volume", "averaged", "objectives"):
            load_module(getattr(self, name), state[name])
        self._following = Average(self.averaged, self.volume)
        self.volume_optimiser = self._volume_adam()  # the state may be of another resolution
        load_adam(self.volume_optimiser, state["volume_optimiser"], "volume_optimiser")
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] and self.device.type == "cuda":
            # Of as many GPUs as there are: the run may have begun on a machine with more, or fewer.
            torch.cuda.set_rng_state_all(state["cuda_rng"][: torch.cuda.device_count()])
        self.steps_done = state["steps_done"]
        self.seconds_done, self._resumed_at = float(state["seconds_done"]), time.monotonic()
        self.rate_scale = float(state["rate_scale"])
        self.whole = True

    def rewind(self, state: dict[str, Any], rate_scale: float) -> None:
        """Restore everything that is trained to an earlier state, with smaller learning rates.

        Time and random numbers continue. So the run ends at its limit, and does not repeat the random numbers with
        which it failed.

        Args:
            state: of `state_dict`, taken in this run; it is copied, so it can serve again. Of several processes the
                first goes back, and the others get its state.
            rate_scale: factor on all learning rates from now on, on top of earlier ones, in (0, 1].
        """
        now = self.state_dict()
        self.load_state_dict({**copy.deepcopy(state), **{name: now[name] for name in GOES_ON}})
        self.rate_scale = now["rate_scale"] * rate_scale
        self._shared = self.processes.count == 1

    def _goes_on(self) -> bool:
        """Whether there is another step, and at which progress, in all processes alike.

        The clock of the first process counts, and the wish of any to stop.
        """
        progress = self.progress
        over = progress >= 1.0 or self.seconds >= self.options.seconds_limit or self.steps_done == self._stop_at
        if self.processes.count > 1:
            said = [over, not self._shared, progress] if self.processes.first else [0.0, 0.0, 0.0]
            over, news, progress, wish = self.processes.largest([*said, self.stop_requested])
            self.stop_requested = wish > 0.0
            if news:
                self._share_state()
        self._agreed = progress
        return not over and not self.stop_requested

    def _share_state(self) -> None:
        """The state of the first process in all of them."""
        self.whole = False
        state = self.processes.handed_out_state(self.state_dict() if self.processes.first else {})
        if not self.processes.first:
            self.load_state_dict(state)
        self.whole = self._shared = True

    def _grow(self, progress: float) -> None:
        """Let the volume refine itself; the average grows alike, out of its own values."""
        if self.processes.grown(self.volume, self.steps_done, progress):
            self.averaged.grow_like(self.volume, self.steps_done, progress)
            self.grown_at = self.steps_done
            # Not carried over: a finer voxel's gradient is an eighth of a coarser one's, so the second moments
            # would hold the first hundred steps back, and what had no gradient so far would leap; the first
            # moments have no memory (ADAM_BETAS).
            self.volume_optimiser = self._volume_adam()

    def _volume_adam(self) -> torch.optim.Adam:
        # fused: one pass over the weights instead of some ten, the same up to rounding.
        groups = self.volume.parameter_groups()
        return torch.optim.Adam(groups, lr=self.options.volume_rate, betas=ADAM_BETAS, fused=True)

    def _batch(self, progress: float, rate: float) -> Batch:
        return Batch(
            volume=self.volume,
            renderer=self.renderer,
            generator=self.generator,
            step=self.steps_done,
            progress=progress,
            rate=rate,
            all_images=self.images,
            all_labels=self.labels,
            count=self.options.views,
            max_tilt=self.options.max_tilt,
            draw_rotations=self._draw_rotations,
            processes=self.processes,
            at_once=self.options.views_at_once,
            precision=self.options.precision,
        )

    def _draw_rotations(self) -> Float[Tensor, "B 3 3"]:
        return unclaimed_rotations(self.options.views, self.generator, self.poses, self.each_objective())

    def _average(self) -> None:
        """The averaged volume follows, closer at first so that the noisy start is forgotten."""
        self._following.follow(min(AVERAGE_DECAY, self.steps_done / (self.steps_done + 10.0)))

    def _metrics(self, batch: Batch) -> dict[str, Any]:
        """What all objectives report, in one mapping, and how bright the views were; the one wait for the device."""
        metrics: dict[str, Any] = {}
        if batch.brightness is not None:
            metrics["mean_brightness"] = batch.brightness
        for objective in self.each_objective():
            own = objective.metrics()
            if taken := metrics.keys() & own.keys():
                raise ValueError(f"objective {objective.name}: its metric {min(taken)} is another one's already")
            metrics |= own
        return as_numbers(metrics)
