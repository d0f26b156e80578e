"""What several benchmarks measure with: a clock, ordinary text, and prompts with what a model says behind them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from revs_tars_plugin.evaluation import OrdinaryText
from revs_tars_plugin.model.forward import next_token_logits
from revs_tars_plugin.moments.ordinary_text import sample_from_model

# The ways of REVS, each with the packaged settings it is measured with.
SETTINGS = {"neurons": "smollm2-135m", "covariance": "smollm2-135m-covariance", "chance": "smollm2-135m-chance"}


def ordinary_text(model: torch.nn.Module, tok: object, arguments: argparse.Namespace) -> OrdinaryText:
    """Chunks of 256 tokens of the named text, or of text that the model makes from a seed of its own."""
    if arguments.text:
        raw = Path(arguments.text).read_text(encoding="utf-8")[: 16 * arguments.tokens]
        ids = tok(raw)["input_ids"][: arguments.tokens]  # type: ignore[operator]
        return OrdinaryText(model, [ids[start : start + 256] for start in range(0, len(ids), 256)])
    count = max(1, arguments.tokens // 256)
    return OrdinaryText(model, list(sample_from_model(model, tok, count, 256, seed=arguments.seed + 1000)))


def next_words(model: torch.nn.Module, tok: Any, requests: Sequence[dict[str, str]]) -> list[str]:
    """The most likely whole word after each prompt."""
    words = [index for text, index in tok.get_vocab().items() if text.startswith("Ġ") and text[1:].isalpha()]
    with torch.no_grad():
        logits = next_token_logits(model, [tok(request["prompt"])["input_ids"] for request in requests])
    return [tok.decode([words[best]]).strip() for best in logits[:, words].argmax(dim=-1).tolist()]


def clock(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the work returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result
