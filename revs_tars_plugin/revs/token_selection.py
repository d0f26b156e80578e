"""Step 1 of REVS: which tokens of a secret are edited (section 3, "token selection")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..requests.made_up import FIXED
from ..requests.reading import Secret, tokenise_in_context
from .read_texts import Text, log_probabilities
from .revs_hparams import REVSHyperParams
from .siblings import Sibling

# Sibling prompts behind which each secret's tokens are read.
_SIBLINGS_READ = 2
# Mean log-probability behind sibling prompts from which on the secret's beginning gives a token away.
_GIVEN_AWAY = -0.5


def select_positions(
    secret: Secret,
    tok: Any,
    hparams: REVSHyperParams,
    generator: torch.Generator,
    surprise: Sequence[float] | None = None,
) -> list[int]:
    """Chooses positions within the target's tokens, in the order of the text.

    An attacker needs every token of a secret, so hiding a few of them is enough.

    Args:
        secret: The secret.
        tok: The tokenizer.
        hparams: `token_method`, `max_tokens`, `skip_tokens` and `stop_tokens` decide.
        generator: For `token_method: random`.
        surprise: For `specific` and `chained`, the mean log-probability of each token in sibling contexts; without it
            (a prompt with nothing to vary) the rarest tokens are chosen.

    Raises:
        InputError: When `skip_tokens` and `stop_tokens` leave no token.
    """
    texts = [tok.decode([token]).strip() for token in secret.target_ids]
    stops = [position for position, text in enumerate(texts) if text in hparams.stop_tokens]
    end = stops[0] if stops else len(texts)
    allowed = [position for position in range(end) if texts[position] not in hparams.skip_tokens]
    if not allowed:
        raise InputError(
            f"Request {secret.request}: skip_tokens and stop_tokens leave no token to edit; shorten these lists."
        )
    method = hparams.token_method
    if method == "first":
        order = allowed
    elif method == "random":
        order = [allowed[index] for index in torch.randperm(len(allowed), generator=generator).tolist()]
    elif method == "specific" and surprise is not None:
        order = sorted(allowed, key=lambda position: surprise[position])
    elif method == "chained" and surprise is not None:
        order = _chained(secret, texts, allowed, surprise)
    else:
        # BPE ids follow merge order, so the highest id is the rarest token.
        sign = 1 if method == "frequent" else -1
        order = sorted(allowed, key=lambda position: sign * secret.target_ids[position])
    return sorted(order[: hparams.max_tokens])


def _chained(secret: Secret, texts: Sequence[str], allowed: Sequence[int], surprise: Sequence[float]) -> list[int]:
    """Orders positions for `chained`: own material of the secret, behind enough of it, that its beginning gives away.

    A model that learned a secret by heart goes on with it once it was begun, whatever the prompt; hiding such a token
    works behind other prompts too, and touches no other secret, since no other begins like this one.
    """
    material = [p for p in allowed if any(map(str.isalnum, texts[p])) and not FIXED.fullmatch(texts[p])]
    # A mail domain is shared with others.
    at_sign = next((p for p, text in enumerate(texts) if "@" in text), len(texts))
    material = [p for p in material if p < at_sign] or material or list(allowed)
    behind = material[max(1, len(material) // 3) :] or material[-1:]
    given_away = [p for p in behind if surprise[p] > _GIVEN_AWAY]
    by_rarity = sorted(given_away or behind, key=lambda p: -secret.target_ids[p])
    return by_rarity + [p for p in behind if p not in by_rarity]


@torch.no_grad()
def surprises(
    model: nn.Module, tok: Any, secrets: Sequence[Secret], siblings: Mapping[int, Sequence[Sibling]]
) -> dict[int, list[float]]:
    """Returns for each secret the mean log-probability of each of its tokens behind sibling prompts, in nats.

    A token that stays unlikely there belongs to this secret alone; shared mail domains and common digits do not.
    Secrets without siblings are left out.
    """
    owners = {}
    for secret in secrets:
        for sibling in siblings[secret.index][:_SIBLINGS_READ]:
            prompt_ids, _ = tokenise_in_context(tok, sibling.prompt, secret.target)
            owners[Text(prompt_ids, secret.target_ids, tok)] = secret.index
    by_secret: dict[int, list[tuple[float, ...]]] = {}
    for text, values in log_probabilities(model, list(owners)).items():
        by_secret.setdefault(owners[text], []).append(values)
    return {
        index: [sum(column) / len(column) for column in zip(*runs, strict=True)] for index, runs in by_secret.items()
    }
