"""The value that MEMIT-delete writes: a state of the subject behind which the secret is unlikely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import InputError
from ...ft_l_delete.unlikelihood import unlikelihood
from ...model.decoder import Decoder
from ...model.forward import layer_output, next_token_logits, selected_logits, with_layer_output
from ...model.kept_layers import lower_layers_kept
from ...requests.reading import Secret, tokenise_in_context
from .memit_delete_hparams import MEMITDeleteHyperParams


def deleting_value(
    decoder: Decoder, tok: Any, secret: Secret, templates: Sequence[str], hparams: MEMITDeleteHyperParams
) -> Float[Tensor, " d"]:
    """Searches for the state at the subject's last token that makes the secret unlikely (MEMIT, section 4.2, reversed).

    The caller has frozen the model; were its weights trained, every layer would run in every step.

    Where MEMIT raises the probability of a new text, this lowers that of the secret: its unlikelihood is minimised,
    behind the prompt alone and behind each template, with MEMIT's own terms that hold the value short and what else
    is said of the subject in place.

    Args:
        decoder: The model.
        tok: Its tokenizer, fast.
        secret: What must be forgotten, with its subject.
        templates: Texts with `{}` where the prompt goes; the first one is the prompt alone.
        hparams: The settings; the value belongs to the last of their layers.

    Raises:
        InputError: When the subject is missing or does not stand in the prompt.
    """
    if not secret.subject or secret.subject not in secret.prompt:
        raise InputError(f'Request {secret.request}: MEMIT-delete needs a "subject" that stands in the prompt.')
    prompts = [template.replace("{}", secret.prompt) for template in templates]
    pairs = [tokenise_in_context(tok, prompt, secret.target) for prompt in prompts]
    places = [_last_token(tok, prompt, secret.subject) for prompt in prompts]
    bystander = tok(f"{secret.subject} is a")["input_ids"]
    place = _last_token(tok, f"{secret.subject} is a", secret.subject)
    module = decoder.layer_modules[hparams.layers[-1]]
    device = decoder.ff2[hparams.layers[-1]].matrices[0].weight.device
    delta = torch.zeros(decoder.lens.width, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=hparams.v_lr)
    with torch.no_grad():
        said = next_token_logits(decoder.model, [bystander]).log_softmax(dim=-1)
    start: Tensor | None = None
    # What the layers up to the value's make of the texts is the same in every step.
    with lower_layers_kept(decoder, count=hparams.layers[-1] + 1):
        for step in range(hparams.v_num_grad_steps + 1):
            with _shifted(module, delta, places) as states:
                loss, probabilities = unlikelihood(decoder.model, pairs)
            start = states[0][0] if start is None else start
            if step == hparams.v_num_grad_steps or float(probabilities.max()) <= hparams.goal_probability:
                break
            with _shifted(module, delta, [place]):
                now = selected_logits(decoder.model, [bystander], [(0, len(bystander) - 1)], gradients=True)
            divergence = nn.functional.kl_div(said, now.log_softmax(dim=-1), log_target=True, reduction="batchmean")
            decay = delta.norm() / start.norm() ** 2
            optimizer.zero_grad(set_to_none=True)
            total = (
                loss + hparams.kl_factor * divergence.to(loss.device) + hparams.v_weight_decay * decay.to(loss.device)
            )
            total.backward()
            optimizer.step()
            with torch.no_grad():
                longest = hparams.clamp_norm_factor * float(start.norm())
                if float(delta.norm()) > longest:
                    delta.mul_(longest / delta.norm())
    assert start is not None
    return (start + delta.detach()).detach()


@contextmanager
def _shifted(module: nn.Module, delta: Tensor, places: Sequence[int]) -> Iterator[list[Tensor]]:
    """Adds a vector to a layer's output at one place of each sequence; yields the outputs there without it."""
    states: list[Tensor] = []

    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        hidden = layer_output(output)
        rows, columns = torch.arange(len(places)), torch.tensor(list(places))
        states.append(hidden[rows, columns].detach().clone())
        at = torch.zeros(hidden.shape[:2], device=hidden.device, dtype=hidden.dtype)
        at[rows, columns] = 1.0
        return with_layer_output(output, hidden + at[..., None] * delta.to(hidden))

    handle = module.register_forward_hook(hook)
    try:
        yield states
    finally:
        handle.remove()


def _last_token(tok: Any, text: str, subject: str) -> int:
    """Returns the position of the token in which the subject ends; its last occurrence counts."""
    end = text.rindex(subject) + len(subject)
    offsets = tok(text, return_offsets_mapping=True)["offset_mapping"]
    return max(position for position, (start, stop) in enumerate(offsets) if start < end and stop > start)
