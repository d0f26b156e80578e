"""A command that a launcher started several times over: all work, one of them speaks and writes."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

from ..errors import LOST, InputError, ProcessLostError

# Commands whose processes share the work.
SHARING = ("stats", "edit", "evaluate", "compare", "bench")
# Seconds after which a process that does not write says what went wrong with it: if the same went wrong with the one
# that does, the launcher has ended it by then.
_WAITS = 3.0


def launched() -> bool:
    """Says whether a launcher started several processes; asked without importing torch."""
    count = os.environ.get("WORLD_SIZE", "")
    return count.isdigit() and int(count) > 1 and {"RANK", "LOCAL_RANK"} <= os.environ.keys()


def check_shares(command: str) -> None:
    """Refuses a command whose work is not shared.

    Raises:
        InputError: Naming those that share it.
    """
    if launched() and command not in SHARING:
        raise InputError(
            f"{command} does not share its work: start it without the launcher (with it go {', '.join(SHARING)})."
        )


@contextmanager
def as_one_of_many(log: logging.StreamHandler) -> Iterator[None]:  # type: ignore[type-arg]
    """Lets the processes of a launcher work together, and all but one be silent; without a launcher nothing changes.

    Args:
        log: What writes the log; silent as well in these.
    """
    if not launched():
        yield
        return
    from ..model.processes import working_together, writes

    with working_together():
        if writes():
            yield
            return
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            before = log.setStream(nowhere)
            try:
                with redirect_stdout(nowhere), redirect_stderr(nowhere):
                    yield
            finally:
                if before is not None:
                    log.setStream(before)


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """Lets a request to end be an interruption, so that nothing half made is left behind.

    A launcher ends the other processes when one has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise ProcessLostError(LOST) if launched() else KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for_the_writer(error: BaseException) -> None:
    """Lets the process that writes say first what went wrong; if it is the one that was lost, the next one says so."""
    rank = int(os.environ.get("RANK", "0"))
    if launched() and rank and not (rank == 1 and isinstance(error, ProcessLostError)):
        time.sleep(_WAITS)
