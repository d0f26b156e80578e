"""Passes that begin where edits begin: what the layers below them make of a text is computed once.

An edit that is measured, corrected and made anew reads the same texts many times, and only the layers from the first
edited one on differ between two readings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from .decoder import Decoder
from .forward import layer_output, with_layer_output

# What is kept at most, bytes; texts beyond that are read whole every time.
MOST_BYTES = 1 << 30


@dataclass
class _Kept:
    """What the lower layers gave, by what they were given.

    Attributes:
        lower: The lower layers.
        most_bytes: How much may be kept.
        outputs: The last lower layer's output for each input of the first one.
        held: How many bytes that is.
        known: The output of the pass under way, where it was kept before.
        key: The input of the pass under way, where its output can be kept.
    """

    lower: Sequence[nn.Module]
    most_bytes: int
    outputs: dict[bytes, Any] = field(default_factory=dict)
    held: int = 0
    known: Any = None
    key: bytes | None = None

    def begin(self, hidden: Tensor, others: Sequence[Any]) -> None:
        """Looks at the input of the first layer, and at what it is given beside: masks, positions, a cache."""
        self.known, self.key = None, None
        # With keys and values of earlier tokens the same input gives something else.
        if any(isinstance(other, Cache) for other in others) or hidden.is_meta:
            return
        if torch.is_grad_enabled() and (hidden.requires_grad or any(map(_is_trained, self.lower))):
            return
        digest = hashlib.blake2b()
        for tensor in (hidden, *(other for other in others if isinstance(other, Tensor))):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        self.key = digest.digest()
        self.known = self.outputs.get(self.key)

    def end(self, output: Any) -> None:
        """Keeps what the last lower layer gave."""
        size = layer_output(output).numel() * layer_output(output).element_size()
        if self.key is not None and self.held + size <= self.most_bytes:
            self.outputs[self.key] = output
            self.held += size


@contextmanager
def lower_layers_kept(decoder: Decoder, most_bytes: int = MOST_BYTES, *, count: int | None = None) -> Iterator[None]:
    """Lets passes skip the lower layers where they gave the same before, while a block lasts.

    Nothing in them may be edited meanwhile. Passes with a cache of keys and values, or with gradients of what is in
    them or below, go through all layers.

    Args:
        decoder: The model, with the layers that are edited.
        most_bytes: How much may be kept; what comes later is read whole.
        count: How many layers are skipped; by default those below the first of `decoder.layers`.
    """
    lower = decoder.layer_modules[: decoder.layers[0] if count is None else count]
    kept = _Kept(lower, most_bytes)
    with ExitStack() as stack:
        for number, module in enumerate(lower):
            if "forward" in vars(module):
                return_to = vars(module)["forward"]
                stack.callback(setattr, module, "forward", return_to)
            else:
                stack.callback(delattr, module, "forward")
            module.forward = _skipping(module.forward, kept, first=number == 0, last=number == len(lower) - 1)
        yield


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _skipping(forward: Callable[..., Any], kept: _Kept, *, first: bool, last: bool) -> Callable[..., Any]:
    """Returns a layer's forward that passes its input through where the outcome of all lower layers is known."""

    def run(*arguments: Any, **keywords: Any) -> Any:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        if first:
            kept.begin(hidden, (*arguments[1:], *keywords.values()))
        if kept.known is not None:
            # What a layer gives beside its output is of no use where nothing is kept or traced.
            return kept.known if last else with_layer_output(kept.known, hidden)
        output = forward(*arguments, **keywords)
        if last:
            kept.end(output)
        return output

    return run
