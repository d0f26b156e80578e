"""How much memory running something takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PeakMemory:
    """The most memory held beyond what was held before, in MiB: of the process, or of the GPU where there is one."""

    mib: float = 0.0


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watches memory while a `with` block lasts. What was freed before and kept by the allocator does not count."""
    peak = PeakMemory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peak
        peak.mib = (torch.cuda.max_memory_allocated() - before) / 2**20
        return
    import psutil

    process, done = psutil.Process(), threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.02):
            peak.mib = max(peak.mib, (process.memory_info().rss - start) / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
