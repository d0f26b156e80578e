"""Second moments on disk, in the `.npz` files of EasyEdit's ROME and MEMIT: read whole, or some rows at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..atomic_write import replacing
from ..errors import InputError

# Bytes of the rows that are read at once; one layer of a 7B model has half a gigabyte in all.
_MOST_BYTES = 2**22


@dataclass(frozen=True)
class SecondMoment:
    """The uncentred second moment of one layer's FF2 inputs.

    Attributes:
        total: The sum of `a a^T` over positions, float32, on the CPU, shape (f, f).
        count: How many positions.
    """

    total: Float[Tensor, "f f"]
    count: int

    @property
    def mean(self) -> Float[Tensor, "f f"]:
        """The mean of `a a^T`."""
        return self.total / max(self.count, 1)

    def save(self, path: Path, n_samples: int) -> None:
        """Writes the host's layout, under a temporary name first, so that a crash leaves no half file."""
        arrays: dict[str, Any] = {
            "mom2.constructor": np.array("easyeditor.util.runningstats.SecondMoment()"),
            "mom2.count": np.array(self.count),
            "mom2.mom2": self.total.numpy(),
            "sample_size": np.array(n_samples),
        }
        with replacing(path) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> SecondMoment:
        """Reads a file of ours or of the host.

        Raises:
            InputError: When it is not such a file.
        """
        try:
            with np.load(path) as state:
                return cls(torch.from_numpy(state["mom2.mom2"]).float(), int(state["mom2.count"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _no_moments(path, error) from error


class MomentFiles(Mapping[str, SecondMoment]):
    """Second moments by the name of their FF2's weight, read from their files when asked for.

    Attributes:
        paths: Where they lie.
    """

    def __init__(self, paths: Mapping[str, Path], keep_alive: object = None) -> None:
        """Remembers the files, and what has to live as long as they are needed: a temporary folder."""
        self.paths = dict(paths)
        self._keep_alive = keep_alive

    def __getitem__(self, name: str) -> SecondMoment:
        """Reads one weight's file."""
        return SecondMoment.load(self.paths[name])

    def __iter__(self) -> Iterator[str]:
        """Iterates over the weights' names."""
        return iter(self.paths)

    def __len__(self) -> int:
        """Returns the number of weights."""
        return len(self.paths)

    def add_mean(self, name: str, matrix: Float[Tensor, "f f"], weight: float = 1.0) -> None:
        """Adds a weight's mean `a a^T` times a weight to a matrix in place; some rows of it are read at a time.

        Raises:
            InputError: When the file is no file of second moments, or of another width.
        """
        for start, rows in self._mean_rows(name, len(matrix)):
            part = matrix[start : start + len(rows)]
            part.add_(rows.to(part.device), alpha=weight)

    def mean_squares(self, name: str, width: int) -> Float[Tensor, " f"]:
        """Returns every neuron's mean square, the diagonal of the mean; read some rows at a time as well.

        Raises:
            InputError: When the file is no file of second moments, or of another width.
        """
        parts = [rows.diagonal(start).clone() for start, rows in self._mean_rows(name, width)]
        return torch.cat(parts)

    def _mean_rows(self, name: str, width: int) -> Iterator[tuple[int, Tensor]]:
        path = self.paths[name]
        try:
            with zipfile.ZipFile(path) as archive:
                with archive.open("mom2.count.npy") as file:
                    count = max(int(np.lib.format.read_array(file)), 1)  # type: ignore[arg-type]
                with archive.open("mom2.mom2.npy") as file:
                    for start, rows in _rows(file, width):
                        yield start, torch.from_numpy(rows).float().div_(count)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _no_moments(path, error) from error


def _rows(file: IO[bytes], width: int) -> Iterator[tuple[int, np.ndarray]]:
    """Reads the rows of a matrix in numpy's own format."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)  # symmetric, so that the order of its numbers does not matter
    if shape != (width, width):
        raise ValueError(f"its matrix is {shape}, the model's width is {width}")
    step = max(_MOST_BYTES // (width * dtype.itemsize), 1)
    for start in range(0, width, step):
        count = min(step, width - start)
        data = file.read(count * width * dtype.itemsize)
        yield start, np.frombuffer(data, dtype).reshape(count, width).copy()


def _no_moments(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is no file of second moments ({error}); delete it to have it computed.")
