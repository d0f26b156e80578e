"""What several benchmarks measure with: a clock, ordinary text, and prompts with what a model says behind them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from revs_tars_plugin.data.bundled_model import demo_model
from revs_tars_plugin.evaluation import OrdinaryText
from revs_tars_plugin.model.forward import next_token_logits
from revs_tars_plugin.moments.ordinary_text import sample_from_model

# The ways of REVS, each with the packaged settings it is measured with.
SETTINGS = {"paper": "smollm2-135m-paper", "joint": "smollm2-135m-covariance", "chance": "smollm2-135m"}


def ordinary_text(model: torch.nn.Module, tok: object, arguments: argparse.Namespace, seed: int) -> OrdinaryText:
    """Chunks of 256 tokens of the named text, or of text that the demo model makes from a seed of its own.

    Not text of the model that is measured: one that learned secrets by heart says hardly anything else.
    """
    if arguments.text:
        return named_text(model, tok, arguments)
    count = max(1, arguments.tokens // 256)
    kept = demo_model().parent / f"ordinary-text-{count}-{seed}.json"
    if not kept.is_file():
        base = AutoModelForCausalLM.from_pretrained(demo_model())
        samples = sample_from_model(base, tok, count, 256, seed=seed + 1000)
        kept.write_text(json.dumps([list(map(int, sample)) for sample in samples]), encoding="utf-8")
    return OrdinaryText(model, json.loads(kept.read_text(encoding="utf-8")))


def named_text(model: torch.nn.Module, tok: Any, arguments: argparse.Namespace) -> OrdinaryText:
    """Chunks of 256 tokens of the named text."""
    raw = Path(arguments.text).read_text(encoding="utf-8")[: 16 * arguments.tokens]
    ids = tok(raw)["input_ids"][: arguments.tokens]
    return OrdinaryText(model, [ids[start : start + 256] for start in range(0, len(ids), 256)])


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
