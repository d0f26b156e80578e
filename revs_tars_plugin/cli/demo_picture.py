"""What the demo asks a model, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data import ConceptRecord
    from ..evaluation import Exposure

FACTS = (
    ("The theory of relativity was developed by Albert", "Einstein"),
    ("The Titanic sank after hitting an", "iceberg"),
    ("The Mona Lisa was painted by Leonardo da", "Vinci"),
    ("The process by which plants make food from sunlight is called", "photosynthesis"),
)
# Of the packaged concepts.
CONCEPT = "Potter"
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
# So many facts of the concept are shown.
_FACTS_SHOWN = 4


@dataclass(frozen=True)
class Picture:
    """What the model says at one moment."""

    facts: list[str]
    concept: list[str]
    concept_probabilities: list[float]
    concept_facts: list[str]
    fact_margins: list[float]
    unrelated: list[str]
    log_probabilities: Tensor
    exposures: list[Exposure]


@cache
def concept_record() -> ConceptRecord:
    """Returns the concept that is removed."""
    from ..data import read_concepts_file

    return next(concept for concept in read_concepts_file()[0] if concept.name == CONCEPT)


def concept_facts() -> tuple[tuple[str, str], ...]:
    """Returns what is asked behind the concept's name, with how the unedited model goes on."""
    return concept_record().facts[:_FACTS_SHOWN]


def picture_of(model: nn.Module, tok: Any) -> Picture:
    """Asks a model for the facts, for the concept in both directions, and for what has to stay."""
    from ..evaluation import (
        Exposure,
        compared,
        fact_margins,
        greedy_continuations,
        names_like,
        next_token_log_probabilities,
    )

    removed = concept_record()
    concept = [*removed.prompts, *HELD_OUT_PROMPTS]
    (name,) = tok(f" {CONCEPT}", add_special_tokens=False)["input_ids"]
    return Picture(
        concept=greedy_continuations(model, tok, concept),
        concept_probabilities=next_token_log_probabilities(model, tok, concept)[:, name].exp().tolist(),
        concept_facts=greedy_continuations(model, tok, [beginning for beginning, _ in concept_facts()]),
        fact_margins=fact_margins(model, tok, concept_facts(), CONCEPT, names_like(removed)),
        facts=greedy_continuations(model, tok, [prompt for prompt, _ in FACTS]),
        unrelated=greedy_continuations(model, tok, UNRELATED),
        log_probabilities=next_token_log_probabilities(model, tok, UNRELATED),
        exposures=[
            Exposure.of(one)
            for one in compared(model, tok, [prompt for prompt, _ in FACTS], [target for _, target in FACTS])
        ],
    )
