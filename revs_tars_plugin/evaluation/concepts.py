"""What a model knows of a concept, in both directions: from a description to its name, and from its name to facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..formatting import headings_of
from ..requests.reading import tokenise_in_context
from .integrity import next_token_log_probabilities
from .run import EvaluationRun, mean


def name_probabilities(model: nn.Module, tok: Any, prompts: Sequence[str], name: str) -> list[float]:
    """Returns the probability that the name begins after each prompt (TARS, section 4)."""
    if not prompts:
        return []
    tokens = torch.tensor([[tokenise_in_context(tok, prompt, name)[1][0]] for prompt in prompts])
    probabilities: list[float] = (
        next_token_log_probabilities(model, tok, prompts).gather(1, tokens)[:, 0].exp().tolist()
    )
    return probabilities


def fact_log_likelihoods(model: nn.Module, tok: Any, facts: Sequence[tuple[str, str]]) -> list[float]:
    """Returns for each beginning of a fact the log-likelihood, in nats, of the first token of how it goes on."""
    if not facts:
        return []
    tokens = torch.tensor([[tokenise_in_context(tok, *fact)[1][0]] for fact in facts])
    likelihoods: list[float] = (
        next_token_log_probabilities(model, tok, [fact[0] for fact in facts]).gather(1, tokens)[:, 0].tolist()
    )
    return likelihoods


def measure_concepts(run: EvaluationRun) -> None:
    """Asks for the concepts, from description to name, in other languages, and from name to facts."""
    for concept in run.concepts:
        prompts = run.asked(concept.held_out or concept.prompts)
        probabilities = name_probabilities(run.model, run.tok, prompts, concept.name)
        foreign = name_probabilities(run.model, run.tok, run.asked(concept.foreign), concept.name)
        beginnings = run.asked([beginning for beginning, _ in concept.facts])
        facts = fact_log_likelihoods(
            run.model, run.tok, [(asked, end) for asked, (_, end) in zip(beginnings, concept.facts, strict=True)]
        )
        row: dict[str, Any] = {"concept": mean(probabilities), "concept, worst": max(probabilities)}
        if foreign:
            row["concept, other languages"] = mean(foreign)
        if facts:
            row["concept, facts (nats)"] = mean(facts)
        run.concept_rows.append(row)
    for name in headings_of(run.concept_rows):
        values = [row[name] for row in run.concept_rows if name in row]
        run.summary[name] = max(values) if name == "concept, worst" else mean(values)
