"""Decoder: a causal language model seen through the YAML's module templates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .adapters import base_model, without_adapter
from .errors import InputError, did_you_mean
from .finite import all_finite
from .forward import evaluating, padded, without_head
from .hyperparams import UnlearnHyperParams
from .vocabulary import Vocabulary

_EDITABLE_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class FeedForwardMatrix:
    """One feed-forward matrix of a layer, in one orientation whatever the module's class.

    A *neuron* is a vector of the residual space: of FF2, which writes there, one column of its d x f matrix (a column
    of a `Linear` weight, a row of a `Conv1D` weight); of FF1, which reads there, one row.
    """

    module: nn.Module
    weight_name: str
    neuron_dim: int

    @property
    def weight(self) -> Tensor:
        """The parameter itself, in the module's own orientation."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight

    @property
    def name(self) -> str:
        """The module's name in the model."""
        return self.weight_name.removesuffix(".weight")

    @property
    def transposed(self) -> bool:
        """Whether the weight stands as inputs x outputs, as `Conv1D` has it, and not the other way round."""
        return isinstance(without_adapter(self.module), Conv1D)

    @property
    def width(self) -> int:
        """f, the number of neurons."""
        return self.weight.shape[self.neuron_dim]

    def neurons(self, indices: Tensor) -> Float[Tensor, "k d"]:
        """Returns a copy of the chosen neurons, one a row, in the weight's dtype."""
        return self.weight.detach().index_select(self.neuron_dim, indices).movedim(self.neuron_dim, 0).clone()


@dataclass(frozen=True)
class LayerState:
    """What one layer computed in a forward pass.

    Attributes:
        ff2_input: The activations, shape (batch, positions, f).
        ff2_output: The feed-forward block's output, shape (batch, positions, d).
        residual: The layer's output, shape (batch, positions, d).
        mask: Which positions hold a token, not padding, shape (batch, positions).
    """

    ff2_input: Float[Tensor, "batch positions f"]
    ff2_output: Float[Tensor, "batch positions d"]
    residual: Float[Tensor, "batch positions d"]
    mask: Bool[Tensor, "batch positions"]

    def at_last(self, values: Float[Tensor, "batch positions k"]) -> Float[Tensor, "batch k"]:
        """Picks each sequence's last token."""
        last = self.mask.sum(dim=1).to(values.device) - 1
        return values[torch.arange(len(last), device=values.device), last]

    def at(self, picks: Sequence[tuple[int, int]], values: Float[Tensor, "batch positions k"]) -> Float[Tensor, "n k"]:
        """Picks chosen places, each a sequence of the batch and a position in it."""
        return picked(picks, values)


def picked(picks: Sequence[tuple[int, int]], values: Float[Tensor, "batch positions k"]) -> Float[Tensor, "n k"]:
    """Picks chosen places of a batch, each a sequence of it and a position in that one."""
    rows, positions = torch.tensor(list(picks), device=values.device).T
    return values[rows, positions]


