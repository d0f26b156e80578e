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
    """Returns the second moments of every layer the decoder edits; their files are made first where they are missing.

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
    paths = {
        layer: Path(stats_dir).expanduser()
        / name
        / f"{source.label}_stats"
        / f"{ff2.weight_name.removesuffix('.weight')}_{precision}_mom2_{source.n_samples}.npz"
        for layer, ff2 in decoder.ff2.items()
    }
    if not all(path.is_file() for path in paths.values()):
        sequences = sequences_of(decoder.model, tok, source, progress=progress)
        bar = tqdm(sequences, total=source.n_samples, desc="second moments", disable=not progress)
        collect(decoder, bar, lambda layer, moment: moment.save(paths[layer], source.n_samples))
    return MomentFiles(paths)


def temporary_moments(decoder: Decoder, sequences: Sequence[Sequence[int]]) -> MomentFiles:
    """Returns the second moments of a few texts, in files that go with the result."""
    folder = tempfile.TemporaryDirectory(prefix="revs-tars-")
    paths = {layer: Path(folder.name) / f"{layer}.npz" for layer in decoder.layers}
    collect(decoder, sequences, lambda layer, moment: moment.save(paths[layer], len(sequences)))
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
    keep: Callable[[int, SecondMoment], None],
    most_bytes: int = _MOST_BYTES,
) -> None:
    """Sums `a a^T` at every position of the texts, one batch of one layer at a time.

    Layers share a pass as far as their sums fit into `most_bytes` together; a large model needs several passes.

    Args:
        decoder: The model.
        sequences: Token ids, streamed where one pass is enough.
        keep: Takes each layer's moment as soon as it is complete.
        most_bytes: Bytes of the sums that are held at a time; at least one layer's are.

    Raises:
        InputError: When there is no text.
    """
    groups = _groups(decoder, most_bytes)
    if len(groups) > 1:
        sequences = list(sequences)
    for group in groups:
        totals: dict[int, Tensor] = {}
        count = 0

        def visit(
            layer: int, state: LayerState, group: Sequence[int] = group, totals: dict[int, Tensor] = totals
        ) -> None:
            if layer not in group:
                return
            inputs = state.ff2_input[state.mask.to(state.ff2_input.device)].float()
            if layer not in totals:
                totals[layer] = torch.zeros(inputs.shape[1], inputs.shape[1], device=inputs.device)
            totals[layer].addmm_(inputs.T, inputs)

        for batch in text_batches(sequences):
            decoder.forward_through_layers(batch, visit)
            count += sum(map(len, batch))
        if not count:
            raise InputError("There is no text to compute second moments from; check mom2_dataset.")
        for layer in group:
            keep(layer, SecondMoment(totals.pop(layer).cpu(), count))


def _groups(decoder: Decoder, most_bytes: int) -> list[list[int]]:
    """The layers whose sums are held together."""
    groups: list[list[int]] = []
    held = 0
    for layer in decoder.layers:
        size = 4 * decoder.ff2[layer].width ** 2
        if not groups or held + size > most_bytes:
            groups.append([])
            held = 0
        groups[-1].append(layer)
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
