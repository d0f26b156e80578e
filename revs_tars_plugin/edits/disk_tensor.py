"""Tensors that have to be kept to the bit, but not in memory: the weights as they were before an edit."""

from __future__ import annotations

import tempfile
from typing import IO

import torch
from torch import Tensor

# Smaller ones stay in memory; one FF2 of a 7B model in half precision has 90 MB.
_IN_MEMORY = 2**23


class DiskTensor:
    """A copy of a tensor's bits: in memory where it is small, else in a temporary file that goes with the object.

    Where there is no room on the disk the copy stays in memory.
    """

    def __init__(self, tensor: Tensor, in_memory: int = _IN_MEMORY) -> None:
        """Copies the tensor, from whatever device.

        Args:
            tensor: What is kept.
            in_memory: Up to how many bytes it stays in memory.
        """
        self.dtype, self.shape = tensor.dtype, tensor.shape
        self._kept: Tensor | None = None
        self._file: IO[bytes] | None = None
        if tensor.numel() * tensor.element_size() > in_memory:
            try:
                self._file = tempfile.TemporaryFile(prefix="revs-tars-")  # noqa: SIM115 (it lives with the object)
                self._file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
                self._file.flush()
                return
            except OSError:
                self._file = None
        self._kept = tensor.detach().to("cpu", copy=True)

    def load(self) -> Tensor:
        """Returns the tensor, on the CPU; what is done to it does not change what is kept."""
        if self._file is None:
            assert self._kept is not None
            return self._kept.clone()
        self._file.seek(0)
        content = bytearray(self._file.read())
        return torch.frombuffer(content, dtype=torch.uint8).view(self.dtype).reshape(self.shape)

    def __deepcopy__(self, _memo: object) -> DiskTensor:
        """Returns itself: what is kept never changes, so copies of whatever holds it can share it."""
        return self
