"""The settings of REVS."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..errors import InputError
from ..hyperparams import UnlearnHyperParams

_MARGINS = ("residual", "mlp", "neuron")


@dataclass
class REVSHyperParams(UnlearnHyperParams):
    """Settings of REVS (arXiv 2406.09325, section 3 and appendix), beside the host's own keys.

    Ranks count from 0, the most likely token; they are absolute, or a fraction of the vocabulary when below 1.

    Attributes:
        aim: `rank`, the paper's: some tokens of a secret, down to `residual_bottom_rank`; or `chance`: every token that
            gives the secret away, down to how likely it would be had the secret never been learned (`localization:
            covariance`).
        max_tokens: How many tokens of a secret are edited; `aim: chance` edits as many as it takes.
        token_method: Which, with `aim: rank`: `rarest` (highest ids; BPE ids follow merge order), `first`, `frequent`
            (lowest ids), `random`, `specific`, those that the model expects least behind the same prompt with other
            names, or `chained`, those that the beginning of the secret gives away whatever the prompt.
        skip_tokens: With `aim: rank` token texts that are never chosen, compared without surrounding white space ("@",
            "-").
        stop_tokens: With `aim: rank` token texts at which a secret ends: only tokens before the first are chosen.
        max_prompt_length: Longer prompts are cut at their beginning, in tokens; 0 cuts none.
        localization: Where the update is written: `neurons`, columns of FF2 as in the paper, or `covariance`, one
            rank-one change a layer whose key is that of ROME and MEMIT.
        residual_bottom_rank: The rank asked for in each layer's residual; a layer that has it is left alone.
        residual_top_rank: `neurons`: no step is made larger than this rank needs.
        n_neurons: `neurons`: the most neurons edited in one layer.
        act_filter: `neurons`: which are candidates: `top_100`, the hundred most active on the prompt (any number),
            `positive`, those with a positive activation, or `none`, all.
        neuron_score: `neurons`: how candidates are ordered: `hybrid`, by how highly each one's output ranks the target;
            `rank`, the same without the filter; `activation`; `gradient`; `random`.
        solver: `neurons`: `exact`, or `iterative`, the published search, for comparison.
        mlp_bottom_rank: `neurons`: the rank asked for in the output of each edited layer's feed-forward block.
        mlp_top_rank: `neurons`: no step is made larger than this rank needs, unless the residual asks for it.
        neuron_bottom_rank: `neurons`: the rank that each edited neuron's output gets.
        neuron_top_rank: `neurons`: how far one may be pushed when `n_neurons` at the bottom rank are too few.
        direction_ridge: What keeps a demotion's direction short, as a share of the mean diagonal of the matrix that
            it is solved with; 0, the paper's, moves the one logit and as little else as possible, however far vectors
            move for it.
        schedule: `covariance`: `support_vectors`, all secrets of a call in one batched pass, with one key a token;
            `joint`, the same with one key a context; or `sequential`, one secret after another.
        soft_margin: `support_vectors`: how little a context may weigh before it may stay short of its step, as a share
            of its key's length; 0 lets none.
        sweeps: `covariance`: how many passes the last tokens make at most before the ranks are measured.
        ridge_first_layer: `covariance`: what is added to the second moment's diagonal in the model's first layer, as a
            share of its mean; geometric in between.
        ridge_last_layer: `covariance`: the same in the last layer.
        damping_first_layer: `covariance`: rho of the joint solve in the first layer, as a share of each key's length.
        damping_last_layer: `covariance`: the same in the last layer.
        sibling_contexts: `covariance`: behind how many sibling prompts a secret that was begun must not go on either.
        perturbed_contexts: `covariance`: behind how many variants of its own prompt, with random spaces.
        reordered_contexts: `covariance`: behind how many variants of it with its words in another order, some left out;
            as many fewer as there are prompts to borrow.
        borrowed_contexts: `covariance`: behind how many prompts of the call's other requests, with its own subject in
            place of theirs, a secret must not come either.
        siblings: How many sibling prompts are made for each template of the call; 0 makes none.
        sibling_weight: `covariance`: weight of their second moment beside ordinary text.
        retain_texts: `covariance`: a file of texts, one a line, that must not change.
        retain_weight: `covariance`: weight of their second moment.
        retain_margin: `support_vectors`: how little a place of these texts may weigh where a token is said that is
            demoted elsewhere, as a share of its key's length; 0 lets none give way.
    """

    aim: Literal["rank", "chance"] = "rank"
    max_tokens: int = 2
    token_method: Literal["rarest", "first", "frequent", "random", "specific", "chained"] = "rarest"
    skip_tokens: list[str] = field(default_factory=list)
    stop_tokens: list[str] = field(default_factory=list)
    max_prompt_length: int = 0
    localization: Literal["neurons", "covariance"] = "neurons"
    residual_bottom_rank: float = 0.02
    residual_top_rank: float = 0.2
    n_neurons: int = 30
    act_filter: str = "top_100"
    neuron_score: Literal["hybrid", "rank", "activation", "gradient", "random"] = "hybrid"
    solver: Literal["exact", "iterative"] = "exact"
    mlp_bottom_rank: float = 0.02
    mlp_top_rank: float = 0.9
    neuron_bottom_rank: float = 0.6
    neuron_top_rank: float = 0.9
    direction_ridge: float = 0.0
    schedule: Literal["support_vectors", "joint", "sequential"] = "joint"
    soft_margin: float = 0.001
    sweeps: int = 1
    ridge_first_layer: float = 0.03
    ridge_last_layer: float = 0.003
    damping_first_layer: float = 0.02
    damping_last_layer: float = 0.0
    sibling_contexts: int = 1
    perturbed_contexts: int = 1
    reordered_contexts: int = 0
    borrowed_contexts: int = 1
    siblings: int = 8
    sibling_weight: float = 1.0
    retain_texts: str = ""
    retain_weight: float = 10.0
    retain_margin: float = 1.0

    ALGORITHM: ClassVar[str] = "REVS"

    @property
    def reads_moments(self) -> bool:
        """Whether the key needs them; see the base class."""
        return self.localization == "covariance"

    @property
    def spares_retained_texts(self) -> bool:
        """Whether they become a part of what the key must not answer to."""
        return self.localization == "covariance"

    @property
    def compares_with_siblings(self) -> bool:
        """Whether tokens are chosen by what a model expects behind sibling prompts."""
        return self.aim == "rank" and self.token_method in ("specific", "chained")

    @property
    def request_options(self) -> dict[str, Any]:
        """What `read_requests` is told of the settings."""
        return {**super().request_options, "max_prompt_length": self.max_prompt_length}

    @property
    def reads_siblings(self) -> bool:
        """Whether siblings are needed at all: to choose tokens, or as what must not change."""
        return self.compares_with_siblings or self.reads_moments

    def validate(self) -> None:
        """Checks everything that needs no model."""
        super().validate()
        for name, least in (
            *((name, 1) for name in ("max_tokens", "n_neurons", "sweeps")),
            *(
                (name, 0)
                for name in (
                    "max_prompt_length",
                    "siblings",
                    "sibling_contexts",
                    "perturbed_contexts",
                    "reordered_contexts",
                    "borrowed_contexts",
                    "sibling_weight",
                    "retain_weight",
                    "retain_margin",
                    "soft_margin",
                    "direction_ridge",
                )
            ),
            *((f"{kind}_{end}_layer", 0) for kind in ("ridge", "damping") for end in ("first", "last")),
        ):
            if not math.inf > getattr(self, name) >= least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.aim == "chance" and self.localization != "covariance":
            raise InputError('aim is "chance", which needs localization: covariance; set that, or aim: rank.')
        if not re.fullmatch(r"top_[1-9][0-9]*|positive|none", self.act_filter):
            raise InputError(
                f'act_filter is "{self.act_filter}"; write "top_" and how many neurons, as in "top_100", "positive" or '
                '"none".'
            )
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
        if self.n_candidates is not None and self.n_neurons > self.n_candidates:
            raise InputError(
                f'n_neurons is {self.n_neurons}, but act_filter "{self.act_filter}" lets only {self.n_candidates} '
                "pass; raise the second or lower the first."
            )

    @property
    def n_candidates(self) -> int | None:
        """How many neurons pass the activation filter, where it is a number."""
        number = self.act_filter.removeprefix("top_")
        return int(number) if number.isdigit() else None

    def ranks(self, vocabulary_size: int) -> RankMargins:
        """Turns all margins into absolute ranks for one vocabulary.

        Raises:
            InputError: When a rank lies beyond the vocabulary or a bottom above its top.
        """
        ranks: dict[str, int] = {}
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
                ranks[name] = rank
            bottom, top = ranks[f"{margin}_bottom_rank"], ranks[f"{margin}_top_rank"]
            if bottom > top:
                raise InputError(_crossed(margin, bottom, top))
        return RankMargins(**ranks)


@dataclass(frozen=True)
class RankMargins:
    """The margins of REVS as absolute ranks of one vocabulary.

    Attributes:
        residual_bottom_rank: The least rank in a layer's residual.
        residual_top_rank: The rank there that no step goes beyond.
        mlp_bottom_rank: The least rank in the feed-forward block's output.
        mlp_top_rank: The rank there that no step goes beyond, unless the residual asks for it.
        neuron_bottom_rank: The rank that each edited neuron's output gets.
        neuron_top_rank: The rank up to which one may be pushed where too few neurons are there.
    """

    residual_bottom_rank: int
    residual_top_rank: int
    mlp_bottom_rank: int
    mlp_top_rank: int
    neuron_bottom_rank: int
    neuron_top_rank: int


def _crossed(margin: str, bottom: float, top: float) -> str:
    return f"{margin}_bottom_rank ({bottom:g}) is above {margin}_top_rank ({top:g}); swap them or widen the margin."
