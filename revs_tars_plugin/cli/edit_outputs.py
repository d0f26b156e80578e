"""What `edit` writes: the edit, and on request the edited model, an adapter, or a packed model packed again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError
from . import options

if TYPE_CHECKING:
    from ..edits.edit_set import EditSet
    from ..methods import Method
    from .loading import Loaded


@dataclass(frozen=True)
class EditOutputs:
    """Where everything goes.

    Attributes:
        edit: The edit's file.
        merged: The folder of the edited model, where one is asked for.
        adapter: That of the LoRA adapter.
        requantized: That of the packed model that was packed again with the edit in it.
    """

    edit: Path
    merged: Path | None
    adapter: Path | None
    requantized: Path | None

    def free(self, *, overwrite: bool, inputs: tuple[Any, ...], model: str) -> EditOutputs:
        """Returns them with their names resolved, all of them free.

        Raises:
            InputError: When one is taken, or is one of the inputs.
        """
        folders = {
            name: options.free(folder, overwrite, model)
            for name in ("merged", "adapter", "requantized")
            if (folder := getattr(self, name)) is not None
        }
        return replace(self, edit=options.free(self.edit, overwrite, *inputs), **folders)

    def check(self, loaded: Loaded, method: Method, hparams: Any, model: str) -> None:
        """Refuses what this model or method cannot give, before anything is computed.

        Raises:
            InputError: Saying what to ask for instead.
        """
        from ..edits.peft import check_peft
        from ..model.packed import any_packed

        packed = any_packed(loaded.model, hparams.rewrite_module_tmp)
        if self.merged is not None and packed:
            raise InputError(
                f"--merged: {model} is packed, and no edit can be written into it; use --adapter, or afterwards "
                "revs-tars export merged --base with the unpacked model."
            )
        if self.requantized is not None and not (packed and method.name == "REVS"):
            raise InputError("--requantize is for REVS on a packed model; use --merged.")
        if self.adapter is not None:
            check_peft()

    def write(
        self,
        edits: EditSet,
        loaded: Loaded,
        requests: list[dict[str, Any]],
        hparams: Any,
        *,
        model: str,
        include_requests: bool,
    ) -> WrittenOutputs:
        """Writes them; of an edit that changes nothing there is only the model."""
        from .loading import save_model

        if edits.edits:
            edits.save(self.edit, include_requests=include_requests)
        else:
            self.edit.unlink(missing_ok=True)  # an older one, which --overwrite gave up, would look like this one
        missed = ""
        if self.requantized is not None:
            missed = _requantize(loaded, requests, hparams, edits, self.requantized)
        if self.merged is not None:
            edits.apply(loaded.model)
            save_model(loaded, self.merged)
        if self.adapter is not None and edits.edits:
            edits.to_peft(self.adapter, model)
        places = {
            "edit": self.edit if edits.edits else None,
            "merged": self.merged,
            "adapter": self.adapter if edits.edits else None,
            "requantized": None if missed else self.requantized,
        }
        written = {name: None if place is None else str(place) for name, place in places.items()}
        return WrittenOutputs(written, edits.packed, missed)


@dataclass(frozen=True)
class WrittenOutputs:
    """What was written.

    Attributes:
        places: Where each is; None what was not asked for, or came to nothing.
        packed: Whether the edit stands beside packed weights.
        missed: Why the model was not packed again with the edit in it, where that was asked for.
    """

    places: dict[str, str | None]
    packed: bool
    missed: str

    def said(self) -> str:
        """Returns it in words, a line for each."""
        labels = {"merged": "The edited model", "adapter": "The adapter", "requantized": "The model, packed again"}
        edit = self.places["edit"]
        lines = [f"The edit: {edit}" if edit else "Nothing had to be changed, so no edit was written."]
        lines += [f"{label}: {self.places[name]}" for name, label in labels.items() if self.places[name]]
        if self.packed and edit:
            lines.append("The model is packed: the edit goes beside it as an adapter.")
        return "\n".join(lines)

    def check(self) -> None:
        """Ends the run with exit code 1 where something asked for was not written."""
        if self.missed:
            typer.echo(self.missed, err=True)
            raise typer.Exit(1)


def _requantize(loaded: Loaded, requests: list[dict[str, Any]], hparams: Any, edits: EditSet, folder: Path) -> str:
    """Writes the model with the edit in its packed weights; or nothing, and returns why."""
    from ..revs.requantization import requantized
    from .loading import save_model

    found = requantized(loaded.model, loaded.tok, requests, hparams, edits)
    if found.holds:
        save_model(replace(loaded, model=found.model), folder)
        return ""
    held = sum(outcome.reached for outcome in found.outcomes)
    return (
        f"--requantize: packed again, {held} of {len(found.outcomes)} tokens are where they were asked to be, so "
        f"{folder} was not written; deliver the edit as an adapter (--adapter), or ask for a higher "
        "residual_bottom_rank."
    )
