"""Second moments of FF2's inputs over ordinary text, in the `.npz` files that EasyEdit's ROME and MEMIT keep.

A file computed for MEMIT serves here and the reverse: same path, same keys (`models/rome/layer_stats.py` there).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from .decoder import Decoder, LayerState
from .errors import InputError
from .forward import padded, sample
from .hyperparams import UnlearnHyperParams

# The data sets that the host's own statistics know, by its names for them.
_HOST_DATASETS = {
    "wikipedia": ("wikimedia/wikipedia", "20231101.en"),
    "wikitext": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
}
SAMPLED = "sampled"
_BATCH_TOKENS = 2048


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
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(suffix=".npz", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                arrays: dict[str, Any] = {
                    "mom2.constructor": np.array("easyeditor.util.runningstats.SecondMoment()"),
                    "mom2.count": np.array(self.count),
                    "mom2.mom2": self.total.numpy(),
                    "sample_size": np.array(n_samples),
                }
                np.savez(file, **arrays)
            Path(unfinished).replace(path)
        finally:
            Path(unfinished).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> SecondMoment:
        """Reads a file of ours or of the host.

        Raises:
            InputError: When it is not such a file.
        """
        try:
            with np.load(path) as state:
                return cls(torch.from_numpy(state["mom2.mom2"]).float(), int(state["mom2.count"]))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} is no file of second moments ({error}); delete it to have it computed."
            ) from error


def second_moments(
    decoder: Decoder,
    tok: Any,
    source: str,
    *,
    stats_dir: str | Path,
    n_samples: int,
    precision: str = "float32",
    model_name: str | None = None,
    max_tokens: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> dict[int, SecondMoment]:
    """Returns the second moment of every layer the decoder edits, from files where they exist, else from one pass.

    Args:
        decoder: The model.
        tok: Its tokenizer.
        source: A text file; a Hugging Face data set by name (its "text" column is streamed); or "sampled": text
            that the model itself makes from nothing, where no text may be had.
        stats_dir: Where the files lie.
        n_samples: How many texts: paragraphs of the file, rows of the data set, or samples.
        precision: Part of the file name, for the host's sake.
        model_name: Part of the path; the last part of the model's own name by default, as on the host's branch main.
        max_tokens: Longer texts are cut.
        seed: For "sampled".
        progress: Show a progress bar.

    Raises:
        InputError: When the source cannot be read or holds no text.
    """
    name = model_name or Path(str(getattr(decoder.model.config, "_name_or_path", "model"))).name  # type: ignore[union-attr]
    paths = {
        layer: Path(stats_dir).expanduser()
        / name
        / f"{source_label(source)}_stats"
        / f"{ff2.weight_name.removesuffix('.weight')}_{precision}_mom2_{n_samples}.npz"
        for layer, ff2 in decoder.ff2.items()
    }
    if not all(path.is_file() for path in paths.values()):
        sequences = _sequences(decoder.model, tok, source, n_samples, max_tokens, seed)
        computed = collect(decoder, tqdm(sequences, total=n_samples, desc="second moments", disable=not progress))
        for layer, path in paths.items():
            computed[layer].save(path, n_samples)
        return computed
    return {layer: SecondMoment.load(path) for layer, path in paths.items()}


def source_label(source: str) -> str:
    """Returns how a source of text is called in the names of its files."""
    return Path(source).stem if Path(source).suffix else source.replace("/", "_")


def ordinary_moments(decoder: Decoder, tok: Any, hparams: UnlearnHyperParams) -> dict[int, SecondMoment]:
    """Returns the second moments of the ordinary text that a method's settings name; see `second_moments`."""
    return second_moments(
        decoder,
        tok,
        hparams.mom2_dataset,
        stats_dir=hparams.stats_dir,
        n_samples=hparams.mom2_n_samples,
        precision=hparams.mom2_dtype,
        seed=hparams.seed,
    )


