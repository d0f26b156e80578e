"""Grouping token sequences into batches of bounded size, with little padding."""

from __future__ import annotations

from collections.abc import Sequence

# Positions, padding included, that go through a model at once.
BATCH_POSITIONS = 2048


def by_length(
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
    batches: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
        # Sorted, so the newcomer is the longest.
        fits = batches and (len(batches[-1]) + 1) * len(sequences[index]) <= positions
        if fits and (most is None or len(batches[-1]) < most):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
