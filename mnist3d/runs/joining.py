"""The processes of a run find each other, work, and end together: `torch.distributed` and one store, no more."""

import os
import socket
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from ..errors import RunError, UserError, WatchdogGaveUp
from ..invocation import program_name
from ..storage.exhausted import out_of_memory
from ..training.processes import ALONE, ConnectionLost, Processes
from .launcher import Place
from .signals import Ended, on_signals
from .watch import FAILED, Limits, Watch, Word

PATIENCE = timedelta(days=30)  # of an exchange: who pauses on the page is waited for; `Watch` sees who is gone
POLL = 0.05  # s


@contextmanager
def joined(place: Place | None, limits: Limits | None = None) -> Iterator[tuple[Processes, "Watch | None"]]:
    """A block in which the processes of a run work together; all of them end with it, with one exit code.

    In processes other than the first it never returns: how the run ends is the first one's word, and its own errors
    are the first one's to say.

    Args:
        place: of this process; None where it is alone, and then nothing happens here.
        limits: how long is waited.

    Raises:
        RunError: processes do not come, or one of them is gone; in the first.
    """
    if place is None:
        yield ALONE, None
        return
    limits = limits or Limits()
    watch = _met(place, limits)
    processes = watch.processes
    watch.start()
    if not processes.first:
        try:
            _connect(place, watch)
            yield processes, watch
            dist.destroy_process_group()
        except BaseException as error:
            with _ending_already():
                _tell_of(error, watch)
        _wait_for_the_end(watch)
    try:
        _connect(place, watch)
        yield processes, watch
        dist.destroy_process_group()
        watch.tell(Word(0, 0))
    except (ConnectionLost, dist.DistError):
        with _ending_already():
            raise _said(watch) from None
    except BaseException as error:
        watch.tell(Word(0, _code_of(error)))
        raise
    finally:
        with _ending_already():
            watch.parted.wait(limits.goodbye)
            watch.close()


def _met(place: Place, limits: Limits) -> Watch:
    """Find the others; from then on they are watched.

    Raises:
        RunError: some do not come in time.
    """
    served_here = place.rank == 0 and not place.served
    patience = timedelta(seconds=limits.join)
    connect = partial(TCPStore, place.address, place.port, place.count, wait_for_workers=False, timeout=patience)
    where = f"{place.address}:{place.port}"
    try:
        server = connect(is_master=served_here)
        token = _shared_name(server, place, limits)
        store = PrefixStore(token, server)
        names = [store.get(f"here/{rank}").decode() for rank in range(place.count)]
    except UserError:
        raise
    except (RuntimeError, OSError, ValueError) as error:  # torch's own kinds are RuntimeErrors
        raise RunError(f"the processes of this run do not find each other at {where}: {error}") from None
    watch = Watch(lambda: PrefixStore(token, connect(is_master=False)), place, names, limits)
    watch.store = store
    places = {"local_rank": place.local_rank, "on_machine": place.on_machine}
    watch.processes = Processes(place.rank, place.count, watch.why, **places)
    return watch


def _connect(place: Place, watch: Watch) -> None:
    """Open the connections by which the processes compute together.

    Raises:
        ConnectionLost: one of them is gone already.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu and place.local_rank < torch.cuda.device_count():  # of more processes than GPUs `build_device` speaks
        torch.cuda.set_device(place.local_rank)
    # What lies on the CPU, such as whether to go on, never waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if on_gpu and dist.is_nccl_available() else "gloo"
    group: Any = PrefixStore("group", watch.store)
    with watch.processes.together():
        try:
            dist.init_process_group(backend, store=group, rank=place.rank, world_size=place.count, timeout=PATIENCE)
        except RuntimeError as error:
            raise ConnectionLost(" ".join(str(error).split())) from error


def _shared_name(store: Any, place: Place, limits: Limits) -> str:
    """A name that these processes alone share: a launcher's store may still hold the keys of a try before.

    The first waits for all others, and answers each one's own token.
    """
    host, me = socket.gethostname(), place.rank
    name = f"rank {me} of {place.count} (on {host}, process {os.getpid()})"
    if me:
        token = uuid.uuid4().hex
        store.set(f"hello/{me}", token)
        shared = store.get(f"welcome/{token}").decode()
        store.set(f"{shared}/beat/{me}", "0")  # before it is known to be here: then each has one
        store.set(f"{shared}/here/{me}", name)
        return shared
    shared, answered, until = uuid.uuid4().hex, set(), time.monotonic() + limits.join
    store.set(f"{shared}/beat/0", "0")
    store.set(f"{shared}/here/0", name)
    others = range(1, place.count)
    while not store.check([f"{shared}/here/{rank}" for rank in others]):
        if time.monotonic() > until:
            missing = [rank for rank in others if not store.check([f"{shared}/here/{rank}"])]
            raise RunError(
                f"of {place.count} processes those of rank {', '.join(map(str, missing))} have not come within "
                f"{limits.join:.0f} s; start all of them, with the same MASTER_ADDR and MASTER_PORT"
            )
        for rank in others:
            if store.check([f"hello/{rank}"]) and (token := store.get(f"hello/{rank}")) not in answered:
                answered.add(token)
                store.set(f"welcome/{token.decode()}", shared)
        time.sleep(POLL)
    return shared


def _tell_of(error: BaseException, watch: Watch) -> None:
    """An error of a process that is not the first."""
    if isinstance(error, ConnectionLost | dist.DistError):
        watch.why()
        return
    if not isinstance(error, UserError | MemoryError | KeyboardInterrupt | Ended) and out_of_memory(error) is None:
        traceback.print_exc()
    line = " ".join(str(out_of_memory(error) or error).split()) or type(error).__name__
    watch.tell(Word(watch.place.rank, _code_of(error), f"{watch.names[watch.place.rank]}: {line}"))


def _ending_already() -> AbstractContextManager[None]:
    """A launcher that sees one process end asks the others to, which they do anyway."""
    return on_signals(lambda number: None, program_name("train"))


def _wait_for_the_end(watch: Watch) -> NoReturn:
    """Until `Watch` ends this process; signals are the first one's to obey by now."""
    while watch.is_on:
        with suppress(KeyboardInterrupt, Ended):
            time.sleep(watch.limits.beat)
    os._exit(FAILED)


def _said(watch: Watch) -> BaseException:
    """What the first process says where another is gone."""
    why, word = watch.why(), watch.word
    if word is not None and word.code > 128:
        return Ended(word.code - 128, f"{word.line}; ended")
    return RunError(why)


def _code_of(error: BaseException) -> int:
    """The exit code that the first process will have."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    if isinstance(error, Ended):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 1 if isinstance(error, WatchdogGaveUp) else FAILED
