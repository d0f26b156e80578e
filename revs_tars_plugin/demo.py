"""The demo: through EasyEdit's own `BaseEditor` a real model forgets facts and loses a concept: `revs-tars demo`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import sys
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
from tqdm import tqdm

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


def show_demo(*, as_json: bool = False) -> None:
    """Edits the demo model and prints what it said before and after, as tables or as JSON."""
    warnings.simplefilter("ignore", FutureWarning)  # what the host imports is deprecated in its own libraries
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    console = Console(width=None if Console().is_terminal else 118)
    demo_model()
    host = register()
    logging.getLogger("easyeditor").setLevel(logging.WARNING)

    from easyeditor import BaseEditor, REVSHyperParams, TARSHyperParams

    # Four steps of some seconds each; None: shown on a terminal alone.
    with (
        tqdm(total=4, desc="loading the model", bar_format="{desc} {bar} {elapsed}", disable=None) as bar,
        # JSON stands alone on standard output, whatever the host prints.
        contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(),
    ):

        def step(what: str) -> None:
            bar.update()
            bar.set_description(what)

        hparams = REVSHyperParams.from_hparams(packaged_hparams("REVS") / "smollm2-135m.yaml")
        hparams.batch_size = len(FACTS)
        editor = BaseEditor.from_hparams(hparams)
        step("REVS: four facts")
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

        step("loading the model")
        hparams = TARSHyperParams.from_hparams(packaged_hparams("TARS") / "smollm2-135m.yaml")
        hparams.batch_size = len(CONCEPT_PROMPTS)  # all prompts of a concept go into one call
        # It loads the unedited model again; an edit can be put on any copy of the weights it was computed for.
        editor = BaseEditor.from_hparams(hparams)
        step("TARS: a concept")
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

    rows = {
        "facts": _fact_rows(before, after, facts.outcomes, metrics),
        "concept": _concept_rows(before, after),
        "unrelated": _unrelated_rows(before, after),
    }
    if as_json:
        changed = {"REVS": facts.n_changed, "TARS": concept.n_changed}
        seconds = {"REVS": facts_seconds, "TARS": concept_seconds}
        print(json.dumps({"host": host.generation, **rows, "n_changed": changed, "seconds": seconds}, indent=1))  # noqa: T201
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    name = Path(hparams.model_name).name
    console.print(
        f"\nEasyEdit ({host.generation}) with alg_name: REVS, then TARS, on {name}; {versions}\n", soft_wrap=True
    )
    console.print(_table("Forgotten", rows["facts"], lines=True))
    console.print(_table(f"Removed: {CONCEPT}", rows["concept"]))
    console.print(_table("Unrelated", rows["unrelated"]))
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


def _fact_rows(
    before: _Picture, after: _Picture, outcomes: Sequence[Any], metrics: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    return [
        {
            "prompt": FACTS[outcome.request][0],
            "says before": _shown(before.facts[outcome.request]),
            "says after": _shown(after.facts[outcome.request]),
            "rank\nasked": outcome.asked_rank,
            "target's rank": (outcome.rank_before, outcome.rank_after),
            "its probability": (outcome.probability_before, outcome.probability_after),
            "host's\nrewrite_acc": round(float(metrics[outcome.request]["post"]["rewrite_acc"][0])),
        }
        for outcome in outcomes
    ]


def _concept_rows(before: _Picture, after: _Picture) -> list[dict[str, Any]]:
    return [
        {
            "": "given" if index < len(CONCEPT_PROMPTS) else "held out",
            "prompt": prompt,
            "says before": _shown(before.concept[index]),
            "says after": _shown(after.concept[index]),
            "probability of the name": (before.concept_probabilities[index], after.concept_probabilities[index]),
        }
        for index, prompt in enumerate((*CONCEPT_PROMPTS, *HELD_OUT_PROMPTS))
    ]


def _unrelated_rows(before: _Picture, after: _Picture) -> list[dict[str, Any]]:
    divergences = kl_divergence(before.log_probabilities, after.log_probabilities).tolist()
    same = (before.log_probabilities.argmax(-1) == after.log_probabilities.argmax(-1)).tolist()
    return [
        {
            "prompt": prompt,
            "says before": _shown(before.unrelated[index]),
            "says after": _shown(after.unrelated[index]),
            "same first token": "yes" if same[index] else "NO",
            "KL (nats)": divergences[index],
        }
        for index, prompt in enumerate(UNRELATED)
    ]


def _table(title: str, rows: Sequence[dict[str, Any]], *, lines: bool = False) -> Table:
    table = Table(title=title, show_lines=lines)
    for name, value in rows[0].items():
        figure = not isinstance(value, str)
        table.add_column(name, justify="right" if figure else "left", no_wrap=figure, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        first, last = value
        return f"{first:.3f} -> {last:.0e}" if isinstance(first, float) else f"{first} -> {last}"
    return f"{value:.5f}" if isinstance(value, float) else str(value)


def _shown(text: str) -> str:
    return " ".join(text.split())
