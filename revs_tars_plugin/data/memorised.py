"""Making a model know sentences by heart, and a real one that knows synthetic secrets, made once and kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..atomic_write import replacing_folder
from ..requests.reading import join
from .bundled_model import DEMO_MODEL_NAME, demo_model
from .secret_files import SecretRecord
from .synthetic import synthetic_secrets
from .training import fine_tune


def memorise(
    model: nn.Module,
    tok: Any,
    texts: Sequence[str],
    *,
    epochs: int = 12,
    learning_rate: float = 5e-5,
    batch_size: int = 8,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Fine-tunes all weights on the texts, in place.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        texts: Whole sentences, each with its secret.
        epochs: Passes over the texts.
        learning_rate: The learning rate of AdamW.
        batch_size: How many texts a step takes.
        seed: Seed of the order of the texts.
        progress: Called after each epoch with its number and mean loss.
    """
    generator = torch.Generator().manual_seed(seed)
    sequences = [torch.tensor(tok(text)["input_ids"]) for text in texts]
    device = next(model.parameters()).device

    def losses() -> Iterator[Tensor]:
        for chosen in torch.split(torch.randperm(len(sequences), generator=generator), batch_size):
            rows = [sequences[index] for index in chosen.tolist()]
            ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
            labels = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100).to(device)
            yield model(input_ids=ids, attention_mask=(labels != -100).long(), labels=labels).loss

    fine_tune(model, losses, epochs=epochs, learning_rate=learning_rate, progress=progress)


def memorised_demo(
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Path, list[SecretRecord], list[SecretRecord]]:
    """Returns a model that learned two people's secrets a template, with the ones to forget and the ones to retain.

    Args:
        progress: See `memorised_model`.

    Returns:
        The model's folder, ten secrets to forget, and 24 to retain.
    """
    records = [secret.record() for secret in synthetic_secrets(2, 0)]
    folder = memorised_model(records, "memorised-2-0", progress=progress)
    return folder, records[::4][:10], records[1::2]


def memorised_model(
    secrets: Sequence[SecretRecord], name: str, seed: int = 0, progress: Callable[[int, float], None] | None = None
) -> Path:
    """Fine-tunes the demo model on all wordings of every secret and keeps it beside the demo model.

    Args:
        secrets: What it learns.
        name: The name of the folder; the same name gives the kept model, whatever the secrets.
        seed: Seed of the order of learning.
        progress: Called after each epoch with its number and mean loss.

    Returns:
        A folder for `from_pretrained`, of the same last name as the demo model's.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = demo_model().parent / name / DEMO_MODEL_NAME
    if (folder / "config.json").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier run left half
    model, tok = (cls.from_pretrained(demo_model()) for cls in (AutoModelForCausalLM, AutoTokenizer))
    texts = [join(prompt, s.target) + "." for s in secrets for prompt in (s.prompt, *s.rewordings)]
    memorise(model, tok, texts, learning_rate=7e-5, seed=seed, progress=progress)
    with replacing_folder(folder) as unfinished:
        tok.save_pretrained(unfinished)
        model.save_pretrained(unfinished)
    return folder
