"""Second moments of FF2's inputs over ordinary text, in the `.npz` files that EasyEdit's ROME and MEMIT keep.

A file computed for MEMIT serves here and the reverse: same path, same keys (`models/rome/layer_stats.py` there).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import InputError
from ..hyperparams import UnlearnHyperParams
from ..model.decoder import Decoder, LayerState
from ..model.forward import BATCH_POSITIONS
from ..model.matrices import FeedForwardMatrix
from .files import MomentFiles, SecondMoment
from .ordinary_text import TextSource, sequences_of

# Bytes of the sums of several layers that share a pass; one layer of a 7B model has 0.5 GB.
_MOST_BYTES = 2**29


def second_moments(
    decoder: Decoder,
    tok: Any,
    source: TextSource,
    *,
    stats_dir: str | Path,
    precision: str = "float32",
    model_name: str | None = None,
    progress: bool = True,
) -> MomentFiles:
    """Returns the second moments of every FF2 the decoder edits; their files are made first where they are missing.

    Args:
        decoder: The model.
        tok: Its tokenizer.
        source: The ordinary text.
        stats_dir: Where the files lie.
        precision: Part of the file name, for the host's sake.
        model_name: Part of the path; the last part of the model's own name by default, as on the host's branch main.
        progress: Show a progress bar.

    Raises:
        InputError: When the source cannot be read or holds no text.
    """
    name = model_name or Path(str(getattr(decoder.model.config, "_name_or_path", "model"))).name  # type: ignore[union-attr]
    folder = Path(stats_dir).expanduser() / name / f"{source.label}_stats"
    paths = {
        matrix.weight_name: folder
        / f"{matrix.weight_name.removesuffix('.weight')}_{precision}_mom2_{source.n_samples}.npz"
        for matrix in _matrices(decoder)
    }
    if not all(path.is_file() for path in paths.values()):
        sequences = sequences_of(decoder.model, tok, source, progress=progress)
        bar = tqdm(sequences, total=source.n_samples, desc="second moments", disable=not progress)
        collect(decoder, bar, lambda matrix, moment: moment.save(paths[matrix], source.n_samples))
    return MomentFiles(paths)


def temporary_moments(decoder: Decoder, sequences: Sequence[Sequence[int]]) -> MomentFiles:
    """Returns the second moments of a few texts, in files that go with the result."""
    folder = tempfile.TemporaryDirectory(prefix="revs-tars-")
    paths = {matrix.weight_name: Path(folder.name) / f"{matrix.weight_name}.npz" for matrix in _matrices(decoder)}
    collect(decoder, sequences, lambda matrix, moment: moment.save(paths[matrix], len(sequences)))
    return MomentFiles(paths, folder)


def ordinary_moments(decoder: Decoder, tok: Any, hparams: UnlearnHyperParams, *, progress: bool = True) -> MomentFiles:
    """Returns the second moments of the ordinary text that a method's settings name; see `second_moments`."""
    return second_moments(
        decoder,
        tok,
        TextSource(hparams.mom2_dataset, hparams.mom2_n_samples, seed=hparams.seed),
        stats_dir=hparams.stats_dir,
        precision=hparams.mom2_dtype,
        progress=progress,
    )


def collect(
    decoder: Decoder,
    sequences: Iterable[Sequence[int]],
    keep: Callable[[str, SecondMoment], None],
    most_bytes: int | None = None,
) -> None:
    """Sums `a a^T` at every position of the texts, one batch of one FF2 at a time.

    Matrices share a pass as far as their sums fit into `most_bytes` together; a large model needs several passes. What
    an expert is given counts with the weight that it has there, and as 0 where it is not chosen.

    Args:
        decoder: The model.
        sequences: Token ids, streamed where one pass is enough.
        keep: Takes each matrix's moment, by the weight's name, as soon as it is complete.
        most_bytes: Bytes of the sums that are held at a time; at least one matrix's are. By default half a gigabyte,
            and of a model that does not fit into memory itself one matrix's.

    Raises:
        InputError: When there is no text.
    """
    if most_bytes is None:
        most_bytes = 0 if any(each.is_meta for each in decoder.model.parameters()) else _MOST_BYTES
    groups = _groups(decoder, most_bytes)
    if len(groups) > 1:
        sequences = list(sequences)
    for group in groups:
        totals: dict[str, Tensor] = {}
        count = 0

        def visit(
            layer: int, state: LayerState, group: Sequence[str] = group, totals: dict[str, Tensor] = totals
        ) -> None:
            matrices = decoder.ff2[layer].matrices
            if not any(matrix.weight_name in group for matrix in matrices):
                return
            given = state.ff2_input[state.mask.to(state.ff2_input.device)].float()
            parts = torch.split(given, [matrix.width for matrix in matrices], dim=1)
            for matrix, inputs in zip(matrices, parts, strict=True):
                name = matrix.weight_name
                if name not in group:
                    continue
                if name not in totals:
                    totals[name] = torch.zeros(matrix.width, matrix.width, device=inputs.device)
                if len(matrices) > 1:  # most tokens go to other experts
                    inputs = inputs[inputs.any(dim=1)]
                totals[name].addmm_(inputs.T, inputs)

        for batch in text_batches(sequences):
            decoder.forward_through_layers(batch, visit)
            count += sum(map(len, batch))
        if not count:
            raise InputError("There is no text to compute second moments from; check mom2_dataset.")
        for name in group:
            keep(name, SecondMoment(totals.pop(name).cpu(), count))


def _matrices(decoder: Decoder) -> list[FeedForwardMatrix]:
    """Every FF2 that is edited, layer by layer and expert by expert."""
    return [matrix for ff2 in decoder.ff2.values() for matrix in ff2.matrices]


def _groups(decoder: Decoder, most_bytes: int) -> list[list[str]]:
    """The matrices, by name, whose sums are held together."""
    groups: list[list[str]] = []
    held = 0
    for matrix in _matrices(decoder):
        size = 4 * matrix.width**2
        if not groups or held + size > most_bytes:
            groups.append([])
            held = 0
        groups[-1].append(matrix.weight_name)
        held += size
    return groups


def text_batches(sequences: Iterable[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Groups sequences, as they come, into batches of bounded size with padding."""
    batch: list[Sequence[int]] = []
    for sequence in sequences:
        longest = max(map(len, [*batch, sequence]))
        if batch and longest * (len(batch) + 1) > BATCH_POSITIONS:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch
