"""The host's requests, read as what has to be forgotten, and tokenised in context."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .chat import asked_prompt
from .forgotten import ForgetField, forgotten_texts


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A prompt and the text that the model must no longer continue it with.

    Attributes:
        index: Its number among the secrets of the call.
        request: Position of its request in the call; a request may have several secrets.
        prompt: The text that leads to the secret, without a chat template.
        target: The secret itself.
        subject: What the prompt is about, when the request says so.
        prompt_ids: The prompt's tokens, in the chat template where one is asked for, with a BOS token where the
            tokenizer adds one.
        target_ids: The target's tokens as they stand after this prompt.
        siblings: Prompts of the same template that the request gives ("sibling_prompts"), where it does.
        retain: Texts that must not change, given with the request ("retain_texts").
    """

    index: int
    request: int
    prompt: str
    target: str
    subject: str | None
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    siblings: tuple[str, ...] = ()
    retain: tuple[str, ...] = ()

    def context(self, position: int) -> tuple[int, ...]:
        """Returns the tokens in front of the target's token at `position`."""
        return self.prompt_ids + self.target_ids[:position]


def read_requests(
    requests: Sequence[Mapping[str, Any]],
    tok: Any,
    *,
    forget_field: ForgetField = "",
    chat_template: bool = False,
    context_length: int | None = None,
    max_prompt_length: int = 0,
) -> list[Secret]:
    """Turns the host's requests into secrets, one for each text that a request asks to forget.

    Args:
        requests: The host's request dictionaries; see `forgotten_texts` for what is forgotten.
        tok: The model's tokenizer.
        forget_field: The settings' `forget_field`.
        chat_template: Whether prompts go through the tokenizer's chat template.
        context_length: The most tokens the model takes, if known.
        max_prompt_length: Longer prompts are cut at their beginning, a BOS token stays; 0 cuts none.

    Raises:
        InputError: Naming the request and its field.
    """
    if isinstance(requests, Mapping) or not isinstance(requests, Sequence) or isinstance(requests, str):
        raise InputError('requests must be a list of dictionaries with "prompt" and "forget".')
    if not requests:
        raise InputError("requests is empty; give at least one prompt with the text to forget.")
    for index, request in enumerate(requests):
        _check(index, request)
    texts = forgotten_texts(requests, forget_field)
    pairs = [(number, target) for number, targets in enumerate(texts) for target in targets]
    return [
        _secret(
            requests[number],
            target,
            tok,
            index=index,
            number=number,
            chat_template=chat_template,
            context_length=context_length,
            max_prompt_length=max_prompt_length,
        )
        for index, (number, target) in enumerate(pairs)
    ]


def join(prompt: str, target: str) -> str:
    """Puts a target behind its prompt as the host's evaluation does: with one space, unless there is white space."""
    if prompt[-1:].isspace() or target[:1].isspace():
        return prompt + target
    return f"{prompt} {target}"


