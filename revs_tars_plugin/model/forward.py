"""Running a model on token sequences: batches, the positions that matter, and nothing that is not asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .processes import process_count

# Positions, padding included, that go through a model at once.
BATCH_POSITIONS = 2048


def next_token_logits(model: nn.Module, sequences: Sequence[Sequence[int]]) -> Float[Tensor, "n vocabulary"]:
    """Returns a model's own logits after each token sequence, float32."""
    return selected_logits(model, sequences, [(row, len(sequence) - 1) for row, sequence in enumerate(sequences)])


def selected_logits(
    model: nn.Module, sequences: Sequence[Sequence[int]], picks: Sequence[tuple[int, int]], *, gradients: bool = False
) -> Float[Tensor, "k vocabulary"]:
    """Returns a model's own logits at chosen positions, float32.

    Sequences of several lengths are padded on the right into one batch; the head sees the chosen positions alone, so no
    positions x vocabulary matrix is made.

    Args:
        model: A causal language model.
        sequences: Token ids.
        picks: Sequence and position of each wanted row.
        gradients: Keep what a backward pass needs.
    """
    ids, mask = padded(model, sequences)
    with evaluating(model), picked_by_head(model, picks), torch.set_grad_enabled(gradients):
        output = model(input_ids=ids, attention_mask=mask, use_cache=False)
    logits: Tensor = output.logits[0].float()
    return logits


def continuation_logits(
    model: nn.Module, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, gradients: bool = False
) -> list[Float[Tensor, "tokens vocabulary"]]:
    """Returns for each pair of a beginning and how it goes on the logits that speak of every token of the latter.

    Args:
        model: A causal language model.
        pairs: Token ids of one batch; no beginning is empty.
        gradients: Keep what a backward pass needs.
    """
    sequences = [[*beginning, *rest[:-1]] for beginning, rest in pairs]
    picks = [
        (row, len(beginning) - 1 + position)
        for row, (beginning, rest) in enumerate(pairs)
        for position in range(len(rest))
    ]
    logits = selected_logits(model, sequences, picks, gradients=gradients)
    return list(torch.split(logits, [len(rest) for _, rest in pairs]))


def fair_positions(sequences: Sequence[Sequence[int]]) -> int:
    """Returns how many positions a batch has at most, so that each process that works together gets something."""
    if process_count() == 1:
        return BATCH_POSITIONS
    return min(BATCH_POSITIONS, max(1, -(-sum(map(len, sequences)) // process_count())))


def batches_by_length(
    sequences: Sequence[Sequence[int]], positions: int = BATCH_POSITIONS, most: int | None = None
) -> list[list[int]]:
    """Groups sequences of similar length.

    Args:
        sequences: Token ids.
        positions: The most positions of a batch, padding included; a longer sequence is a batch of its own.
        most: The most sequences of a batch.

    Returns:
        Batches of indices into `sequences`; every index occurs once.
    """
    positions = min(positions, fair_positions(sequences))
    batches: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
        # Sorted, so the newcomer is the longest.
        fits = batches and (len(batches[-1]) + 1) * len(sequences[index]) <= positions
        if fits and (most is None or len(batches[-1]) < most):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def maximal(sequences: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Leaves out sequences that others begin with, since what a causal model reads of these serves them too.

    Args:
        sequences: Token ids.

    Returns:
        The sequences that are left, and for each one that was given the place of one that begins with it.
    """
    # In alphabetical order whatever begins with a sequence comes right behind it.
    order = sorted(range(len(sequences)), key=lambda index: sequences[index], reverse=True)
    left: list[tuple[int, ...]] = []
    places = [0] * len(sequences)
    for index in order:
        sequence = sequences[index]
        if not left or left[-1][: len(sequence)] != sequence:
            left.append(sequence)
        places[index] = len(left) - 1
    return left, places


def padded(
    model: nn.Module, sequences: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "n positions"], Int[Tensor, "n positions"]]:
    """Returns token ids padded on the right, and 1 where they hold a token, on the device the model takes them."""
    mask = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    ids = torch.zeros_like(mask)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(list(sequence))
        mask[row, : len(sequence)] = 1
    device = device_of_ids(model)
    return ids.to(device), mask.to(device)


def device_of_ids(model: nn.Module) -> torch.device:
    """Returns where a model takes token ids."""
    device: torch.device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    # Offloaded: the model's own hooks bring the ids where they belong.
    return torch.device("cpu") if device.type == "meta" else device


@torch.no_grad()
def sample(
    model: nn.Module,
    ids: Int[Tensor, "n positions"],
    count: int,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    advance: Callable[[], object] = lambda: None,
) -> Int[Tensor, "n new"]:
    """Draws tokens that go on with each row, one after another; the caller's random numbers are left as they are.

    Args:
        model: A causal language model.
        ids: Token ids without padding.
        count: How many tokens are drawn.
        generator: The generator they are drawn from, on the CPU.
        temperature: The temperature of the softmax; above 0.
        advance: Called after each token.
    """
    latest, cache, drawn = ids, None, []
    with evaluating(model):
        for _ in range(count):
            output = model(input_ids=latest, use_cache=True, **cache_argument(model, cache))
            cache = cache_of(output)
            probabilities = (output.logits[:, -1].float() / temperature).softmax(dim=-1).cpu()
            latest = torch.multinomial(probabilities, 1, generator=generator).to(ids.device)
            drawn.append(latest)
            advance()
    return torch.cat(drawn, dim=1) if drawn else ids[:, :0]


def cache_argument(model: nn.Module, cache: object) -> dict[str, object]:
    """Returns a cache by the name under which the model takes one, which transformers 5.24 changed."""
    takes_new_name = "cache" in inspect.signature(model.forward).parameters
    return {"cache" if takes_new_name else "past_key_values": cache}


def cache_of(output: Any) -> Any:
    """Returns the keys and values that a model gives, under either name."""
    cache = getattr(output, "cache", None)
    return output.past_key_values if cache is None else cache


def layer_output(output: Any) -> Tensor:
    """Returns the hidden states of what a layer, or its attention, gives: some families give a tuple, they first."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def with_layer_output(output: Any, hidden: Tensor) -> Any:
    """Returns what a layer gives with other hidden states, as the tuple that it was, or alone."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


@contextmanager
def picked_by_head(model: nn.Module, picks: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Lets chosen positions alone through to the head for a while, all of them in one row.

    Args:
        model: A causal language model.
        picks: Sequence and position of each, in the order in which they are wanted.
    """
    rows, positions = torch.tensor(list(picks), dtype=torch.long).reshape(-1, 2).T

    def only_picked(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0]
        return (hidden[rows.to(hidden.device), positions.to(hidden.device)][None], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(only_picked)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def without_head(model: nn.Module) -> AbstractContextManager[None]:
    """Lets no position through to the head for a while, where only the layers matter."""
    return picked_by_head(model, [])


@contextmanager
def gradients_for(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """Lets these weights alone have gradients for a while; every flag is put back, and they are left without one."""
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)
        for weight in weights:
            weight.grad = None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switches dropout off for a while; every module's mode is put back as it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
