"""Other contexts in which a secret must not go on, for `localization: covariance`.

The key of a covariance update is sharp: made from the request's prompt alone it hides the secret behind that prompt and
little else. The secret's own beginning behind other prompts shows it what the contexts have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..requests import Secret, perturbed, tokenise_in_context
from .revs_hparams import REVSHyperParams
from .siblings import Sibling


def other_contexts(
    secret: Secret, position: int, siblings: Sequence[Sibling], tok: Any, hparams: REVSHyperParams
) -> tuple[tuple[int, ...], ...]:
    """Returns the token ids of the secret's beginning behind sibling prompts and perturbed variants of its own.

    A secret's first token, which nothing of the secret leads to, has none behind sibling prompts; where the update goes
    to single neurons there are none at all.
    """
    if hparams.localization != "covariance":
        return ()
    # The last ones: `surprises` and the second moment use the first.
    others = (
        [sibling.prompt for sibling in siblings[max(len(siblings) - hparams.sibling_contexts, 0) :]] if position else []
    )
    prompts = [*others, *(perturbed(secret.prompt, hparams.seed + i, 6) for i in range(hparams.perturbed_contexts))]
    return tuple(
        tokenise_in_context(tok, prompt, secret.target)[0] + secret.target_ids[:position] for prompt in prompts
    )
