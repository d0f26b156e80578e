"""The settings of TARS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..errors import InputError
from ..hyperparams import UnlearnHyperParams

# Affinities that compare a neuron with what it does on ordinary text.
NEEDS_ACTIVITY = ("specific", "contribution_per_activity")


@dataclass
class TARSHyperParams(UnlearnHyperParams):
    """Settings of TARS (arXiv 2412.10257), beside the host's own keys.

    The paper publishes neither code nor these numbers; the packaged YAMLs are what measured best (docs/tars.md).

    Attributes:
        prompts: Which ones count: those `given`; those that the model has `written` itself, about the name, in each of
            nine languages where it knows it there, the given ones only where there are none; or `both`. Where it
            writes them a request may be a name alone. They are kept in `stats_dir`, but for packed models.
        prompt_template: Made into the prompt of a request that gives a "description" and no prompt; needs one `{}`.
        name_variants: Target all tokens that begin the name, with and without a space in front, capitalised or not;
            off, only the one that follows the prompt.
        short_prompts: The last so many tokens of each prompt count as a prompt of the same concept as well, so that it
            does not come back where less is said of it; 0: none.
        concept_layer: Layer whose output at the end of the concept prompts is the approximate concept vector; negative
            counts from the last.
        concept_position: Position of that vector in the prompt; negative counts from its end.
        refine: How the concept vector becomes the targeting vector: `whitened`, solved with the head's Gram matrix, or
            `noise`, the published search.
        direction_ridge: `whitened`: with one, what vectors of FF2 become is solved through the final norm and what
            stands behind FF2, and kept short by this share of the mean diagonal; 0, the targeting vector itself.
        targeting_probability: `noise`: the probability of the name that the targeting vector must trigger in the head.
        noise_scale: `noise`: size of the noise, as a share of the vector's own.
        candidates: `noise`: how many are drawn in a round.
        rounds: `noise`: how many rounds; each starts from the mean of the best candidates of the round before.
        remove_common: `noise`: take the mean state of ordinary text off the targeting vector.
        affinity: How neurons are compared with the targeting vector: `specific`, by how much they write on the
            concept's prompts beside ordinary text; `contribution_per_activity` and `contribution`, by what they add
            along the vector there; `cosine`, as published.
        specificity: `specific`: how much being quiet on ordinary text counts beside writing on the concept's prompts.
        spared: Share of each matrix's vectors that is never reversed, those that write most on ordinary text; counts
            where the affinity looks at ordinary text.
        matrices: In which feed-forward matrices: `down`, `gate`, `up`.
        gate_module_tmp: Name of the gate matrix, with `{}`; needed where `matrices` names it, and read by `from_name`.
        up_module_tmp: Name of the up matrix, or of the only first one where there is no gate.
        n_edits: The most vectors that are reversed for one concept.
        directions: What goes: `to_name`, the way from descriptions to the name, by reversed vectors; `from_name`, facts
            behind the name, by a neuron for each of its spellings that finds it and takes its state for any name's. The
            second needs `up_module_tmp`, and `gate_module_tmp` where the model has a gate.
        name_layer: `from_name`: the layer that finds a name of one token.
        spelling_layer: `from_name`: the one that finds a name of several, which has to know what stands in front.
        goal_probability: `to_name`: reversal stops when the name's probability is below it on every concept prompt.
        min_probability: A concept whose name is less likely on all its prompts counts as unknown; nothing is changed.
        reversal: What becomes of a vector: it is `replaced` by the reversed targeting vector, as published, or that one
            is `added` to it, so that it goes on with what it does for others.
        reversal_layers: Vectors of `all` layers may be reversed, or of the `upper` half, where a reversed vector goes
            through fewer other layers, which read it as something else.
        reversal_scale: Length of the reversed targeting vector, as a share of the vector's own.
        on_failure: What happens to a concept whose goal is not reached within `n_edits`: `keep` the edit or `rollback`.
    """

    prompts: Literal["given", "written", "both"] = "given"
    prompt_template: str = "{} This is called"
    name_variants: bool = True
    short_prompts: int = 3
    concept_layer: int = -1
    concept_position: int = -1
    refine: Literal["whitened", "noise"] = "whitened"
    direction_ridge: float = 0.0
    targeting_probability: float = 0.9
    noise_scale: float = 0.5
    candidates: int = 64
    rounds: int = 20
    remove_common: bool = True
    affinity: Literal["specific", "contribution_per_activity", "contribution", "cosine"] = "specific"
    specificity: float = 1.5
    spared: float = 0.05
    matrices: list[Literal["down", "gate", "up"]] = field(default_factory=lambda: ["down"])
    gate_module_tmp: str = ""
    up_module_tmp: str = ""
    n_edits: int = 10
    directions: list[Literal["to_name", "from_name"]] = field(default_factory=lambda: ["to_name"])
    name_layer: int = 0
    spelling_layer: int = 3
    goal_probability: float = 0.005
    min_probability: float = 0.05
    reversal: Literal["replaced", "added"] = "replaced"
    reversal_layers: Literal["all", "upper"] = "all"
    reversal_scale: float = 1.0
    on_failure: Literal["keep", "rollback"] = "keep"

    ALGORITHM: ClassVar[str] = "TARS"

    @property
    def reads_moments(self) -> bool:
        """Whether the affinity needs them; see the base class."""
        return "to_name" in self.directions and self.affinity in NEEDS_ACTIVITY

    def validate(self) -> None:
        """Checks everything that needs no model."""
        super().validate()
        if not self.matrices:
            raise InputError("matrices is empty; name at least one of down, gate, up.")
        for matrix in self.matrices:
            key = f"{matrix}_module_tmp"
            if matrix != "down" and getattr(self, key).count("{}") != 1:
                raise InputError(
                    f'matrices names "{matrix}", but {key} is "{getattr(self, key)}"; give the matrix\'s name with one '
                    '"{}" where the layer number goes.'
                )
        if self.prompt_template.count("{}") != 1:
            raise InputError(
                f'prompt_template is "{self.prompt_template}"; it needs one "{{}}" where the description goes.'
            )
        for name in ("n_edits", "candidates", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("targeting_probability", "goal_probability", "min_probability"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; a probability lies between 0 and 1.")
        for name in ("noise_scale", "reversal_scale"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        self._validate_directions()
        for name in ("short_prompts", "specificity", "direction_ridge"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if not 0 <= self.spared < 1:
            raise InputError(f"spared is {self.spared}; it is a share of the vectors, at least 0 and below 1.")
        if self.min_probability < self.goal_probability:
            raise InputError(
                f"min_probability ({self.min_probability:g}) is below goal_probability ({self.goal_probability:g}): a "
                "concept could be known and already removed; raise the first or lower the second."
            )

    def _validate_directions(self) -> None:
        if not self.directions:
            raise InputError("directions is empty; name at least one of to_name, from_name.")
        if "from_name" in self.directions and self.up_module_tmp.count("{}") != 1:
            raise InputError(
                f'directions names from_name, but up_module_tmp is "{self.up_module_tmp}"; give the name of the first '
                'feed-forward matrix with one "{}" where the layer number goes, or leave from_name out.'
            )
        if "from_name" in self.directions and self.gate_module_tmp and self.gate_module_tmp.count("{}") != 1:
            raise InputError(
                f'gate_module_tmp is "{self.gate_module_tmp}"; it needs one "{{}}" where the layer number goes.'
            )
