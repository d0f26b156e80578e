"""What the host's requests mean for a concept: a name, the prompts that lead to it, and the tokens that begin it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..requests.reading import Secret, read_requests, tokenise_in_context
from .prompts import Write, prompted_requests
from .tars_hparams import TARSHyperParams

# A token that holds fewer letters of the name than this (" e" of "einstein") begins many other words.
_TELLING_LETTERS = 3
# Written prompts whose last words stand for what stands in front of a name, where no prompt was given.
_LEADING = 3


@dataclass(frozen=True)
class Concept:
    """One concept to remove.

    Attributes:
        name: Its name, the forgotten text of its requests.
        requests: Positions of these requests in the call.
        prompts: Token ids of the prompts, given or written; the name comes next, or what a written one lacks of it.
        shortened: The ends of these prompts, as prompts of their own.
        leads: What stands in front of all of the name: the last words of the given prompts; of the first written ones
            where none was given.
        tokens: The tokens that begin the name, the one that follows the first prompt in front; where prompts that the
            model wrote end with its first words, those that begin its last.
    """

    name: str
    requests: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    shortened: tuple[tuple[int, ...], ...]
    leads: tuple[str, ...]
    tokens: tuple[int, ...]


def read_concepts(
    requests: Sequence[Mapping[str, Any]],
    tok: Any,
    hparams: TARSHyperParams,
    context_length: int | None = None,
    write: Write | None = None,
) -> list[Concept]:
    """Groups requests by the name they ask to forget, in the order in which the names first occur.

    Args:
        requests: The host's request dictionaries; `prompt` ends where the name comes next. See `prompted_requests` for
            those without one.
        tok: The model's tokenizer.
        hparams: `prompts`, `prompt_template`, `name_variants` and `short_prompts` count here.
        context_length: The most tokens the model takes, if known.
        write: Writes prompts; needed where `hparams.prompts` asks for it.

    Raises:
        InputError: Naming the request and its field.
    """
    if not isinstance(requests, Sequence) or isinstance(requests, str) or not requests:
        read_requests(requests, tok)  # says what is wrong with them
    prompted = prompted_requests(requests, tok, hparams, context_length, write)
    secrets = read_requests(
        [each.request for each in prompted], tok, context_length=context_length, **hparams.request_options
    )
    # The end of a prompt that went through a chat template is the template's, the same for every prompt.
    short = 0 if hparams.chat_template else hparams.short_prompts
    by_name: dict[str, list[int]] = {}
    for secret in secrets:
        by_name.setdefault(prompted[secret.request].name or secret.target.strip(), []).append(secret.index)
    concepts = []
    for name, indices in by_name.items():
        following = [secrets[index].target_ids[0] for index in indices]
        # The last word of a name alone may be written otherwise and mean something else.
        others = _variants(name, tok) if hparams.name_variants and _asked_whole(secrets, indices, name) else []
        prompts = tuple(dict.fromkeys(secrets[index].prompt_ids for index in indices))
        given = [index for index in indices if not prompted[secrets[index].request].written]
        leads = [lead for index in given or indices[:_LEADING] for lead in _in_front(secrets[index], name)]
        concepts.append(
            Concept(
                name=name,
                requests=tuple(
                    dict.fromkeys(origin for index in indices for origin in prompted[secrets[index].request].origins)
                ),
                prompts=prompts,
                shortened=tuple(_shortened(prompts, short)),
                leads=tuple(dict.fromkeys(leads)),
                tokens=tuple(dict.fromkeys([*following, *others])),
            )
        )
    return concepts


def _shortened(prompts: Sequence[tuple[int, ...]], length: int) -> list[tuple[int, ...]]:
    """The last tokens of each prompt that is longer, each once."""
    ends = [prompt[-length:] for prompt in prompts if 0 < length < len(prompt)]
    return [end for end in dict.fromkeys(ends) if end not in prompts]


def _asked_whole(secrets: Sequence[Secret], indices: Sequence[int], name: str) -> bool:
    return any(secrets[index].target.strip() == name for index in indices)


def _in_front(secret: Secret, name: str) -> list[str]:
    """The last word that stands in front of all of the name, and the last two."""
    words = secret.prompt.removesuffix(name.removesuffix(secret.target.strip()).strip()).split()
    return list(dict.fromkeys(" ".join(words[-count:]) for count in (1, 2) if words))


def _variants(name: str, tok: Any) -> list[int]:
    """First tokens of the name as it may be written; those that begin too many other words are left out."""
    tokens = []
    for spelling in dict.fromkeys([name, name[0].upper() + name[1:], name[0].lower() + name[1:]]):
        _, behind_a_word = tokenise_in_context(tok, "of", spelling)
        alone = tok(spelling, add_special_tokens=False)["input_ids"]
        for ids in (behind_a_word, alone):
            if ids and len(tok.decode([ids[0]]).strip()) >= min(_TELLING_LETTERS, len(name)):
                tokens.append(ids[0])
    return tokens