class Decoder:
    """Finds a model's layers, FF2 matrices, final norm and head by name, and refuses what cannot be edited exactly."""

    def __init__(self, model: nn.Module, hparams: UnlearnHyperParams) -> None:
        """Resolves the module templates.

        Raises:
            InputError: When a template matches nothing, or a weight to edit is packed, on the meta device, of another
                shape, or holds NaN or Inf.
        """
        self.model = model = base_model(model)
        self._attention_template = hparams.attn_module_tmp
        count = 0
        while _submodule(model, hparams.layer_module_tmp.format(count)) is not None:
            count += 1
        if not count:
            self._not_found("layer_module_tmp", hparams.layer_module_tmp.format(0))
        self.n_layers = count
        self.layers = sorted(set(hparams.layers)) or list(range(count))
        if self.layers[0] < 0 or self.layers[-1] >= count:
            raise InputError(f"layers names layer {self.layers[-1]}, but the model has layers 0 to {count - 1}.")
        head = self._find("lm_head_module", hparams.lm_head_module)
        norm = self._find("ln_f_module", hparams.ln_f_module)
        for label, module in (("lm_head_module", head), ("ln_f_module", norm)):
            for name, parameter in module.named_parameters():
                _check_placement(parameter, f"{getattr(hparams, label)}.{name}")
        self.vocabulary = Vocabulary(head, hparams.lm_head_module, norm, hparams.ln_f_module)
        self.layer_modules = [self._find("layer_module_tmp", hparams.layer_module_tmp.format(i)) for i in range(count)]
        self.ff2 = {
            layer: self._find_matrix("rewrite_module_tmp", hparams.rewrite_module_tmp.format(layer), writes=True)
            for layer in self.layers
        }
        widths = {ff2.width for ff2 in self.ff2.values()}
        self.ff_width = min(widths)

    @property
    def context_length(self) -> int | None:
        """How many tokens the model takes, where its config says so."""
        config = getattr(self.model, "config", None)
        return getattr(config, "max_position_embeddings", None)

    @torch.no_grad()
    def forward_through_layers(
        self, sequences: Sequence[Sequence[int]], visit: Callable[[int, LayerState], Tensor | None]
    ) -> None:
        """Runs one forward pass; after each chosen layer `visit` may return what to add to its output, all positions.

        So a correction made in one layer reaches the next layers within the same pass.

        Args:
            sequences: Token ids; several are padded on the right into one batch.
            visit: Called as `visit(layer, state)`.

        Raises:
            InputError: When a layer computes NaN or Inf.
        """
        ids, mask = padded(self.model, sequences)
        with self.visiting(visit, mask.bool()), evaluating(self.model), without_head(self.model):
            self.model(input_ids=ids, attention_mask=mask, use_cache=False)

    @contextmanager
    def visiting(
        self, visit: Callable[[int, LayerState], Tensor | None], mask: Bool[Tensor, "batch positions"]
    ) -> Iterator[None]:
        """Has `visit` called after each chosen layer of every pass that is made meanwhile.

        Args:
            visit: As in `forward_through_layers`.
            mask: Which positions of these passes hold a token.
        """
        inputs: dict[int, tuple[Tensor, Tensor]] = {}

        def keep_ff2(layer: int) -> Callable[..., None]:
            def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
                inputs[layer] = (args[0], output)

            return hook

        def correct(layer: int) -> Callable[..., Any]:
            def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
                residual = output[0] if isinstance(output, tuple) else output
                if not bool(residual.isfinite().all()):
                    raise InputError(
                        f"Layer {layer} computes NaN or Inf on this prompt; the model's weights are broken."
                    )
                if layer not in inputs:
                    raise InputError(
                        f'Layer {layer} does not run "{self.ff2[layer].name}" for every '
                        "token; rewrite_module_tmp must name the one matrix that writes to the residual space."
                    )
                ff2_input, ff2_output = inputs.pop(layer)
                change = visit(layer, LayerState(ff2_input, ff2_output, residual, mask))
                if change is None:
                    return None
                corrected = residual + change.to(residual)
                return (corrected, *output[1:]) if isinstance(output, tuple) else corrected

            return hook

        with ExitStack() as hooks:
            for layer in self.layers:
                hooks.callback(self.ff2[layer].module.register_forward_hook(keep_ff2(layer)).remove)
                hooks.callback(self.layer_modules[layer].register_forward_hook(correct(layer)).remove)
            yield

    def attention_modules(self) -> list[nn.Module]:
        """Returns the attention of each edited layer, where the settings name it and the layer has one of that name.

        Raises:
            InputError: When no layer has one.
        """
        template = self._attention_template
        names = [template.format(layer) for layer in self.layers] if template else []
        found = [module for module in (_submodule(self.model, name) for name in names) if module is not None]
        if names and not found:
            self._not_found("attn_module_tmp", names[0])
        return found

    def _find(self, key: str, name: str) -> nn.Module:
        module = _submodule(self.model, name)
        return module if module is not None else self._not_found(key, name)

    def _not_found(self, key: str, name: str) -> nn.Module:
        names = [known for known, _ in self.model.named_modules() if known]
        raise InputError(
            f'{key} names "{name}", which this {type(self.model).__name__} does not have{did_you_mean(name, names)}'
        )

    def first_matrices(self, key: str, template: str) -> dict[int, FeedForwardMatrix]:
        """Returns the matrix of every edited layer that reads the residual space: gate, up, or the only one.

        Args:
            key: The setting that names it.
            template: Its name, with `{}` for the layer.

        Raises:
            InputError: When there is no such matrix, or it cannot be edited.
        """
        return {layer: self._find_matrix(key, template.format(layer), writes=False) for layer in self.layers}

    def _find_matrix(self, key: str, name: str, *, writes: bool) -> FeedForwardMatrix:
        module = self._find(key, name)
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            raise InputError(f'{key} names "{name}", a {type(module).__name__} without a weight.')
        _check_placement(weight, f"{name}.weight")
        if getattr(module, "merged", False):
            raise InputError(
                f'An adapter is merged into "{name}"; unmerge it first (unmerge_adapter), or edit the merged model by '
                "itself (merge_and_unload)."
            )
        neuron_dim = int(isinstance(without_adapter(module), Conv1D) != writes)
        if weight.dim() != 2 or weight.shape[1 - neuron_dim] != self.vocabulary.width:
            raise InputError(
                f'{key} names "{name}" with a weight of shape {tuple(weight.shape)}; it must '
                f"{'write into' if writes else 'read'} the residual space of width {self.vocabulary.width}."
            )
        if not all_finite(weight):
            raise InputError(f'The weight "{name}.weight" holds NaN or Inf; load the model again before editing it.')
        return FeedForwardMatrix(module=module, weight_name=f"{name}.weight", neuron_dim=neuron_dim)


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _check_placement(weight: Tensor, name: str) -> None:
    if weight.is_meta:
        raise InputError(
            f'The weight "{name}" is on the meta device: it has no values here. Load the checkpoint, and where a '
            "device_map put layers on disk or CPU (offloading), load it without."
        )
    if weight.dtype not in _EDITABLE_DTYPES or type(weight.data) is not Tensor:
        kind = type(weight).__name__ if type(weight) is not nn.Parameter else str(weight.dtype)
        raise InputError(
            f'The weight "{name}" is quantized ({kind}); edit the unquantized model, then quantize the result.'
        )
