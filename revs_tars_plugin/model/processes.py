"""Several processes, one job: a launcher starts them, each does its share of the reading, and one of them writes.

They are those of accelerate: gloo between CPUs, NCCL between GPUs. Nothing is shared unless the caller says so, by
`working_together`: code that found a process group by itself would wait for processes that do something else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import LOST, InputError, ProcessLostError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# How long a process waits for the others, which may be teaching a model meanwhile. One that died is noticed by gloo at
# once; what waits for NCCL is ended by the launcher.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class _Group:
    """This process among those that work together."""

    index: int = 0
    count: int = 1


_ALONE = _Group()
_GROUP: ContextVar[_Group] = ContextVar("group", default=_ALONE)


@contextmanager
def working_together() -> Iterator[None]:
    """Lets the processes that a launcher started share their work while a block lasts.

    All of them have to run the same block on the same input.

    Raises:
        InputError: When there are fewer accelerators than processes, or they cannot speak with each other.
        ProcessLostError: When one of the others ends before the work is done.
    """
    from accelerate import PartialState

    wanted, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    cards = torch.accelerator.device_count() if torch.accelerator.is_available() else here
    if cards < here:
        raise InputError(
            f"The launcher started {here} processes here, where there are {cards} accelerators; start fewer."
        )
    # Without an accelerator it has to be told that the processes are many all the same.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)
    if state.num_processes != wanted:
        raise InputError(
            f"The launcher started {wanted} processes, which have no way to speak with each other on {state.device}."
        )
    token = _GROUP.set(_Group(state.process_index, state.num_processes))
    try:
        yield
    finally:
        _GROUP.reset(token)


@contextmanager
def alone() -> Iterator[None]:
    """Lets this process do all of a block by itself, whatever the others do meanwhile."""
    token = _GROUP.set(_ALONE)
    try:
        yield
    finally:
        _GROUP.reset(token)


def writes() -> bool:
    """Says whether this process is the one that writes and prints."""
    return _GROUP.get().index == 0


def process_count() -> int:
    """Returns how many processes work together."""
    return _GROUP.get().count


def process_label() -> str:
    """Returns what tells this process, and whether it works alone, fit for a file's name; the same the next time."""
    group = _GROUP.get()
    rank = int(os.environ.get("RANK", "0"))
    return f"{group.index + 1}-of-{group.count}" + (f".{rank}" if group.count == 1 and rank else "")


def own_numbers(count: int) -> range:
    """Returns which of so many pieces of work are this process's."""
    group = _GROUP.get()
    return range(group.index, count, group.count)


def is_own(number: int) -> bool:
    """Says whether one of many pieces of work, by its number, is this process's."""
    group = _GROUP.get()
    return number % group.count == group.index


def shared(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Returns what comes of every item, in order; of several processes each works on its share, and all have all of it.

    Args:
        work: Takes an item; what it returns travels between processes, so it holds no tensor on a device.
        items: The same ones in every process.

    Raises:
        ProcessLostError: When another process ends meanwhile.
    """
    if process_count() == 1:
        return [work(item) for item in items]
    numbers = own_numbers(len(items))
    with alone():
        own = [(index, work(items[index])) for index in numbers]
    found = dict(_exchanged(own))
    return [found[index] for index in range(len(items))]


def shared_in_turn(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """Yields what comes of every item, in order: of few long ones, as soon as it is known.

    Of several processes each does one of as many items as there are processes, then the next ones are dealt out.

    Args:
        work: As for `shared`.
        items: The same ones in every process.

    Raises:
        ProcessLostError: When another process ends meanwhile.
    """
    together = process_count()
    for start in range(0, len(items), together):
        yield from shared(work, items[start : start + together])


def of_writer(work: Callable[[], _Result]) -> _Result:
    """Returns what comes of work that the writing process does for all of them, such as looking what is on disk."""
    return shared(lambda _: work(), [None])[0]


def agreed(flag: bool) -> bool:
    """Says whether something is true in every process."""
    return flag if process_count() == 1 else all(_exchanged([flag]))


def add_up(total: Tensor) -> None:
    """Replaces a tensor by the sum of all processes' ones, in place.

    Raises:
        ProcessLostError: When another process ends meanwhile.
    """
    if process_count() > 1:
        with _travelling(total) as there, _noticing_loss():
            torch.distributed.all_reduce(there)


def from_process(index: int, tensor: Tensor) -> None:
    """Replaces a tensor by one process's, in place; the others' say of what shape and dtype it is.

    Raises:
        ProcessLostError: When another process ends meanwhile.
    """
    if process_count() > 1:
        with _travelling(tensor) as there, _noticing_loss():
            torch.distributed.broadcast(there, index)


@contextmanager
def writer_first() -> Iterator[None]:
    """Lets the writing process do a block by itself, and then the others: they find what it wrote.

    On several machines one process of each writes, since they may not see each other's files.

    Raises:
        ProcessLostError: When another process ends meanwhile.
    """
    if process_count() == 1:
        yield
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local:
        agreed(True)
    with alone():
        yield
    if not local:
        agreed(True)


def _exchanged(own: list[Any]) -> list[Any]:
    from accelerate.utils import gather_object

    with _noticing_loss():
        everything: list[Any] = gather_object(own)
    return everything


@contextmanager
def _travelling(tensor: Tensor) -> Iterator[Tensor]:
    """Yields a tensor where processes can exchange it, NCCL on GPUs alone; what becomes of it there is written back."""
    from accelerate import PartialState

    there = tensor.to(PartialState().device)
    yield there
    if there is not tensor:
        tensor.copy_(there)


@contextmanager
def _noticing_loss() -> Iterator[None]:
    """What the backends say when the other end is gone differs, so what they say is passed on."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLostError(f"{LOST} ({str(error).strip().splitlines()[0][:200]})") from error
