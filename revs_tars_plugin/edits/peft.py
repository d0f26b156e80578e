"""An edit as a LoRA adapter: exact, since what the methods change has low rank by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..model.expert_names import ExpertName
from .peft_experts import stacked
from .weight_edits import LowRankEdit, NeuronEdit, WeightEdit

_INSTALL = "pip install peft"


def check_peft() -> None:
    """Checks that an adapter can be written, before any work.

    Raises:
        InputError: When peft is missing.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise InputError(f"Exporting an adapter needs peft: {_INSTALL}") from error


def export_peft(edits: Sequence[WeightEdit], folder: str | Path, base_model: str) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` for `PeftModel.from_pretrained(base, folder)`.

    Changed neurons are a product of their change and a selector, rank-one changes are the factors that they are; each
    weight has the rank that it needs, scaling is 1. In float32 the adapted model's logits are the edited model's up to
    rounding. An adapter shows what was demoted as plainly as an edit file does.

    Args:
        edits: The changes of every weight.
        folder: Made where it is missing.
        base_model: What the adapter's config names as its base.

    Raises:
        InputError: When peft is missing, the edit changes nothing, or the folder cannot be written.
    """
    check_peft()
    from peft import LoraConfig
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from safetensors.torch import save_file

    if not edits:
        raise InputError("The edit changes nothing, so there is no adapter to export.")
    by_weight: dict[str, list[WeightEdit]] = {}
    for edit in edits:
        by_weight.setdefault(edit.name, []).append(edit)
    of_experts = {expert: by_weight.pop(name) for name in list(by_weight) if (expert := ExpertName.of(name))}
    factors = {name.removesuffix(".weight"): _factors(changes) for name, changes in by_weight.items()}
    ranks = {module: len(a) for module, (a, _) in factors.items()}
    one_by_one = {expert: _factors(changes) for expert, changes in of_experts.items()}
    most = max([*ranks.values(), *(len(a) for a, _ in one_by_one.values())])
    transposed = {expert.parameter for expert, changes in of_experts.items() if changes[0].transposed}
    experts = stacked(one_by_one, transposed, most)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=most,
        lora_alpha=most,
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=sorted(factors) or None,
        fan_in_fan_out=any(edit.transposed for changes in by_weight.values() for edit in changes),
        base_model_name_or_path=base_model,
        inference_mode=True,
    )
    if experts:  # earlier versions know nothing of it
        config.target_parameters = sorted(experts)
    factors |= {parameter.rpartition(".")[0]: pair for parameter, pair in experts.items()}
    tensors = {}
    for module, (a, b) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    target = Path(folder).expanduser()
    try:
        target.mkdir(parents=True, exist_ok=True)
        save_file(tensors, target / SAFETENSORS_WEIGHTS_NAME, {"format": "pt"})
        config.save_pretrained(str(target))
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error}); name another folder.") from error


def _factors(edits: Sequence[WeightEdit]) -> tuple[Float[Tensor, "r inputs"], Float[Tensor, "outputs r"]]:
    """A and B of all changes of one weight: the change is B @ A, as outputs x inputs."""
    parts = [_of_neurons(edit) if isinstance(edit, NeuronEdit) else _of_products(edit) for edit in edits]
    return (
        torch.cat([a for a, _ in parts]).contiguous(),
        torch.cat([b for _, b in parts], dim=1).contiguous(),
    )


def _of_neurons(edit: NeuronEdit) -> tuple[Tensor, Tensor]:
    change = edit.after.float() - edit.before.float()
    selector = torch.nn.functional.one_hot(edit.indices, edit.width).float()
    # Neurons that are inputs (FF2) are selected by A; neurons that are outputs (gate, up) are written by B.
    return (selector, change.T) if _neurons_are_inputs(edit) else (change, selector.T)


def _of_products(edit: WeightEdit) -> tuple[Tensor, Tensor]:
    assert isinstance(edit, LowRankEdit)
    keys, values = edit.keys.float(), edit.values.float()
    return (keys.T, values.T) if _neurons_are_inputs(edit) else (values, keys)


def _neurons_are_inputs(edit: NeuronEdit | LowRankEdit) -> bool:
    return (edit.neuron_dim == 0) == edit.transposed
