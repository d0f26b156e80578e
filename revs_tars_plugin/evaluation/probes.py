"""Where a model is asked for a hidden token, and how few passes answer that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.forward import batches_by_length
from ..requests.reading import tokenise_in_context

# Sequences that go through a model at once, unless the caller says otherwise.
BATCH_SIZE = 32


@dataclass(frozen=True)
class Probe:
    """One token of one secret in one context.

    Attributes:
        secret: Which secret it belongs to.
        context: The token ids in front of it.
        token: Its id.
    """

    secret: int
    context: tuple[int, ...]
    token: int


@dataclass(frozen=True)
class ProbeBatch:
    """Probes that one pass answers.

    Attributes:
        sequences: What goes through the model. Where one probe's context begins another's, the longer one serves both.
        picks: For each probe its sequence and the position where its token comes next.
        indices: For each probe its place among all of them.
    """

    sequences: tuple[tuple[int, ...], ...]
    picks: tuple[tuple[int, int], ...]
    indices: tuple[int, ...]


def probes_of(
    tok: Any, prompts: Sequence[str], targets: Sequence[str], positions: Mapping[int, Sequence[int]]
) -> list[Probe]:
    """Makes probes of the edited tokens of secrets behind any prompts, each with the target tokens before it.

    Args:
        tok: The tokenizer.
        prompts: One prompt a secret.
        targets: The secrets.
        positions: For each secret's index the positions of its edited tokens.
    """
    probes = []
    for index, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        prompt_ids, target_ids = tokenise_in_context(tok, prompt, target)
        for position in positions.get(index, ()):
            if position < len(target_ids):
                probes.append(Probe(index, prompt_ids + target_ids[:position], target_ids[position]))
    return probes


def probe_batches(probes: Sequence[Probe], batch_size: int = BATCH_SIZE) -> Iterator[ProbeBatch]:
    """Groups probes so that all tokens of a secret come from one sequence, and similar lengths go together."""
    sequences: list[tuple[int, ...]] = []
    places: dict[int, int] = {}
    latest: dict[int, int] = {}
    # The longest context of a secret first: the others are mostly its beginnings.
    for index in sorted(range(len(probes)), key=lambda i: (probes[i].secret, -len(probes[i].context))):
        probe = probes[index]
        place = latest.get(probe.secret)
        if place is None or sequences[place][: len(probe.context)] != probe.context:
            sequences.append(probe.context)
            latest[probe.secret] = len(sequences) - 1
        places[index] = latest[probe.secret]
    for batch in batches_by_length(sequences, most=batch_size):
        rows = {sequence: row for row, sequence in enumerate(batch)}
        indices = tuple(index for index in range(len(probes)) if places[index] in rows)
        yield ProbeBatch(
            tuple(sequences[sequence] for sequence in batch),
            tuple((rows[places[index]], len(probes[index].context) - 1) for index in indices),
            indices,
        )
