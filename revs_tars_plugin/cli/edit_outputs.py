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
    from ..revs.outcomes import TargetOutcome
    from ..revs.requantization import Requantization
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
        chosen = replace(self, edit=options.free(self.edit, overwrite, *inputs), **folders)
        places = [chosen.edit, *folders.values()]
        if len(set(places)) < len(places):
            raise InputError(f"Two of the outputs have one name ({', '.join(map(str, places))}); give each its own.")
        return chosen

    def check(self, loaded: Loaded, method: Method, hparams: Any, model: str) -> None:
        """Refuses what this model or method cannot give, before anything is computed.

        Raises:
            InputError: Saying what to ask for instead.
        """
        from ..edits.peft import check_peft
        from ..model.packed import any_packed
        from ..model.repacking import check_repackable

        packed = any_packed(loaded.model, hparams.rewrite_module_tmp)
        if self.merged is not None and packed:
            raise InputError(
                f"--merged: {model} is packed, and no edit can be written into it as it is; use --adapter, with REVS "
                "--requantize, or afterwards revs-tars export merged --base with the unpacked model."
            )
        if self.requantized is not None:
            if not packed:
                raise InputError(f"--requantize: the feed-forward matrices of {model} are not packed; use --merged.")
            if method.name != "REVS":
                raise InputError("--requantize is for REVS; use --adapter.")
            check_repackable(loaded.model)
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
        from ..revs.requantization import requantize
        from .loading import save_model

        again = None
        if self.requantized is not None and edits.edits:
            again = requantize(loaded.model, loaded.tok, requests, hparams, edits, folder=self.requantized)
            # All that is written is one edit.
            edits = again.edits if again.holds else edits
        if edits.edits:
            edits.save(self.edit, include_requests=include_requests)
        else:
            self.edit.unlink(missing_ok=True)  # an older one, which --overwrite gave up, would look like this one
        if self.adapter is not None and edits.edits:
            edits.to_peft(self.adapter, model)
        if self.merged is not None:
            edits.apply(loaded.model)
            save_model(loaded, self.merged)
        missed = "" if again is None or again.holds else _missed(again, self.requantized)
        places = {
            "edit": self.edit if edits.edits else None,
            "merged": self.merged,
            "adapter": self.adapter if edits.edits else None,
            "requantized": self.requantized if again is not None and again.holds else None,
        }
        written = {name: None if place is None else str(place) for name, place in places.items()}
        return WrittenOutputs(written, edits, () if again is None else again.outcomes, missed)


@dataclass(frozen=True)
class WrittenOutputs:
    """What was written.

    Attributes:
        places: Where each is; None what was not asked for, or came to nothing.
        edits: The edit: where a packed model was packed again with it, one that goes as far as that took.
        outcomes: What became of what was asked in the packed weights, where an edit was written into them.
        missed: Why the model was not packed again with the edit in it, where that was asked for.
    """

    places: dict[str, str | None]
    edits: EditSet
    outcomes: tuple[TargetOutcome, ...]
    missed: str

    def said(self) -> str:
        """Returns it in words, a line for each."""
        labels = {"merged": "The edited model", "adapter": "The adapter", "requantized": "The model, packed again"}
        edit = self.places["edit"]
        lines = [f"The edit: {edit}" if edit else "Nothing had to be changed, so no edit was written."]
        lines += [f"{label}: {self.places[name]}" for name, label in labels.items() if self.places[name]]
        if self.edits.packed and edit and not self.places["requantized"]:
            lines.append("The model is packed: the edit goes beside it as an adapter.")
        return "\n".join(lines)

    def check(self) -> None:
        """Ends the run with exit code 1 where something asked for was not written."""
        if self.missed:
            typer.echo(self.missed, err=True)
            raise typer.Exit(1)


def _missed(again: Requantization, folder: Path | None) -> str:
    held = sum(outcome.reached for outcome in again.outcomes)
    return (
        f"--requantize: packed again, {held} of {len(again.outcomes)} tokens are where they were asked to be, so "
        f"{folder} was not written; deliver the edit as an adapter (--adapter), or ask for a higher "
        "residual_bottom_rank."
    )
