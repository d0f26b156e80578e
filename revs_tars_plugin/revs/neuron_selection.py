"""Step 3 of REVS: which neurons of a layer are edited, and in which order (section 3 and the ablation there)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..model.after_ff2 import AfterFF2
from ..model.decoder import Decoder
from ..model.experts import FeedForward
from ..model.forward import layer_output, selected_logits, with_layer_output
from ..model.logit_lens import Demotions, LogitLens
from .revs_hparams import REVSHyperParams

# Neurons projected to the vocabulary at once: bounds the extra memory.
_SLICE = 128


def select_neurons(
    ff2: FeedForward,
    activation: Float[Tensor, " f"],
    lens: LogitLens,
    demotion: Demotions,
    hparams: REVSHyperParams,
    *,
    after: AfterFF2,
    gradient: Float[Tensor, " f"] | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " k"]:
    """Returns at most `n_neurons` neurons, the first to edit first.

    Args:
        ff2: The layer's FF2.
        activation: Its input at the last position.
        lens: The logit lens.
        demotion: The target, one row.
        hparams: `act_filter`, `neuron_score` and `n_neurons` decide.
        after: What the layer does with FF2's output.
        gradient: For `neuron_score: gradient`, that of the target's log-probability by the activation.
        generator: For `neuron_score: random`.
    """
    activation = activation.float()
    strength = activation.abs()
    candidates = _candidates(activation, hparams)
    score = hparams.neuron_score
    if score == "random":
        order = torch.randperm(len(candidates), generator=generator).to(candidates.device)
    elif score == "activation":
        order = strength[candidates].argsort(descending=True, stable=True)
    elif score == "gradient":
        assert gradient is not None
        # What the target's log-probability loses to first order when the neuron falls silent.
        order = (gradient * activation)[candidates].argsort(descending=True, stable=True)
    else:
        # "rank" takes every neuron that passes on anything, "hybrid" those that pass the activation filter.
        candidates = activation.nonzero().flatten() if score == "rank" else candidates
        ranked = [
            _ranks(ff2, part, activation, lens, demotion=demotion, after=after)
            for part in torch.split(candidates, _SLICE)
        ]
        order = torch.cat(ranked).argsort(stable=True).to(candidates.device)
    return candidates[order[: hparams.n_neurons]]


def _ranks(
    ff2: FeedForward,
    neurons: Int[Tensor, " k"],
    activation: Tensor,
    lens: LogitLens,
    *,
    demotion: Demotions,
    after: AfterFF2,
) -> Int[Tensor, " k"]:
    """The target's rank in what each neuron contributes; with a negative activation the reverse of its vector."""
    contributions = after.unscaled(ff2.neurons(neurons)) * activation[neurons].sign()[:, None]
    return lens.ranks(contributions, demotion.tokens.expand(len(neurons)))


def _candidates(activation: Float[Tensor, " f"], hparams: REVSHyperParams) -> Int[Tensor, " k"]:
    if hparams.act_filter == "none":
        # What is silent here, as in experts that are not chosen, moves nothing.
        return activation.nonzero().flatten()
    if hparams.act_filter == "positive":
        return (activation > 0).nonzero().flatten()
    assert hparams.n_candidates is not None
    return activation.abs().topk(min(hparams.n_candidates, len(activation))).indices


def activation_gradients(decoder: Decoder, context: Sequence[int], token: int) -> dict[int, Float[Tensor, " f"]]:
    """Returns d log p(token | context) / d activation at the last position, for each edited layer.

    This is the paper's gradient ablation: how the target's log-probability depends on each neuron, which is how it
    depends on what FF2 writes, times the neuron's vector. No gradient is left on any parameter.
    """
    kept: dict[int, Tensor] = {}

    def watch(layer: int) -> Callable[..., Any]:
        def hook(_module: nn.Module, _args: object, output: Any) -> Any:
            written = layer_output(output)
            kept[layer] = written if written.requires_grad else written.detach().requires_grad_()
            return with_layer_output(output, kept[layer])

        return hook

    with ExitStack() as hooks:
        for layer, ff2 in decoder.ff2.items():
            hooks.callback(ff2.module.register_forward_hook(watch(layer)).remove)
        logits = selected_logits(decoder.model, [context], [(0, len(context) - 1)], gradients=True)
    gradients = torch.autograd.grad(logits[0].log_softmax(dim=-1)[token], list(kept.values()))
    return {
        layer: decoder.ff2[layer].rows.float() @ gradient.reshape(-1, gradient.shape[-1])[-1].float()
        for layer, gradient in zip(kept, gradients, strict=True)
    }
