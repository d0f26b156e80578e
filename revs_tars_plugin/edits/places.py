"""Where a weight stands in a model, and what stood there before a product was added to it.

Adding in floating point cannot be taken back exactly, so the weight as it was is kept for as long as the edit that was
applied lives. The module that holds the weight knows it too, weakly: an equal edit, loaded from a file, finds it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor, nn

from ..errors import EditConflictError
from ..model.adapters import base_model, without_adapter
from ..model.expert_names import ExpertName
from ..model.offloaded import weight_of
from ..model.tensors import is_plain
from .disk_tensor import DiskTensor

_ATTRIBUTE = "_revs_tars_applied_products"


@dataclass(eq=False)
class AppliedProduct:
    """A product of thin matrices that is added to a weight.

    Attributes:
        before: The weight's bits before it.
        fingerprint: The weight's fingerprint with it; empty while it is being added.
    """

    before: DiskTensor
    fingerprint: str = ""

    def __deepcopy__(self, _memo: object) -> AppliedProduct:
        """Returns itself: a copied edit keeps alive what the module knows."""
        return self


class _AppliedProducts(WeakValueDictionary):
    """Products by the weight's name in its module and the edit's digest; each goes when the applied edit goes."""

    owned: tuple[AppliedProduct, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _AppliedProducts:
        # No edit was applied to the copied module, so that one keeps what stood in it before by itself.
        copied: _AppliedProducts = super().__deepcopy__(memo)
        copied.owned = tuple(copied.values())
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        # A model that is pickled whole takes none of them along.
        return type(self), ()


@dataclass(frozen=True)
class WeightPlace:
    """A parameter of a module, or one expert's matrix of a parameter that holds those of all.

    Attributes:
        module: The module that holds it.
        name: The parameter's name there.
        expert: Which expert's; None for the whole parameter.
    """

    module: nn.Module
    name: str
    expert: int | None = None

    @classmethod
    def of(cls, model: nn.Module, name: str) -> WeightPlace:
        """Finds a parameter by its name in a model, or in the model inside a `PeftModel`.

        An expert's matrix has a name of its own; see `ExpertName`.

        Raises:
            EditConflictError: When the model has none of that name.
        """
        of_expert = ExpertName.of(name)
        whole = ExpertName.whole(name)
        path, _, last = whole.rpartition(".")
        inside = base_model(model)
        try:
            parameter = inside.get_parameter(whole)
            if of_expert is not None and not (of_expert.expert < of_expert.count == len(parameter)):
                raise AttributeError(name)
        except AttributeError as error:
            raise EditConflictError(
                f'The edit changes "{name}", which this {type(model).__name__} does not have.'
            ) from error
        if not is_plain(parameter) and not parameter.is_meta:
            raise EditConflictError(
                f'The weight "{name}" is packed, so no edit can be written into it; put the edit beside it as an '
                "adapter (to_peft, or revs-tars export peft) or for a measurement (apply_beside), or into the unpacked "
                "model (onto, or revs-tars export merged --base)."
            )
        # An adapter comes and goes around the layer; what was there before belongs to the layer itself.
        return cls(without_adapter(inside.get_submodule(path)), last, None if of_expert is None else of_expert.expert)

    @property
    def weight(self) -> Tensor:
        """The parameter itself, or the expert's part of it: a view."""
        parameter: Tensor = weight_of(self.module, self.name)
        return parameter if self.expert is None else parameter.detach()[self.expert]

    def applied_product(self, digest: str) -> AppliedProduct | None:
        """Returns what is known of the edit of that digest, or None where it was not applied here."""
        products: _AppliedProducts | None = getattr(self.module, _ATTRIBUTE, None)
        return None if products is None else products.get((self.name, digest))

    def remember(self, digest: str, product: AppliedProduct) -> None:
        """Lets edits of that digest find the product, for as long as somebody keeps it."""
        if not hasattr(self.module, _ATTRIBUTE):
            setattr(self.module, _ATTRIBUTE, _AppliedProducts())
        getattr(self.module, _ATTRIBUTE)[self.name, digest] = product

    def forget(self, digest: str) -> None:
        """Forgets a product; the module is left without a trace of the last one."""
        products: _AppliedProducts | None = getattr(self.module, _ATTRIBUTE, None)
        if products is not None:
            products.pop((self.name, digest), None)
            if not products:
                delattr(self.module, _ATTRIBUTE)
