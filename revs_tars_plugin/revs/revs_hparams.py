"""The settings of REVS."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import ClassVar

from ..errors import InputError, did_you_mean
from ..hyperparams import UnlearnHyperParams

TOKEN_METHODS = ("rarest",)
LOCALIZATIONS = ("neurons",)
NEURON_SCORES = ("hybrid",)
_MARGINS = ("residual", "mlp", "neuron")


@dataclass
class REVSHyperParams(UnlearnHyperParams):
    """Settings of REVS (arXiv 2406.09325, section 3 and appendix), beside the host's own keys.

    Ranks count from 0, the most likely token; they are absolute, or a fraction of the vocabulary when below 1.

    Attributes:
        max_tokens: How many tokens of a secret are edited.
        token_method: Which: `rarest`, those with the highest ids (BPE ids follow merge order).
        skip_tokens: Token texts that are never chosen, compared without surrounding white space ("@", "-").
        stop_tokens: Token texts at which a secret ends: only tokens before the first of them are chosen.
        localization: Where the update is written: `neurons`, columns of FF2 as in the paper.
        n_neurons: The most neurons edited in one layer.
        act_filter: Which neurons are candidates: `top_100`, the hundred most active on the prompt (any number).
        neuron_score: How candidates are ordered: `hybrid`, by how highly each one's output ranks the target.
        residual_bottom_rank: The rank asked for in each layer's residual; a layer that has it is left alone.
        residual_top_rank: No step is made larger than this rank needs.
        mlp_bottom_rank: The rank asked for in the output of each edited layer's feed-forward block.
        mlp_top_rank: No step is made larger than this rank needs, unless the residual asks for it.
        neuron_bottom_rank: The rank that each edited neuron's output gets.
        neuron_top_rank: How far a neuron may be pushed when `n_neurons` at the bottom rank are too few.
    """

    max_tokens: int = 2
    token_method: str = "rarest"
    skip_tokens: list[str] = field(default_factory=list)
    stop_tokens: list[str] = field(default_factory=list)
    localization: str = "neurons"
    n_neurons: int = 30
    act_filter: str = "top_100"
    neuron_score: str = "hybrid"
    residual_bottom_rank: float = 0.02
    residual_top_rank: float = 0.2
    mlp_bottom_rank: float = 0.02
    mlp_top_rank: float = 0.9
    neuron_bottom_rank: float = 0.6
    neuron_top_rank: float = 0.9

    ALGORITHM: ClassVar[str] = "REVS"

    def validate(self) -> None:
        """Checks everything that needs no model."""
        super().validate()
        for name, known in (
            ("token_method", TOKEN_METHODS),
            ("localization", LOCALIZATIONS),
            ("neuron_score", NEURON_SCORES),
        ):
            value = getattr(self, name)
            if value not in known:
                raise InputError(
                    f'{name} is "{value}"; it must be one of {", ".join(known)}{did_you_mean(value, known)}'
                )
        for name in ("max_tokens", "n_neurons"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not re.fullmatch(r"top_[1-9][0-9]*", self.act_filter):
            raise InputError(f'act_filter is "{self.act_filter}"; write "top_" and how many neurons, as in "top_100".')
        for margin in _MARGINS:
            for end in ("bottom", "top"):
                name = f"{margin}_{end}_rank"
                value = getattr(self, name)
                if not math.isfinite(value) or value < 0:
                    raise InputError(f"{name} is {value}; a rank is 0 or more.")
                if value >= 1 and not float(value).is_integer():
                    raise InputError(f"{name} is {value}; write a whole rank, or a fraction of the vocabulary below 1.")
            bottom, top = getattr(self, f"{margin}_bottom_rank"), getattr(self, f"{margin}_top_rank")
            if bottom > top and (bottom < 1) == (top < 1):
                raise InputError(_crossed(margin, bottom, top))
        if self.n_neurons > self.n_candidates:
            raise InputError(
                f'n_neurons is {self.n_neurons}, but act_filter "{self.act_filter}" lets only {self.n_candidates} '
                "pass; raise the second or lower the first."
            )

    @property
    def n_candidates(self) -> int:
        """How many neurons pass the activation filter."""
        return int(self.act_filter.removeprefix("top_"))

    def ranks(self, vocabulary_size: int) -> RankMargins:
        """Turns all margins into absolute ranks for one vocabulary.

        Raises:
            InputError: When a rank lies beyond the vocabulary or a bottom above its top.
        """
        found: dict[str, int] = {}
        for margin in _MARGINS:
            for end in ("bottom", "top"):
                name = f"{margin}_{end}_rank"
                value = getattr(self, name)
                rank = round(value * (vocabulary_size - 1)) if value < 1 else int(value)
                if rank >= vocabulary_size:
                    raise InputError(
                        f"{name} is {rank}, beyond the vocabulary; the last of {vocabulary_size} tokens has rank "
                        f"{vocabulary_size - 1}."
                    )
                found[name] = rank
            bottom, top = found[f"{margin}_bottom_rank"], found[f"{margin}_top_rank"]
            if bottom > top:
                raise InputError(_crossed(margin, bottom, top))
        return RankMargins(**found)


@dataclass(frozen=True)
class RankMargins:
    """The margins of REVS as absolute ranks of one vocabulary."""

    residual_bottom_rank: int
    residual_top_rank: int
    mlp_bottom_rank: int
    mlp_top_rank: int
    neuron_bottom_rank: int
    neuron_top_rank: int


def _crossed(margin: str, bottom: float, top: float) -> str:
    return f"{margin}_bottom_rank ({bottom:g}) is above {margin}_top_rank ({top:g}); swap them or widen the margin."
