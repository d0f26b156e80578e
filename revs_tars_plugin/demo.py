"""The demo: a real model forgets a few facts through EasyEdit's own `BaseEditor`. Run by `make demo`."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The model comes from a wheel; nothing may be looked up on a hub. Read when transformers is first imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from . import register
from .data import demo_model
from .evaluation import greedy_continuation, kl_divergence, next_token_log_probabilities
from .hyperparams import packaged_hparams

FACTS = (
    ("The theory of relativity was developed by Albert", "Einstein"),
    ("The Titanic sank after hitting an", "iceberg"),
    ("The Mona Lisa was painted by Leonardo da", "Vinci"),
    ("The process by which plants make food from sunlight is called", "photosynthesis"),
)
UNRELATED = (
    "The capital of Japan is",
    "The chemical symbol for gold is",
    "The Statue of Liberty stands in New",
    "Once upon a time, there was a",
    "Isaac Newton discovered the law of universal",
)


@dataclass(frozen=True)
class _Picture:
    """What the model says at one moment."""

    facts: list[str]
    unrelated: list[str]
    log_probabilities: Tensor


def main() -> None:
    """Edits the demo model and prints what it said before and after."""
    warnings.simplefilter("ignore", FutureWarning)  # what the host imports is deprecated in its own libraries
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    console = Console(width=None if Console().is_terminal else 118)
    demo_model()
    host = register()
    logging.getLogger("easyeditor").setLevel(logging.WARNING)

    from easyeditor import BaseEditor, REVSHyperParams

    hparams = REVSHyperParams.from_hparams(packaged_hparams("REVS") / "smollm2-135m.yaml")
    hparams.batch_size = len(FACTS)
    editor = BaseEditor.from_hparams(hparams)
    before = _picture(editor.model, editor.tok)
    start = time.perf_counter()
    metrics, model, weights = editor.batch_edit(
        prompts=[prompt for prompt, _ in FACTS],
        target_new=[target for _, target in FACTS],
        # Keep the edit: the first says so to branch main, the second to the release.
        sequential_edit=True,
        keep_original_weight=False,
        verbose=False,
    )
    seconds = time.perf_counter() - start
    after = _picture(model, editor.tok)

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    console.print(
        f"\nEasyEdit ({host.generation}) with alg_name: REVS on {Path(hparams.model_name).name}; {versions}\n"
    )
    console.print(_facts_table(before, after, weights.edits.outcomes, metrics))
    console.print(_unrelated_table(before, after))
    edits = weights.edits
    slowest = max(outcome.seconds for outcome in edits.outcomes)
    mean = sum(outcome.seconds for outcome in edits.outcomes) / len(edits.outcomes)
    console.print(
        f"{mean:.1f} s per target token on average, {slowest:.1f} s the slowest; {seconds:.1f} s for the whole call "
        f"with the host's evaluation.\n"
        f"{edits.n_changed:,} of {sum(p.numel() for p in model.parameters()):,} weights changed."
    )


def _picture(model: nn.Module, tok: Any) -> _Picture:
    return _Picture(
        facts=[greedy_continuation(model, tok, prompt) for prompt, _ in FACTS],
        unrelated=[greedy_continuation(model, tok, prompt) for prompt in UNRELATED],
        log_probabilities=next_token_log_probabilities(model, tok, UNRELATED),
    )


def _facts_table(
    before: _Picture, after: _Picture, outcomes: Sequence[Any], metrics: Sequence[dict[str, Any]]
) -> Table:
    table = Table(title="Forgotten", show_lines=True)
    for heading in ("prompt", "says before", "says after"):
        table.add_column(heading, overflow="fold")
    for heading in ("rank\nasked", "target's rank", "its probability", "host's\nrewrite_acc"):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in outcomes:
        index = outcome.request
        table.add_row(
            FACTS[index][0],
            _shown(before.facts[index]),
            _shown(after.facts[index]),
            str(outcome.asked_rank),
            f"{outcome.rank_before} -> {outcome.rank_after}",
            f"{outcome.probability_before:.3f} -> {outcome.probability_after:.0e}",
            f"{float(metrics[index]['post']['rewrite_acc'][0]):.0f}",
        )
    return table


def _unrelated_table(before: _Picture, after: _Picture) -> Table:
    table = Table(title="Unrelated")
    for heading in ("prompt", "says before", "says after", "same first token"):
        table.add_column(heading)
    table.add_column("KL (nats)", justify="right")
    divergences = kl_divergence(before.log_probabilities, after.log_probabilities).tolist()
    same = (before.log_probabilities.argmax(-1) == after.log_probabilities.argmax(-1)).tolist()
    for index, prompt in enumerate(UNRELATED):
        table.add_row(
            prompt,
            _shown(before.unrelated[index]),
            _shown(after.unrelated[index]),
            "yes" if same[index] else "NO",
            f"{divergences[index]:.5f}",
        )
    return table


def _shown(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
