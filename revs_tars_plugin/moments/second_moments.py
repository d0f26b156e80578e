"""Second moments of FF2's inputs over ordinary text, in the `.npz` files that EasyEdit's ROME and MEMIT keep.

A file computed for MEMIT serves here and the reverse: same path, same keys (`models/rome/layer_stats.py` there).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..errors import InputError
from ..hyperparams import UnlearnHyperParams
from ..model.decoder import Decoder, LayerState
from ..model.forward import BATCH_POSITIONS, device_of_ids, fair_positions
from ..model.matrices import FeedForwardMatrix
from ..model.processes import add_up, agreed, is_own, process_count, process_label, writer_first, writes
from .files import MomentFiles, SecondMoment
from .kept_text import kept_sequences, text_stats_folder
from .ordinary_text import TextSource
from .partial_sums import PartialSums

# How the files of sums under way end.
_SUMS = ".sums.safetensors"
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
    folder = text_stats_folder(decoder.model, source, stats_dir, model_name)
    paths = {
        matrix.weight_name: folder
        / f"{matrix.weight_name.removesuffix('.weight')}_{precision}_mom2_{source.n_samples}.npz"
        for matrix in _matrices(decoder)
    }
    missing = [name for name, path in paths.items() if not agreed(path.is_file())]
    if missing:
        sequences = kept_sequences(
            decoder.model, tok, source, stats_dir=stats_dir, model_name=model_name, progress=progress
        )
        bar = tqdm(sequences, total=source.n_samples, desc="second moments", disable=not progress)

        def keep(matrix: str, moment: SecondMoment) -> None:
            with writer_first():  # of processes that share a disk all but one find the file there
                if not paths[matrix].is_file():
                    moment.save(paths[matrix], source.n_samples)

        # So that each process that works together gets some of it.
        positions = min(BATCH_POSITIONS, max(1, source.n_samples * source.max_tokens // process_count()))
        place = folder / f".{hashlib.sha256(repr(source).encode()).hexdigest()[:8]}"
        collect(decoder, bar, keep, names=missing, positions=positions, unfinished=place)
        for old in folder.glob(f"{place.name}.*{_SUMS}") if writes() else ():
            old.unlink(missing_ok=True)  # of another number of processes, or another group of matrices
    return MomentFiles(paths)


def temporary_moments(decoder: Decoder, sequences: Sequence[Sequence[int]]) -> MomentFiles:
    """Returns the second moments of a few texts, in files that go with the result."""
    folder = tempfile.TemporaryDirectory(prefix="revs-tars-")
    paths = {matrix.weight_name: Path(folder.name) / f"{matrix.weight_name}.npz" for matrix in _matrices(decoder)}
    positions = fair_positions(sequences)
    collect(decoder, sequences, lambda matrix, moment: moment.save(paths[matrix], len(sequences)), positions=positions)
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
    *,
    names: Collection[str] | None = None,
    most_bytes: int | None = None,
    positions: int = BATCH_POSITIONS,
    unfinished: Path | None = None,
) -> None:
    """Sums `a a^T` at every position of the texts, one batch of one FF2 at a time.

    Matrices share a pass as far as their sums fit into `most_bytes` together; a large model needs several passes. What
    an expert is given counts with the weight that it has there, and as 0 where it is not chosen. Of several processes
    that work together each reads its share of the batches.

    Args:
        decoder: The model.
        sequences: Token ids, streamed where one pass is enough.
        keep: Takes each matrix's moment, by the weight's name, as soon as it is complete.
        names: The weights whose inputs are summed; all by default.
        most_bytes: Bytes of the sums that are held at a time; at least one matrix's are. By default half a gigabyte,
            and of a model that does not fit into memory itself one matrix's.
        positions: The most positions of a batch, padding included.
        unfinished: How the files begin in which sums under way are kept, so that a run that was stopped goes on; None
            keeps none.

    Raises:
        InputError: When there is no text.
    """
    if most_bytes is None:
        most_bytes = 0 if any(each.is_meta for each in decoder.model.parameters()) else _MOST_BYTES
    wanted = [matrix for matrix in _matrices(decoder) if names is None or matrix.weight_name in names]
    groups = _groups(wanted, most_bytes)
    if len(groups) > 1:
        sequences = list(sequences)
    for group in groups:
        sums = PartialSums({matrix.weight_name: matrix for matrix in group}, _place(unfinished, group))

        def visit(layer: int, state: LayerState, sums: PartialSums = sums) -> None:
            matrices = decoder.ff2[layer].matrices
            if not any(matrix.weight_name in sums.matrices for matrix in matrices):
                return
            given = state.ff2_input[state.mask.to(state.ff2_input.device)].float()
            parts = torch.split(given, [matrix.width for matrix in matrices], dim=1)
            for matrix, inputs in zip(matrices, parts, strict=True):
                if matrix.weight_name in sums.matrices:
                    # Of experts most are not chosen for most tokens.
                    sums.add(matrix.weight_name, inputs if len(matrices) == 1 else inputs[inputs.any(dim=1)])

        for batch in sums.left(_own_batches(sequences, positions)):
            decoder.forward_through_layers(batch, visit)
        count = torch.tensor(sums.count)
        add_up(count)
        if not count:
            raise InputError("There is no text to compute second moments from; check mom2_dataset.")
        for matrix in group:
            total = sums.totals.pop(matrix.weight_name, None)
            if total is None:  # another process read all there was
                total = torch.zeros(matrix.width, matrix.width, device=device_of_ids(decoder.model))
            add_up(total)
            keep(matrix.weight_name, SecondMoment(total.cpu(), int(count)))
        sums.done()


def _own_batches(sequences: Iterable[Sequence[int]], positions: int) -> Iterator[list[Sequence[int]]]:
    """The batches that are this process's to read."""
    for number, batch in enumerate(text_batches(sequences, positions)):
        if is_own(number):
            yield batch


def _place(beginning: Path | None, group: Sequence[FeedForwardMatrix]) -> Path | None:
    """Where the sums of some matrices are kept while they are under way; each process has its own."""
    if beginning is None:
        return None
    digest = hashlib.sha256("\n".join(matrix.weight_name for matrix in group).encode()).hexdigest()[:12]
    return beginning.with_name(f"{beginning.name}.{digest}.{process_label()}{_SUMS}")


def _matrices(decoder: Decoder) -> list[FeedForwardMatrix]:
    """Every FF2 that is edited, layer by layer and expert by expert."""
    return [matrix for ff2 in decoder.ff2.values() for matrix in ff2.matrices]


def _groups(matrices: Sequence[FeedForwardMatrix], most_bytes: int) -> list[list[FeedForwardMatrix]]:
    """The matrices whose sums are held together."""
    groups: list[list[FeedForwardMatrix]] = []
    held = 0
    for matrix in matrices:
        size = 4 * matrix.width**2
        if not groups or held + size > most_bytes:
            groups.append([])
            held = 0
        groups[-1].append(matrix)
        held += size
    return groups


def text_batches(sequences: Iterable[Sequence[int]], positions: int = BATCH_POSITIONS) -> Iterator[list[Sequence[int]]]:
    """Groups sequences, as they come, into batches of bounded size with padding."""
    batch: list[Sequence[int]] = []
    for sequence in sequences:
        longest = max(map(len, [*batch, sequence]))
        if batch and longest * (len(batch) + 1) > positions:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch
