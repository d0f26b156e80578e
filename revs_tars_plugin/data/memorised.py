"""A real model that knows synthetic secrets by heart, made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..requests import join
from .files import SecretRecord
from .memorise import memorise
from .secrets import SyntheticSecret, synthetic_secrets
from .smollm2 import DEMO_MODEL_NAME, demo_model


def memorised_demo(
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Path, list[SecretRecord], list[SecretRecord]]:
    """Returns a model that learned two people's secrets a template, with the ones to forget and the ones to retain.

    Args:
        progress: See `memorised_model`.

    Returns:
        The model's folder, ten secrets to forget, and 24 to retain.
    """
    secrets = synthetic_secrets(2, 0)
    folder = memorised_model(secrets, "memorised-2-0", progress=progress)
    records = [SecretRecord(s.prompt, s.target, s.subject, s.rephrase_prompt) for s in secrets]
    return folder, records[::4][:10], records[1::2]


def memorised_model(
    secrets: Sequence[SyntheticSecret], name: str, seed: int = 0, progress: Callable[[int, float], None] | None = None
) -> Path:
    """Fine-tunes the demo model on both wordings of every secret and keeps it beside the demo model.

    Args:
        secrets: What it learns.
        name: Of the folder; the same name gives the kept model, whatever the secrets.
        seed: Of the order of learning.
        progress: Called after each epoch with its number and mean loss.

    Returns:
        A folder for `from_pretrained`, of the same last name as the demo model's.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = demo_model().parent / name / DEMO_MODEL_NAME
    if (folder / "config.json").is_file():
        return folder
    model, tok = (cls.from_pretrained(demo_model()) for cls in (AutoModelForCausalLM, AutoTokenizer))
    texts = [join(prompt, s.target) + "." for s in secrets for prompt in (s.prompt, s.rephrase_prompt)]
    memorise(model, tok, texts, learning_rate=7e-5, seed=seed, progress=progress)
    tok.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
