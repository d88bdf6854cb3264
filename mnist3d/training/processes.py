"""The processes of one run, as training sees them: each holds the whole volume, and renders its part of a step's views.

Every process draws the same whole batch. Of what is heavy each computes its own rows; the rows of all are then put
together, so that each computes the same losses of the whole batch and takes the same steps. With one process nothing
of this happens. How processes find each other, and how they end together: `runs.joining`.
"""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from ..volumes.base import Volume

BYTES_AT_ONCE = 2**26  # of a state that is handed out


class ConnectionLost(RuntimeError):
    """Another process of the run has ended, or does not answer."""


class Processes:
    """This process among those of its run.

    The gradient that a run needs is the mean of the processes' gradients: rows that were put together hand their own
    part of it back `count` times. So a loss of the whole batch counts once, whether it reaches the weights by way of
    the views or directly, and whoever writes one need not know of processes.

    Args:
        rank: of this process, 0 to count - 1; that of rank 0 speaks, writes and decides.
        count: of processes. With more than one, `torch.distributed` must be initialised, and all of them must make the
            same calls in the same order.
        why: what became of the process that was lost, for a message; may wait for it to be known.
        local_rank: of this process among those of this machine.
        on_machine: how many share this machine, its memory and its GPUs.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        why: Callable[[], str] | None = None,
        *,
        local_rank: int = 0,
        on_machine: int = 1,
    ) -> None:
        self.rank, self.count = rank, count
        self.local_rank, self.on_machine = local_rank, on_machine
        self.lost = False  # set by whoever watches the others: nothing is waited for any more
        self.waiting = 0  # > 0 while others may be waited for
        self._why = why

    def __deepcopy__(self, _: Any) -> "Processes":
        return self

    @property
    def first(self) -> bool:
        """Whether this process speaks, writes and decides."""
        return self.rank == 0

    def why(self) -> str:
        """Why others are not waited for any more, for a message."""
        return "another process has ended" if self._why is None else self._why()

    def own(self, total: int) -> slice:
        """Which of so many rows this process computes; the parts of two processes differ by one row at most."""
        return slice(self.rank * total // self.count, (self.rank + 1) * total // self.count)

    def mine(self, rows: Float[Tensor, "B ..."]) -> Float[Tensor, "P ..."]:
        """The rows of this process out of those of all.

        Args:
            rows: of the whole batch, the same in each process.

        Gradients:
            To the rows, such as those that `whole` has put together.
        """
        if self.count == 1:
            return rows
        return _Mine.apply(self, rows)  # pyright: ignore[reportReturnType]

    def whole(self, total: int, *mine: Tensor) -> tuple[Tensor, ...]:
        """The rows of all processes, put together in one exchange.

        Args:
            total: rows of the whole batch, B.
            mine: one tensor or more, each (P, ...): the rows `own(B)`, of one precision.

        Returns:
            Each as (B, ...), the same in each process.

        Gradients:
            To the own rows.
        """
        if self.count == 1:
            return mine
        return _Whole.apply(self, total, *mine)  # pyright: ignore[reportReturnType]

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """The gradient of the whole batch, in each process; all parameters in one exchange.

        Args:
            parameters: the same in each process. Where none has a gradient it stays None.
        """
        if self.count == 1:
            return
        learning = [each for each in parameters if each.requires_grad]
        if not learning:
            return
        parts = [_numbers(torch.zeros_like(each) if each.grad is None else each.grad) for each in learning]
        # Behind the gradients: in how many processes there is one.
        there = parts[0].new_tensor([float(each.grad is not None) for each in learning])
        bucket = torch.cat([*parts, there])
        with self._exchange():
            dist.all_reduce(bucket)
        *means, there = bucket.split([*(part.numel() for part in parts), len(learning)])
        # Read, which waits for a device, only where this process has none.
        found = there.tolist() if any(each.grad is None for each in learning) else [1.0] * len(learning)
        for parameter, mean, anywhere in zip(learning, means, found, strict=True):
            if anywhere:
                gradient = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
                real = torch.view_as_real(gradient) if gradient.is_complex() else gradient
                real.copy_(mean.view_as(real) / self.count)
                parameter.grad = gradient

    def largest(self, numbers: Sequence[float]) -> list[float]:
        """The largest of each number over all processes."""
        found = torch.tensor([float(number) for number in numbers], dtype=torch.float64, device="cpu")
        if self.count > 1:
            with self._exchange():
                dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.tolist()

    def handed_out(self, content: bytes | None = None) -> bytes:
        """Bytes of the first process, in each.

        Args:
            content: what the first hands out; of the others nothing is read.
        """
        if self.count == 1:
            return content or b""
        length = int(self.largest([len(content or b"") if self.first else 0])[0])
        data = torch.empty(length, dtype=torch.uint8, device="cpu")
        if self.first and content:
            data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        for part in data.split(BYTES_AT_ONCE) if length else ():
            with self._exchange():
                dist.broadcast(part, src=0)
        return data.numpy().tobytes()

    def handed_out_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state of tensors and plain values, of the first process, in each; on the CPU in those that get it.

        Args:
            state: what the first hands out.
        """
        if self.count == 1:
            return state
        buffer = io.BytesIO()
        if self.first:
            torch.save(_each_tensor(state, lambda tensor: tensor.to("meta")), buffer)  # shapes without numbers
        found = self.handed_out(buffer.getvalue())
        if self.first:
            _each_tensor(state, self._hand_out)
            return state
        shapes = torch.load(io.BytesIO(found), map_location="meta", weights_only=True)
        return _each_tensor(
            shapes, lambda tensor: self._hand_out(torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu"))
        )

    def grown(self, volume: Volume, steps_done: int, progress: float) -> bool:
        """Let the volume refine itself, as the first process's does: what each chooses may hang on rounding.

        Args:
            volume: of this process.
            steps_done, progress: as of `Volume.grow`; the same in each process.

        Returns:
            Whether that of any changed.
        """
        before = volume.init_args
        changed = volume.grow(steps_done, progress)
        if self.count == 1 or volume.init_args == before:  # its times to come are arguments: none has passed
            return changed
        changed = self.largest([changed])[0] > 0.0
        if changed:
            state = self.handed_out_state(volume.state_dict() if self.first else {})
            if not self.first:
                volume.load_state_dict(state)
        return changed

    def _hand_out(self, tensor: Tensor) -> Tensor:
        """A tensor of the first process, into the same one of the others, a part at a time."""
        numbers = tensor.detach().contiguous().reshape(-1)
        for part in numbers.view(torch.uint8).split(BYTES_AT_ONCE) if len(numbers) else ():
            with self._exchange():
                dist.broadcast(part.cpu(), src=0)
        return tensor

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block in which others are waited for, and so one that whoever watches them may end."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """One exchange with the others.

        Raises:
            ConnectionLost: one of them is gone.
        """
        if self.lost:
            raise ConnectionLost("another process has ended")
        with self.together():
            try:
                yield
            except RuntimeError as error:
                raise ConnectionLost(" ".join(str(error).split())) from error

    def gathered(self, total: int, mine: Float[Tensor, "P C"]) -> Float[Tensor, "B C"]:
        """`whole` of one matrix, without gradients."""
        most = -(-total // self.count)
        sent = mine.new_zeros(most, mine.shape[1])
        sent[: len(mine)] = mine
        taken = [torch.empty_like(sent) for _ in range(self.count)]
        with self._exchange():
            dist.all_gather(taken, sent)
        each = (Processes(rank, self.count).own(total) for rank in range(self.count))
        return torch.cat([part[: rows.stop - rows.start] for part, rows in zip(taken, each, strict=True)])


ALONE = Processes()


class _Mine(torch.autograd.Function):
    """Own rows; their gradient, which counts `count` times, is put in its place, counted once."""

    @staticmethod
    def forward(ctx: Any, processes: Processes, rows: Tensor) -> Tensor:
        ctx.processes, ctx.total = processes, len(rows)
        return rows[processes.own(len(rows))].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,), processes = gradients, ctx.processes
        rows = gradient.new_zeros(ctx.total, *gradient.shape[1:])
        rows[processes.own(ctx.total)] = gradient / processes.count
        return None, rows


class _Whole(torch.autograd.Function):
    """Rows of all; the own ones' gradient is handed back `count` times, as the mean over the processes is taken."""

    @staticmethod
    def forward(ctx: Any, processes: Processes, total: int, *mine: Tensor) -> tuple[Tensor, ...]:
        ctx.processes, ctx.total = processes, total
        flat = [each.reshape(len(each), math.prod(each.shape[1:])) for each in mine]
        columns = processes.gathered(total, torch.cat(flat, dim=1)).split([each.shape[1] for each in flat], dim=1)
        whole = tuple(found.reshape(total, *each.shape[1:]).clone() for found, each in zip(columns, mine, strict=True))
        needed = ctx.needs_input_grad[2:]
        ctx.mark_non_differentiable(*(found for found, need in zip(whole, needed, strict=True) if not need))
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        own, count = ctx.processes.own(ctx.total), ctx.processes.count
        return None, None, *(None if each is None else each[own] * count for each in gradients)


def _numbers(gradient: Tensor) -> Tensor:
    """As a row of real numbers, of single precision at least, in which sums are made."""
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    real = torch.view_as_real(dense) if dense.is_complex() else dense
    return real.reshape(-1).to(torch.promote_types(real.dtype, torch.float32))


def _each_tensor(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Nested mappings, lists and tuples with each tensor changed, in their order."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, dict):
        return {key: _each_tensor(value, change) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(_each_tensor(value, change) for value in values)
    return values
