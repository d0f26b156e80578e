"""An edit of many secrets takes long: what was solved so far is kept on disk, so that a call that was stopped goes on.

A step is one group of targets that are solved together. What it wrote is kept; what the model says in between is read
again, since that is what the next step starts from. A step is taken from disk only where the very same is asked again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..atomic_write import replacing
from ..edits.trial import TrialEdits
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.processes import agreed, process_count, process_label
from ..model.tensors import fingerprint
from .demoter import Localization
from .outcomes import EditedParts
from .secrets_of_call import SecretsOfCall
from .targets import Goal

# Seconds of work that are worth a file.
_EVERY = 10.0
_PATTERN = "*.steps.safetensors"


@dataclass
class KeptSteps:
    """A localization whose steps are kept; see `Localization`.

    Attributes:
        decoder: The model.
        localization: What solves them.
        trial: Where it writes.
        generator: Where it draws from; as it was behind a step that is taken from disk.
        folder: Where the steps lie.
        call: The secrets with what must not change, and the settings: what all steps depend on, beside the weights.
    """

    decoder: Decoder
    localization: Localization
    trial: TrialEdits
    generator: torch.Generator
    folder: Path
    call: SecretsOfCall
    _found: dict[str, tuple[Path, dict[str, Any]]] = field(default_factory=dict)
    _new: list[tuple[dict[str, Any], dict[str, Tensor]]] = field(default_factory=list)
    _number: int = 0
    _conditions: str = ""
    _kept_at: float = 0.0

    def __post_init__(self) -> None:
        """Looks what is there."""
        # Of several processes each keeps what it wrote itself.
        self.folder = self.folder / process_label()
        self._kept_at = time.monotonic()
        self._conditions = self._all_conditions()
        for path in sorted(self.folder.glob(_PATTERN)):
            try:
                with safe_open(path, "pt") as file:
                    steps = json.loads((file.metadata() or {})["steps"])
                self._found |= {step["key"]: (path, step) for step in steps}
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path} holds no steps of an edit ({error}); delete it to begin anew.") from error

    @property
    def together(self) -> int:
        """How many targets are solved together at most."""
        return self.localization.together

    @property
    def passes(self) -> int:
        """How many passes over the layers one call makes at most."""
        return self.localization.passes

    def demote(self, goals: Sequence[Goal], *, advance: Callable[[], object] = lambda: None) -> list[EditedParts]:
        """Edits the model for these goals, or writes what was solved for the same ones before."""
        key = self._key(goals)
        self._number += 1
        # In all processes or in none: what is solved, they solve together.
        if agreed(key in self._found):
            return self._again(*self._found[key])
        with self.trial.recorded() as calls:
            parts = self.localization.demote(goals, advance=advance)
        tensors = {f"{place}.{name}": value for place, call in enumerate(calls) for name, value in call.tensors.items()}
        tensors["generator"] = self.generator.get_state()
        step = {
            "key": key,
            "calls": [[call.matrix, call.kind] for call in calls],
            "parts": [asdict(part) for part in parts],
        }
        self._new.append((step, tensors))
        if time.monotonic() - self._kept_at > _EVERY:
            self._keep()
        return parts

    def keep_rest(self) -> None:
        """Keeps the last steps of a long call too: the edit is not on disk yet."""
        if self._new and any(self.folder.glob(_PATTERN)):
            self._keep()

    def _key(self, goals: Sequence[Goal]) -> str:
        """Tells a step from every other: the one at this place of this edit, with this asked of this model."""
        return hashlib.sha256(repr((self._conditions, self._number, list(goals))).encode()).hexdigest()

    def _all_conditions(self) -> str:
        """What every step depends on: versions, settings, texts, and the weights as they are before the edit."""
        settings = self.call.hparams.to_dict()
        texts = [Path(settings[name]).expanduser() for name in ("mom2_dataset", "retain_texts")]
        edited = {id(matrix.weight) for ff2 in self.decoder.ff2.values() for matrix in ff2.matrices}
        # Of what is not edited the sums will do: whoever trains on changes them.
        others = [each for each in self.decoder.model.parameters() if id(each) not in edited and not each.is_meta]
        content = (
            [version(name) for name in ("revs-tars-plugin", "torch", "transformers")],
            {name: value for name, value in settings.items() if name not in ("device", "stats_dir")},
            [hashlib.sha256(text.read_bytes()).hexdigest() for text in texts if text.is_file()],
            (list(self.call.secrets), dict(self.call.siblings), process_count()),
            [fingerprint(matrix.weight) for ff2 in self.decoder.ff2.values() for matrix in ff2.matrices],
            [(str(each.dtype), float(each.detach().sum(dtype=torch.float64))) for each in others],
        )
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def _again(self, path: Path, step: dict[str, Any]) -> list[EditedParts]:
        matrices = {ff2.name: ff2 for ff2 in self.decoder.ff2.values()}
        with safe_open(path, "pt") as file:
            for place, (name, kind) in enumerate(step["calls"]):
                device = matrices[name].matrices[0].weight.device
                values = [file.get_tensor(f"{step['key']}.{place}.{part}").to(device) for part in ("first", "values")]
                write = self.trial.write_neurons if kind == "neurons" else self.trial.add_low_rank
                write(matrices[name], *values)
            self.generator.set_state(file.get_tensor(f"{step['key']}.generator"))
        return [EditedParts(**part) for part in step["parts"]]

    def _keep(self) -> None:
        """Writes what is new, whole or not at all."""
        path = self.folder / _PATTERN.replace("*", f"{self._number:06d}")
        tensors = {
            f"{step['key']}.{name}": value.cpu().contiguous()
            for step, held in self._new
            for name, value in held.items()
        }
        try:
            with replacing(path) as file:
                file.write(save(tensors, {"steps": json.dumps([step for step, _ in self._new])}))
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror or error}); make room there.") from error
        self._new.clear()
        self._kept_at = time.monotonic()
