"""Sums under way: kept on disk now and then, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..atomic_write import replacing
from ..errors import InputError
from ..model.matrices import FeedForwardMatrix
from ..model.tensors import fingerprint

# Seconds between two times that the sums are kept; and how many times longer than keeping them takes.
_EVERY, _AT_LEAST = 20.0, 50


@dataclass
class PartialSums:
    """The sums of `a a^T` of some matrices over the batches so far.

    Attributes:
        matrices: Whose inputs are summed, by the names of their weights.
        path: Where they are kept; None where they are not.
        totals: The sums so far.
        count: Over how many positions.
    """

    matrices: dict[str, FeedForwardMatrix]
    path: Path | None = None
    totals: dict[str, Float[Tensor, "f f"]] = field(default_factory=dict)
    count: int = 0
    _batches: int = 0
    _text: str = ""
    _kept_at: float = 0.0
    _takes: float = 0.0

    def __post_init__(self) -> None:
        """Reads what was kept, if it is of these matrices with these weights."""
        self._kept_at = time.monotonic()
        if self.path is None or not self.path.is_file():
            return
        try:
            with safe_open(self.path, "pt") as file:
                found = file.metadata() or {}
                if found.get("weights") == self._weights:
                    self.totals = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                    self.count, self._batches = int(found["count"]), int(found["batches"])
                    self._text = found["text"]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{self.path} holds no sums ({error}); delete it to begin anew.") from error

    def left(self, batches: Iterable[list[Sequence[int]]]) -> Iterator[list[Sequence[int]]]:
        """Yields the batches that are not summed yet, and keeps the sums now and then.

        Args:
            batches: All of them, in the same order as the last time.

        Raises:
            InputError: When they are others than the last time, or the sums cannot be kept.
        """
        text, number = hashlib.blake2b(digest_size=16), 0
        for number, batch in enumerate(batches, 1):
            text.update(repr([list(sequence) for sequence in batch]).encode())
            if number < self._batches:
                continue
            if number == self._batches:
                if text.hexdigest() != self._text:
                    raise InputError(f"{self.path} holds sums over another text; delete it to begin anew.")
                continue
            yield batch
            self.count += sum(map(len, batch))
            if self.path is not None and time.monotonic() - self._kept_at > max(_EVERY, _AT_LEAST * self._takes):
                self._keep(self.path, number, text.hexdigest())
        if number < self._batches:
            raise InputError(f"{self.path} holds sums over a longer text; delete it to begin anew.")

    def add(self, name: str, inputs: Float[Tensor, "n f"]) -> None:
        """Adds what one matrix was given at some positions."""
        width = self.matrices[name].width
        if name not in self.totals:
            self.totals[name] = torch.zeros(width, width, device=inputs.device)
        self.totals[name] = self.totals[name].to(inputs.device)
        self.totals[name].addmm_(inputs.T, inputs)

    def done(self) -> None:
        """Removes the file: the sums are where they belong."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _keep(self, path: Path, batches: int, text: str) -> None:
        start = time.monotonic()
        content = {"weights": self._weights, "count": str(self.count), "batches": str(batches), "text": text}
        try:
            with replacing(path) as file:
                file.write(save({name: total.cpu() for name, total in self.totals.items()}, content))
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror or error}); see stats_dir.") from error
        self._kept_at = time.monotonic()
        self._takes = self._kept_at - start

    @cached_property
    def _weights(self) -> str:
        """Tells these matrices with these weights from others."""
        prints = [f"{name} {fingerprint(matrix.weight)}" for name, matrix in self.matrices.items()]
        return hashlib.sha256("\n".join(prints).encode()).hexdigest()
