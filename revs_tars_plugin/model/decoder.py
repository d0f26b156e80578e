"""Decoder: a causal language model seen through the YAML's module templates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..errors import InputError, did_you_mean
from ..hyperparams import UnlearnHyperParams
from .adapters import base_model
from .after_ff2 import AfterFF2, probe_after_ff2
from .after_head import AfterHead
from .expert_modules import expert_modules_of
from .experts import FeedForward, checked
from .forward import evaluating, layer_output, padded, with_layer_output, without_head
from .fused_experts import fused_experts_of
from .logit_lens import LogitLens
from .matrices import FeedForwardMatrix, matrix_of
from .module_names import ModuleNames
from .offloaded import weights_of
from .packed import PackedMatrix, is_packed
from .tensors import check_editable

# Any token will do; two of them, since the first one of a text has a state of its own in many models.
_PROBE = (1, 2)


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
    """Finds a model's layers, FF2 matrices, final norm and head by name, and refuses what cannot be edited exactly.

    Attributes:
        model: The model; the base model where an adapter of peft is around it.
        n_layers: How many layers the model has.
        layers: The layers that are looked at, in order.
        layer_modules: Every layer of the model.
        lens: Final norm and head.
        ff2: FF2 of each of `layers`, where a mixture of experts stands of all of them together.
        ff_width: f, the least number of neurons of an FF2.
    """

    def __init__(self, model: nn.Module, names: ModuleNames, layers: Sequence[int] = ()) -> None:
        """Resolves the module templates.

        Args:
            model: A causal language model.
            names: Where its parts stand.
            layers: The layers to look at; empty means all.

        Raises:
            InputError: When a template matches nothing, or a weight to edit is packed, on the meta device, of another
                shape, or holds NaN or Inf.
        """
        self.model = model = base_model(model)
        self._names = names
        count = 0
        while _submodule(model, names.layer_module_tmp.format(count)) is not None:
            count += 1
        if not count:
            self._not_found("layer_module_tmp", names.layer_module_tmp.format(0))
        self.n_layers = count
        self.layers = sorted(set(layers)) or list(range(count))
        if self.layers[0] < 0 or self.layers[-1] >= count:
            raise InputError(f"layers names layer {self.layers[-1]}, but the model has layers 0 to {count - 1}.")
        head = self._find("lm_head_module", names.lm_head_module)
        norm = self._find("ln_f_module", names.ln_f_module)
        for label, module in ((names.lm_head_module, head), (names.ln_f_module, norm)):
            for name, weight in weights_of(module).items():
                check_editable(weight, f"{label}.{name}")
        after_head = AfterHead.of_config(_text_config(model))
        self.lens = LogitLens(head, names.lm_head_module, norm, names.ln_f_module, after_head)
        self.layer_modules = [self._find("layer_module_tmp", names.layer_module_tmp.format(i)) for i in range(count)]
        self.ff2: dict[int, FeedForward] = self._second_matrices(names.rewrite_module_tmp)
        self.ff_width = min(ff2.width for ff2 in self.ff2.values())

    @classmethod
    def of(cls, model: nn.Module, hparams: UnlearnHyperParams) -> Decoder:
        """Returns the decoder of a method's settings: their module names, and the layers they edit.

        Raises:
            InputError: As `Decoder` itself.
        """
        return cls(model, ModuleNames.of(hparams), hparams.layers)

    @property
    def context_length(self) -> int | None:
        """How many tokens the model takes, where its config says so."""
        return getattr(_text_config(self.model), "max_position_embeddings", None)

    def vocabulary(self, tok: Any) -> int:
        """Returns how many tokens both the tokenizer and the model's embeddings have."""
        rows: int = self.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        return min(len(tok), rows)

    @cached_property
    def after_ff2(self) -> dict[int, AfterFF2]:
        """What stands between each FF2 of `layers` and the residual space, found when first asked for.

        Raises:
            InputError: Where that is nothing an edit can be exact with.
        """

        def run() -> None:
            self.forward_through_layers([_PROBE], lambda _layer, _state: None)

        layers = {layer: self.layer_modules[layer] for layer in self.layers}
        with checked(self.ff2.values()):
            return probe_after_ff2(self.model, self.ff2, layers, run)

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
            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
                # Experts are called with a row a token.
                written = layer_output(output).view(*mask.shape, -1)
                inputs[layer] = (self.ff2[layer].given(args, kwargs, mask.shape), written)

            return hook

        def correct(layer: int) -> Callable[..., Any]:
            def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
                residual = layer_output(output)
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
                return with_layer_output(output, corrected)

            return hook

        with ExitStack() as hooks:
            for layer in self.layers:
                keep = self.ff2[layer].module.register_forward_hook(keep_ff2(layer), with_kwargs=True)
                hooks.callback(keep.remove)
                hooks.callback(self.layer_modules[layer].register_forward_hook(correct(layer)).remove)
            yield

    def attention_modules(self) -> list[nn.Module]:
        """Returns the attention of each edited layer, where the settings name it and the layer has one of that name.

        Raises:
            InputError: When no layer has one.
        """
        template = self._names.attn_module_tmp
        names = [template.format(layer) for layer in self.layers] if template else []
        modules = [module for module in (_submodule(self.model, name) for name in names) if module is not None]
        if names and not modules:
            self._not_found("attn_module_tmp", names[0])
        return modules

    def _find(self, key: str, name: str) -> nn.Module:
        module = _submodule(self.model, name)
        return module if module is not None else self._not_found(key, name)

    def _not_found(self, key: str, name: str) -> nn.Module:
        names = [known for known, _ in self.model.named_modules() if known]
        raise InputError(
            f'{key} names "{name}", which this {type(self.model).__name__} does not have{did_you_mean(name, names)}'
        )

    def first_matrices(
        self, key: str, template: str, layers: Collection[int] | None = None
    ) -> dict[int, FeedForwardMatrix]:
        """Returns the matrix of every edited layer that reads the residual space: gate, up, or the only one.

        Args:
            key: The setting that names it.
            template: Its name, with `{}` for the layer.
            layers: Of these edited layers alone; None means all.

        Raises:
            InputError: When there is no such matrix, or it cannot be edited.
        """
        names = {layer: template.format(layer) for layer in self.layers if layers is None or layer in layers}
        return {
            layer: matrix_of(self._find(key, name), setting=key, name=name, width=self.lens.width, writes=False)
            for layer, name in names.items()
        }

    def _second_matrices(self, template: str) -> dict[int, FeedForward]:
        key = "rewrite_module_tmp"
        found: dict[int, FeedForward] = {}
        for layer in self.layers:
            name = template.format(layer)
            module = self._find(key, name)
            if is_packed(module):
                found[layer] = PackedMatrix(module, f"{name}.weight", neuron_dim=1)
                continue
            what: dict[str, Any] = {"setting": key, "name": name, "width": self.lens.width}
            if isinstance(module, nn.ModuleList):
                block = self._find(key, name.rpartition(".")[0])
                found[layer] = expert_modules_of(module, block, **what)
                continue
            found[layer] = fused_experts_of(module, **what) or matrix_of(module, **what, writes=True)
        return found


def _text_config(model: nn.Module) -> Any:
    """The config of what reads text: a model that sees pictures as well has several."""
    config = getattr(model, "config", None)
    text_config = getattr(config, "get_text_config", None)
    return text_config() if callable(text_config) else config


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None
