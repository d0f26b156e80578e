"""Other contexts in which a secret must not go on, for `localization: covariance`.

The key of a covariance update is sharp: made from the request's prompt alone it hides the secret behind that prompt and
little else. The secret's own beginning behind other prompts shows it what the contexts have in common.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ..requests import Secret, perturbed, tokenise_in_context
from .revs_hparams import REVSHyperParams
from .siblings import Sibling


def other_contexts(
    secret: Secret,
    position: int,
    siblings: Sequence[Sibling],
    secrets: Sequence[Secret],
    tok: Any,
    hparams: REVSHyperParams,
) -> tuple[tuple[int, ...], ...]:
    """Returns the token ids of the secret's beginning behind other prompts.

    They are sibling prompts, prompts of the call's other requests, and perturbed variants of its own. A secret's first
    token, which nothing of the secret leads to, has none behind the first two; where the update goes to single neurons
    there are none at all.
    """
    if hparams.localization != "covariance":
        return ()
    prompts = [perturbed(secret.prompt, hparams.seed + i, 10) for i in range(hparams.perturbed_contexts)]
    if position:
        # The last ones: `surprises` and the second moment use the first.
        prompts += [s.prompt for s in siblings[max(len(siblings) - hparams.sibling_contexts, 0) :]]
        prompts += borrowed_prompts(secret, secrets, hparams.borrowed_contexts, hparams.seed)
    return tuple(
        tokenise_in_context(tok, prompt, secret.target)[0] + secret.target_ids[:position] for prompt in prompts
    )


def borrowed_prompts(secret: Secret, secrets: Sequence[Secret], count: int, seed: int) -> list[str]:
    """Returns other requests' prompts, of other templates, with this secret's subject in place of theirs.

    So the edit sees its subject in other wordings, none of which it was given for this secret.

    Args:
        secret: The secret; without a subject that occurs in its prompt it gets none.
        secrets: All secrets of the call.
        count: How many prompts at most.
        seed: Seed of the local generator.
    """
    if not secret.subject or secret.subject not in secret.prompt:
        return []
    own = secret.prompt
    wordings = {
        other.prompt.replace(other.subject, secret.subject)
        for other in secrets
        if other.subject and other.subject in other.prompt
    }
    return random.Random(f"{seed} {secret.prompt}").sample(sorted(wordings - {own}), min(count, len(wordings - {own})))
