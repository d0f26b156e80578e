"""The secrets of one call, with what it takes to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..requests.chat import asked_prompt
from ..requests.reading import Secret
from .revs_hparams import REVSHyperParams
from .siblings import Sibling


@dataclass(frozen=True)
class SecretsOfCall:
    """The secrets of one call, with what it takes to read them.

    Attributes:
        tok: The model's tokenizer.
        secrets: The secrets.
        siblings: For each secret's index its sibling prompts; empty where none are made.
        hparams: The settings.
    """

    tok: Any
    secrets: Sequence[Secret]
    siblings: Mapping[int, Sequence[Sibling]]
    hparams: REVSHyperParams

    def asked(self, prompt: str) -> str:
        """Returns a prompt as the model gets it: in the chat template where the settings say so."""
        return asked_prompt(self.tok, prompt, self.hparams.chat_template)
