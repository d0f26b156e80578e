"""Step 1 of REVS: which tokens of a secret are edited (section 3, "token selection")."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..requests import Secret
from .revs_hparams import REVSHyperParams


def select_positions(secret: Secret, tok: Any, hparams: REVSHyperParams) -> list[int]:
    """Chooses positions within the target's tokens, in the order of the text.

    An attacker needs every token of a secret, so hiding its few rarest is enough.

    Raises:
        InputError: When `skip_tokens` and `stop_tokens` leave no token.
    """
    texts = [tok.decode([token]).strip() for token in secret.target_ids]
    stops = [position for position, text in enumerate(texts) if text in hparams.stop_tokens]
    end = stops[0] if stops else len(texts)
    allowed = [position for position in range(end) if texts[position] not in hparams.skip_tokens]
    if not allowed:
        raise InputError(
            f"Request {secret.index}: skip_tokens and stop_tokens leave no token to edit; shorten these lists."
        )
    # BPE ids follow merge order, so the highest id is the rarest token.
    rarest_first = sorted(allowed, key=lambda position: -secret.target_ids[position])
    return sorted(rarest_first[: hparams.max_tokens])