def collect(decoder: Decoder, sequences: Iterable[Sequence[int]]) -> dict[int, SecondMoment]:
    """Sums `a a^T` at every position of the texts, all layers in the same pass, one batch of one layer at a time.

    Raises:
        InputError: When there is no text.
    """
    totals: dict[int, Tensor] = {}
    count = 0

    def visit(layer: int, state: LayerState) -> None:
        inputs = state.ff2_input[state.mask.to(state.ff2_input.device)].float()
        if layer not in totals:
            totals[layer] = torch.zeros(inputs.shape[1], inputs.shape[1], device=inputs.device)
        totals[layer].addmm_(inputs.T, inputs)

    for batch in _batches(sequences):
        decoder.forward_through_layers(batch, visit)
        count += sum(map(len, batch))
    if not count:
        raise InputError("There is no text to compute second moments from; check mom2_dataset.")
    return {layer: SecondMoment(total.cpu(), count) for layer, total in totals.items()}


@torch.no_grad()
def mean_state(decoder: Decoder, tok: Any, source: str, layer: int, n_samples: int, seed: int) -> Float[Tensor, " d"]:
    """Returns the mean output of a layer over all positions of ordinary text: what its states have in common.

    Args:
        decoder: The model.
        tok: Its tokenizer.
        source: As in `second_moments`.
        layer: Whose output; negative counts from the model's last.
        n_samples: How many texts, of at most 64 tokens each.
        seed: For "sampled".

    Raises:
        InputError: When the source cannot be read or holds no text.
    """
    # Read before the hook is there: sampled text is made by the model itself.
    sequences = list(_sequences(decoder.model, tok, source, n_samples, 64, seed))
    total, count = torch.zeros(decoder.vocabulary.width), 0
    states: list[Tensor] = []

    def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handle = decoder.layer_modules[layer].register_forward_hook(keep)
    try:
        for batch in _batches(sequences):
            states.clear()
            decoder.forward_through_layers(batch, lambda _layer, _state: None)
            _, mask = padded(decoder.model, batch)
            total += states[0][mask.bool().to(states[0].device)].float().sum(dim=0).cpu()
            count += sum(map(len, batch))
    finally:
        handle.remove()
    if not count:
        raise InputError("There is no text to compute a mean state from; check mom2_dataset.")
    return total / count


def _batches(sequences: Iterable[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Groups sequences, as they come, into batches of bounded size with padding."""
    batch: list[Sequence[int]] = []
    for sequence in sequences:
        longest = max(map(len, [*batch, sequence]))
        if batch and longest * (len(batch) + 1) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


def _sequences(
    model: nn.Module, tok: Any, source: str, n_samples: int, max_tokens: int, seed: int
) -> Iterator[Sequence[int]]:
    if source == SAMPLED:
        return sample_from_model(model, tok, n_samples, max_tokens, seed)
    texts = _file_texts(Path(source).expanduser()) if Path(source).suffix else _dataset_texts(source)
    tokenised = (tok(text, truncation=True, max_length=max_tokens)["input_ids"] for text in texts)
    return islice((ids for ids in tokenised if ids), n_samples)


def _file_texts(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    yield line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The text file {path} cannot be read: {error}.") from error


def _dataset_texts(name: str) -> Iterator[str]:
    import datasets

    path, config = _HOST_DATASETS.get(name, (name, None))
    try:
        rows = datasets.load_dataset(path, config, split="train", streaming=True)
        for row in rows:
            yield row["text"]
    except Exception as error:  # the library raises errors of many kinds for "not there"
        raise InputError(
            f'The data set "{name}" cannot be read ({type(error).__name__}); name a text file instead, or "{SAMPLED}".'
        ) from error


@torch.no_grad()
def sample_from_model(
    model: nn.Module, tok: Any, n_samples: int, max_tokens: int, seed: int, batch_size: int = 64
) -> Iterator[list[int]]:
    """Yields text that the model makes at temperature 1 from its first token on, the same for the same seed."""
    start = tok.bos_token_id if tok.bos_token_id is not None else tok.eos_token_id
    device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, n_samples, batch_size):
        ids = torch.full((min(batch_size, n_samples - first), 1), 0 if start is None else start, device=device)
        yield from torch.cat([ids, sample(model, ids, max_tokens - 1, generator)], dim=1).tolist()