def tokenise_in_context(tok: Any, prompt: str, target: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Splits the tokens of prompt + target where the target begins; a token that straddles the border is the target's.

    Args:
        tok: The tokenizer; a fast one gives the border exactly.
        prompt: The text in front.
        target: The text behind it; `join` puts the two together.

    Returns:
        The prompt's token ids and the target's; the second is empty when the target adds no token.
    """
    return tokens_around(tok, join(prompt, target), len(prompt))


def tokens_around(tok: Any, text: str, border: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Splits the tokens of a text at a character; a token that straddles the border is of the second part.

    Args:
        tok: The tokenizer; a fast one gives the border exactly.
        text: The text.
        border: Where its second part begins.

    Returns:
        The token ids of both parts; the second is empty when it adds no token.
    """
    if getattr(tok, "is_fast", False):
        encoded = tok(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        ids, specials = list(encoded["input_ids"]), encoded["special_tokens_mask"]
        belongs = [
            not special and end > border for special, (_, end) in zip(specials, encoded["offset_mapping"], strict=True)
        ]
    else:
        # Without offsets: the second part begins where the tokens of the text leave those of the first.
        encoded = tok(text, return_special_tokens_mask=True)
        ids, specials = list(encoded["input_ids"]), encoded["special_tokens_mask"]
        alone = list(tok(text[:border])["input_ids"])
        common = next(
            (i for i, (a, b) in enumerate(zip(ids, alone, strict=False)) if a != b), min(len(ids), len(alone))
        )
        belongs = [i >= common and not special for i, special in enumerate(specials)]
    if True not in belongs:
        return tuple(ids), ()
    start = belongs.index(True)
    return tuple(ids[:start]), tuple(
        token for token, is_target in zip(ids[start:], belongs[start:], strict=True) if is_target
    )


def token_texts(tok: Any, ids: Sequence[int]) -> list[str]:
    """Returns each token's text as it stands behind another one.

    Decoded by itself, a token of a SentencePiece vocabulary loses the space in front of it, and a word's first piece
    could not be told from a further one.
    """
    front = list(tok("a", add_special_tokens=False)["input_ids"][-1:])
    length = len(_decoded(tok, [front])[0])
    return [text[length:] for text in _decoded(tok, [[*front, token] for token in ids])]


def _decoded(tok: Any, sequences: Sequence[Sequence[int]]) -> list[str]:
    return list(tok.batch_decode(sequences, clean_up_tokenization_spaces=False))


def perturbed(prompt: str, seed: int, inserted: int = 10, characters: str = " ") -> str:
    """Inserts random characters at random places of a prompt, and one at its end (the perturbation attack's prompt).

    Args:
        prompt: The prompt.
        seed: With the prompt itself it decides what is inserted where.
        inserted: How many characters, besides the one at the end.
        characters: What they are chosen from.
    """
    generator = random.Random(f"{seed} {prompt}")
    for _ in range(inserted):
        place = generator.randrange(len(prompt) + 1)
        prompt = prompt[:place] + generator.choice(characters) + prompt[place:]
    return prompt + generator.choice(characters)


def _check(index: int, request: Any) -> None:
    if not isinstance(request, Mapping):
        raise InputError(f"Request {index} is a {type(request).__name__}; it must be a dictionary.")
    prompt, subject = request.get("prompt"), request.get("subject")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f'Request {index}: "prompt" is empty; give the text that leads to the secret.')
    if subject is not None and not isinstance(subject, str):
        raise InputError(f'Request {index}: "subject" is a {type(subject).__name__}; it must be a text.')
    for key in ("sibling_prompts", "retain_texts"):
        texts = request.get(key) or ()
        if isinstance(texts, str) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(f'Request {index}: "{key}" must be a list of texts.')


def _secret(
    request: Mapping[str, Any],
    target: str,
    tok: Any,
    *,
    index: int,
    number: int,
    chat_template: bool,
    context_length: int | None,
    max_prompt_length: int,
) -> Secret:
    prompt = request["prompt"]
    asked = asked_prompt(tok, prompt, chat_template)
    prompt_ids, target_ids = tokenise_in_context(tok, asked, target)
    if not target_ids:
        raise InputError(f'Request {number}: the text to forget tokenises to nothing after its "prompt".')
    if not prompt_ids:
        raise InputError(
            f'Request {number}: "prompt" has no token of its own before the text to forget; make it longer.'
        )
    if max_prompt_length and len(prompt_ids) > max_prompt_length:
        start = prompt_ids[:1] if prompt_ids[0] == tok.bos_token_id else ()
        prompt_ids = start + prompt_ids[len(prompt_ids) - max_prompt_length + len(start) :]
    length = len(prompt_ids) + len(target_ids)
    if context_length is not None and length > context_length:
        raise InputError(
            f'Request {number}: "prompt" and the text to forget take {length} tokens, but the model reads '
            f"{context_length}; shorten the prompt."
        )
    return Secret(
        index=index,
        request=number,
        prompt=prompt,
        target=target,
        subject=request.get("subject"),
        prompt_ids=prompt_ids,
        target_ids=target_ids,
        siblings=tuple(request.get("sibling_prompts") or ()),
        retain=tuple(request.get("retain_texts") or ()),
    )
