"""Methods that unlearn by training, with the loss functions of open-unlearning as they are, from a checkout of it.

Nothing of that code is kept here: whoever wants these rows clones it and names the folder in `OPEN_UNLEARNING`. Its
trainers are made for GPUs; here their `compute_loss` is called in a plain loop.
"""

from __future__ import annotations

import copy
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ..data.training import fine_tune
from ..errors import InputError, did_you_mean
from .learning import Batches
from .records import Split

# Names of its trainers, and the module of each.
RIVALS = {"GradDiff": "grad_diff", "NPO": "npo", "SimNPO": "simnpo", "RMU": "rmu"}
# What its own settings say for all of them (configs/trainer/finetune.yaml).
_EPOCHS, _BATCH, _ACCUMULATED = 10, 8, 4


@dataclass(frozen=True)
class Rival:
    """One of its methods, ready to run.

    Attributes:
        name: Its name there.
        settings: Its `method_args`.
        trainer: Its trainer's class.
    """

    name: str
    settings: dict[str, Any]
    trainer: Any

    def unlearn(
        self,
        model: nn.Module,
        tok: Any,
        split: Split,
        *,
        learning_rate: float = 1e-5,
        epochs: int = _EPOCHS,
        batch_size: int = _BATCH,
        accumulated: int = _ACCUMULATED,
        seed: int = 0,
        progress: Callable[[int, float], None] | None = None,
    ) -> None:
        """Trains a model to forget, in place: every record to forget once an epoch, each with a random one to retain.

        Args:
            model: A causal language model.
            tok: Its tokenizer.
            split: What to forget and what to retain.
            learning_rate: The learning rate of AdamW.
            epochs: Passes over the records to forget.
            batch_size: Records to forget, and to retain, of a pass.
            accumulated: Passes of a step.
            seed: Seed of their order.
            progress: Called after each epoch with its number and mean loss.
        """
        if not split.retain:
            raise InputError(f"{self.name} trains on records to retain as well; there are none.")
        records = Batches(tok, split.forget), Batches(tok, split.retain)
        trainer = self._trainer(model)
        torch.manual_seed(seed)  # the method draws from torch's own generator
        generator = torch.Generator().manual_seed(seed)
        device = next(model.parameters()).device

        def losses() -> Iterator[Tensor]:
            for inputs in _pairs(*records, batch_size, device, generator):
                yield trainer.compute_loss(model, inputs)

        fine_tune(
            model,
            losses,
            epochs=epochs,
            learning_rate=learning_rate,
            parameters=self._trained(model),
            accumulated=accumulated,
            progress=progress,
        )

    def _trainer(self, model: nn.Module) -> Any:
        """The trainer without the rest of what makes one: its losses need the settings and a model before all."""
        trainer = self.trainer.__new__(self.trainer)
        trainer.__dict__.update({**self.settings, "model": model, "ref_model": copy.deepcopy(model).eval()})
        if "module_regex" in self.settings:
            trainer.control_vec = None
            for name, where in (("model_module", model), ("ref_module", trainer.ref_model)):
                setattr(trainer, name, trainer._get_matching_module(where, self.settings["module_regex"]))
        return trainer

    def _trained(self, model: nn.Module) -> list[nn.Parameter]:
        patterns = self.settings.get("trainable_params_regex", [".*"])
        return [
            parameter
            for name, parameter in model.named_parameters()
            if any(re.fullmatch(pattern, name) for pattern in patterns)
        ]


def published_rival(checkout: str | Path, name: str, **settings: Any) -> Rival:
    """Takes a method out of a checkout of open-unlearning, with its published settings.

    Args:
        checkout: The folder of the clone.
        name: One of `RIVALS`.
        settings: Changes of its `method_args`.

    Raises:
        InputError: When there is no such method, or the folder is no checkout.
    """
    place = Path(checkout).expanduser()
    if name not in RIVALS:
        raise InputError(
            f'"{name}" is no method of open-unlearning that is run here; it must be of {", ".join(RIVALS)}.'
        )
    file = place / "configs" / "trainer" / f"{name}.yaml"
    if not file.is_file():
        raise InputError(f"{place} is no checkout of open-unlearning: it has no configs/trainer/{name}.yaml.")
    published = {"beta": 1.0, "delta": 0.0, **yaml.safe_load(file.read_text(encoding="utf-8"))["method_args"]}
    unknown = [key for key in settings if key not in published]
    if unknown:
        raise InputError(f'{name} has no setting "{unknown[0]}"{did_you_mean(unknown[0], published)}')
    with _importable(place / "src"):
        module = importlib.import_module(f"trainer.unlearn.{RIVALS[name]}")
    return Rival(name, {**published, **settings}, getattr(module, name))


@contextmanager
def _importable(source: Path) -> Iterator[None]:
    """Lets its modules be imported one by one: the package's own `__init__` takes all, with DeepSpeed and CUDA."""
    package = ModuleType("trainer")
    package.__path__ = [str(source / "trainer")]
    deepspeed = ModuleType("deepspeed")
    deepspeed.__spec__ = ModuleSpec("deepspeed", None)
    # One method asks whether the model is wrapped in it.
    deepspeed.DeepSpeedEngine = type("DeepSpeedEngine", (), {})  # type: ignore[attr-defined]
    stand_ins = {"trainer": package} | ({} if "deepspeed" in sys.modules else {"deepspeed": deepspeed})
    before = {name: sys.modules.get(name) for name in stand_ins}
    others = [name for name in sys.modules if name.startswith("trainer.")]
    kept = {name: sys.modules.pop(name) for name in others}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.startswith("trainer.")]:
            del sys.modules[name]
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
        sys.modules.update(kept)


def _pairs(
    forget: Batches, retain: Batches, batch_size: int, device: torch.device, generator: torch.Generator
) -> Iterator[dict[str, Any]]:
    for chosen in forget.shuffled(batch_size, generator):
        partners = torch.randint(len(retain.records), (len(chosen),), generator=generator).tolist()
        yield {"forget": forget.of(chosen, device), "retain": retain.of(partners, device)}
