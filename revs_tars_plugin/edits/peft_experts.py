"""Edits of experts' matrices as LoRA on the parameter that holds them all, in the layout of the peft that is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from inspect import signature

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.expert_names import ExpertName

# A and B of one weight's change: the change is B @ A, as outputs x inputs.
Factors = tuple[Tensor, Tensor]


def stacked(changes: Mapping[ExpertName, Factors], transposed: Set[str], rank: int) -> dict[str, Factors]:
    """Returns by parameter the A and B of all its experts, as peft keeps them, 0 where nothing changes.

    Args:
        changes: A (r x inputs) and B (outputs x r) of each changed expert.
        transposed: The parameters whose matrices stand as inputs x outputs.
        rank: The rank that all of them get: patterns of ranks are for modules.

    Raises:
        InputError: When the installed peft cannot adapt such a parameter.
    """
    by_parameter: dict[str, list[ExpertName]] = {}
    for name in changes:
        by_parameter.setdefault(name.parameter, []).append(name)
    reads_inputs_last = _reads_inputs_last() if changes else False
    found = {}
    for parameter, names in by_parameter.items():
        # Earlier versions call the first dimension inputs whatever it is: there A and B change places.
        straight = reads_inputs_last or parameter in transposed
        pairs = {name.expert: changes[name] if straight else (changes[name][1].T, changes[name][0].T) for name in names}
        found[parameter] = _of_all(pairs, names[0].count, rank)
    return found


def _of_all(pairs: Mapping[int, Factors], count: int, rank: int) -> Factors:
    first, second = next(iter(pairs.values()))
    a = torch.zeros(count, rank, first.shape[1])
    b = torch.zeros(second.shape[0], rank, count)
    for expert, (own_a, own_b) in pairs.items():
        a[expert, : len(own_a)] = own_a
        b[:, : own_b.shape[1], expert] = own_b
    return a.reshape(count * rank, -1), b.reshape(len(b), -1)


def _reads_inputs_last() -> bool:
    """Whether peft takes the last dimension of a parameter for its inputs, as transformers' experts have it.

    Versions differ, so one of its own adapters is looked at.
    """
    from peft import LoraConfig, get_peft_model

    if "target_parameters" not in signature(LoraConfig).parameters:
        raise InputError("Exporting an edit of experts as an adapter needs peft 0.17 or newer: pip install -U peft")
    config = LoraConfig(target_parameters=["experts.down_proj"], r=1)
    with torch.random.fork_rng(devices=[]):  # it draws what nobody needs
        adapted = get_peft_model(_Block(), config)
    shapes: Sequence[int] = next(
        value.shape for name, value in adapted.named_parameters() if name.endswith("lora_A.default.weight")
    )
    return shapes[1] == _Experts.INPUTS


class _Experts(nn.Module):
    """Two experts' matrices of outputs x inputs, which nobody runs."""

    INPUTS, OUTPUTS = 5, 3

    def __init__(self) -> None:
        super().__init__()
        self.down_proj = nn.Parameter(torch.zeros(2, self.OUTPUTS, self.INPUTS))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = _Experts()
