"""What a model answers, beside what it learned to answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import InputError
from ..evaluation.continuation import greedy_continuations
from ..requests.reading import tokenise_in_context
from .records import Record

# Tokens beyond the answer's own, so that one that goes on is no exact match.
_BEYOND = 8


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: What greedy decoding said up to the end-of-text token.
        rouge_l: ROUGE-L recall against what was learned, with stemming: the share of its words that come out in order.
        exact: Whether it is the same text, without surrounding white space and without regard to case.
    """

    text: str
    rouge_l: float
    exact: bool


def answers(
    model: nn.Module, tok: Any, records: Sequence[Record], *, longest: int | None = None, batch_size: int = 32
) -> list[Answer]:
    """Asks a model for every record.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        records: What it is asked.
        longest: How many tokens an answer may take; by default a few more than the one that was learned.
        batch_size: Prompts decoded together.

    Raises:
        InputError: When the ROUGE library is not installed.
    """
    scorer = rouge_l_scorer()
    lengths = [len(tokenise_in_context(tok, record.prompt, record.answer)[1]) for record in records]
    # Answers of one length together: the longest decides how long all are decoded.
    order = sorted(range(len(records)), key=lambda index: -lengths[index])
    said: dict[int, str] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        prompts = [records[index].prompt for index in batch]
        texts = greedy_continuations(model, tok, prompts, longest or lengths[batch[0]] + _BEYOND, batch_size)
        said.update(zip(batch, texts, strict=True))
    return [
        Answer(
            said[index].strip(),
            scorer.score(record.answer, said[index])["rougeL"].recall,
            said[index].strip().lower() == record.answer.strip().lower(),
        )
        for index, record in enumerate(records)
    ]


def rouge_l_scorer() -> Any:
    """Returns what scores texts by ROUGE-L.

    Raises:
        InputError: When the ROUGE library is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise InputError("ROUGE-L needs rouge-score: pip install 'revs-tars-plugin[bench]'") from error
    logging.getLogger("absl").setLevel(logging.WARNING)
    return RougeScorer(["rougeL"], use_stemmer=True)
