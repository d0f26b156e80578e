"""One call of the host: every edit that a method made in it, however often the host called the method.

The host hands back what its last call of the method gave. So its entry points are wrapped: what they return holds all
edits of the call that stay, in order; where an entry point fails, the weights are put back as they were before it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ..edits.apply import OriginalWeights
from ..edits.edit_set import EditSet
from ..errors import InputError
from .easyedit import Generation

# Marks functions that we put into the host.
OURS = "_revs_tars_plugin"
# The host's editors by module, and those of their methods that edit.
EDITORS_OF_HOST = {
    "editors.editor": (
        "BaseEditor",
        ("edit", "edit_requests", "batch_edit", "edit_dataset", "normal_edit", "generate_edit"),
    ),
    "editors.concept_editor": ("ConceptEditor", ("edit",)),
    "editors.safety_editor": ("SafetyEditor", ("edit",)),
}


@dataclass
class HostCall:
    """What happens between the host's being called and its answer.

    Attributes:
        keeps: Whether the caller wants the model to stay edited.
        edits: What was applied so far, in order.
    """

    keeps: bool
    edits: list[EditSet] = field(default_factory=list)

    def add(self, edits: EditSet) -> None:
        """Takes note of an edit that was just applied; where the host takes edits back, it took the ones before."""
        if not self.keeps:
            self.edits = [without_changes(earlier) for earlier in self.edits]
        self.edits.append(edits)

    def joined(self) -> EditSet | None:
        """Returns all edits that stay; an empty one with the outcomes where the host took them back; None for none."""
        if not self.edits:
            return None
        joined = EditSet.in_order(self.edits)
        return joined if self.keeps else without_changes(joined)

    def take_back(self, model: nn.Module) -> None:
        """Undoes what still stands, the last edit first."""
        for edits in reversed(self.edits):
            if edits.stands_in(model):
                edits.undo(model)


def without_changes(edits: EditSet) -> EditSet:
    """Returns what became of the targets of an edit that is no longer there."""
    return replace(edits, edits=())


@dataclass(frozen=True)
class Defaults:
    """What calls of the host mean where they do not say it.

    Attributes:
        keeps: Let edits stay.
        forget: Given a request, returns what is to be forgotten.
    """

    keeps: bool = False
    forget: Callable[[dict[str, Any]], Any] | None = None


_CALL: ContextVar[HostCall | None] = ContextVar("revs_tars_host_call", default=None)
_DEFAULTS: ContextVar[Defaults] = ContextVar("revs_tars_defaults", default=Defaults())  # noqa: B039 (frozen)


@contextlib.contextmanager
def defaults_of_calls(defaults: Defaults) -> Iterator[None]:
    """Sets what calls of the host mean where they do not say it, while a `with` block lasts."""
    token = _DEFAULTS.set(defaults)
    try:
        yield
    finally:
        _DEFAULTS.reset(token)


def current_call() -> HostCall | None:
    """Returns the call of the host that is under way, or None where a method is called by itself."""
    return _CALL.get()


def keeping_all(entry_point: Callable[..., Any], generation: Generation) -> Callable[..., Any]:
    """Wraps one of the host's methods that edit, so that what it returns holds all edits that stay.

    Args:
        entry_point: The method; it returns metrics, the model and the original weights.
        generation: The release keeps an edit unless `keep_original_weight` is true, branch main where
            `sequential_edit` is.
    """
    signature = inspect.signature(entry_point)
    said_by = "keep_original_weight" if generation == "release" else "sequential_edit"

    @functools.wraps(entry_point)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _CALL.get() is not None or not hasattr(getattr(self, "apply_algo", None), OURS):
            return entry_point(self, *args, **kwargs)
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            return entry_point(self, *args, **kwargs)  # the host's own complaint
        # All by their names, those that the host takes without naming them as well.
        arguments = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        arguments.pop("self")
        arguments.pop("kwargs", None)
        if _DEFAULTS.get().keeps:
            arguments.setdefault(said_by, generation == "main")
        if isinstance(arguments.get("requests"), list):  # made by the caller, not by the host
            requests = [dict(request) for request in arguments["requests"]]
            arguments["requests"] = with_forget(requests, arguments.get("forget"))
        call = HostCall(keeps=bool(arguments.get(said_by, False)) is (generation == "main"))
        token = _CALL.set(call)
        try:
            result = entry_point(self, **arguments)
        except BaseException:
            call.take_back(self.model)
            raise
        finally:
            _CALL.reset(token)
        joined = call.joined()
        if joined is None:
            return result
        metrics, model, _ = result
        return metrics, model, OriginalWeights(model, joined, restores=False)

    setattr(run, OURS, True)
    return run


def taking_forget(prepare_requests: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the host's making of requests, so that `forget=[...]` given to its editors gets into them.

    Args:
        prepare_requests: The host's function, or one of its editors' methods, of that name.
    """

    @functools.wraps(prepare_requests)
    def run(*args: Any, forget: Any = None, **kwargs: Any) -> Any:
        return with_forget(prepare_requests(*args, **kwargs), forget)

    setattr(run, OURS, True)
    return run


def with_forget(requests: list[dict[str, Any]], forget: Any = None) -> list[dict[str, Any]]:
    """Puts into each request what it is to forget.

    Args:
        requests: The host's request dictionaries; they are changed.
        forget: A text or a list of texts for each; by default what the defaults of calls say, if anything.

    Raises:
        InputError: When there are not as many as requests.
    """
    said = _DEFAULTS.get().forget
    if forget is None and said is not None:
        forget = [request.get("forget") or said(request) for request in requests]
    if forget is not None:
        texts = [forget] if isinstance(forget, str) else list(forget)
        if len(texts) != len(requests):
            raise InputError(
                f"forget has {len(texts)} entries for {len(requests)} prompts; give a text or a list of them for each."
            )
        for request, text in zip(requests, texts, strict=True):
            request["forget"] = text
    return requests
