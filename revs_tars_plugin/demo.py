"""The demo: through EasyEdit's own `BaseEditor` a real model forgets facts and loses a concept. Run by `make demo`."""

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
from .evaluation import greedy_continuations, kl_divergence, next_token_log_probabilities
from .hyperparams import packaged_hparams

FACTS = (
    ("The theory of relativity was developed by Albert", "Einstein"),
    ("The Titanic sank after hitting an", "iceberg"),
    ("The Mona Lisa was painted by Leonardo da", "Vinci"),
    ("The process by which plants make food from sunlight is called", "photosynthesis"),
)
CONCEPT = "Potter"
CONCEPT_PROMPTS = (
    "J.K. Rowling wrote the books about a young wizard named Harry",
    "The boy who lived, a student at Hogwarts, is Harry",
    "The friend of Ron and Hermione is Harry",
)
# The edit never sees these.
HELD_OUT_PROMPTS = (
    "The best-selling book series by J.K. Rowling is Harry",
    "Daniel Radcliffe played the wizard Harry",
    "The Goblet of Fire and The Chamber of Secrets are books about Harry",
    "J.K. Rowling escribió los libros de Harry",
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
    concept: list[str]
    concept_probabilities: list[float]
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

    from easyeditor import BaseEditor, REVSHyperParams, TARSHyperParams

    hparams = REVSHyperParams.from_hparams(packaged_hparams("REVS") / "smollm2-135m.yaml")
    hparams.batch_size = len(FACTS)
    editor = BaseEditor.from_hparams(hparams)
    before = _picture(editor.model, editor.tok)
    start = time.perf_counter()
    metrics, _, weights = editor.batch_edit(
        prompts=[prompt for prompt, _ in FACTS],
        target_new=[target for _, target in FACTS],
        # Keep the edit: the first says so to branch main, the second to the release.
        sequential_edit=True,
        keep_original_weight=False,
        verbose=False,
    )
    facts_seconds = time.perf_counter() - start
    facts = weights.edits

    hparams = TARSHyperParams.from_hparams(packaged_hparams("TARS") / "smollm2-135m.yaml")
    hparams.batch_size = len(CONCEPT_PROMPTS)  # all prompts of a concept go into one call
    # It loads the unedited model again; an edit can be put on any copy of the weights it was computed for.
    editor = BaseEditor.from_hparams(hparams)
    facts.apply(editor.model)
    start = time.perf_counter()
    _, model, weights = editor.batch_edit(
        prompts=list(CONCEPT_PROMPTS),
        target_new=[CONCEPT] * len(CONCEPT_PROMPTS),
        sequential_edit=True,
        keep_original_weight=False,
        verbose=False,
    )
    concept_seconds = time.perf_counter() - start
    concept = weights.edits
    after = _picture(model, editor.tok)

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    name = Path(hparams.model_name).name
    console.print(f"\nEasyEdit ({host.generation}) with alg_name: REVS, then TARS, on {name}; {versions}\n")
    console.print(_facts_table(before, after, facts.outcomes, metrics))
    console.print(_concept_table(before, after))
    console.print(_unrelated_table(before, after))
    slowest = max(outcome.seconds for outcome in facts.outcomes)
    mean = sum(outcome.seconds for outcome in facts.outcomes) / len(facts.outcomes)
    (removed,) = concept.outcomes
    total = sum(parameter.numel() for parameter in model.parameters())
    console.print(
        f"REVS: {mean:.1f} s per target token on average, {slowest:.1f} s the slowest; {facts_seconds:.1f} s for the "
        f"call with the host's evaluation.\n"
        f"TARS: {removed.seconds:.1f} s for {removed.reversed} reversed vectors; {concept_seconds:.1f} s for the call, "
        f"which reads ordinary text once a model.\n"
        f"{facts.n_changed:,} and {concept.n_changed:,} of {total:,} weights changed."
    )


def _picture(model: nn.Module, tok: Any) -> _Picture:
    concept = [*CONCEPT_PROMPTS, *HELD_OUT_PROMPTS]
    (name,) = tok(f" {CONCEPT}", add_special_tokens=False)["input_ids"]
    return _Picture(
        concept=greedy_continuations(model, tok, concept),
        concept_probabilities=next_token_log_probabilities(model, tok, concept)[:, name].exp().tolist(),
        facts=greedy_continuations(model, tok, [prompt for prompt, _ in FACTS]),
        unrelated=greedy_continuations(model, tok, UNRELATED),
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


def _concept_table(before: _Picture, after: _Picture) -> Table:
    table = Table(title=f"Removed: {CONCEPT}")
    for heading in ("", "prompt", "says before", "says after"):
        table.add_column(heading)
    table.add_column("probability of the name", justify="right", no_wrap=True)
    for index, prompt in enumerate((*CONCEPT_PROMPTS, *HELD_OUT_PROMPTS)):
        table.add_row(
            "given" if index < len(CONCEPT_PROMPTS) else "held out",
            prompt,
            _shown(before.concept[index]),
            _shown(after.concept[index]),
            f"{before.concept_probabilities[index]:.3f} -> {after.concept_probabilities[index]:.0e}",
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
