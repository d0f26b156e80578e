"""REVS and TARS as trainers of open-unlearning: named in its configuration, evaluated by its evaluators.

Its scripts look a trainer up by `trainer.handler`. `revs-tars open-unlearning src/train.py ...` enters ours into that
table and runs the script, with whatever it is given.
"""

from __future__ import annotations

import importlib
import inspect
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean
from ..methods import METHODS, measured_settings, method_of
from ..requests.reading import join
from .records import Record

_IGNORED = -100
_ITEM = ("input_ids", "labels")
# What open-unlearning gives every trainer beside what the library's own takes.
_OF_THE_BASE = ("evaluators", "template_args", "tokenizer")


def unlearning_trainer(method: str, base: type) -> type:
    """Returns a trainer class that edits instead of training.

    Its `train` makes a request of every item of the forget set, edits the model, and leaves evaluation and saving to
    the base class. `method_args` may name `settings` (a YAML or a packaged name; by default those measured best) and
    change single ones.

    Args:
        method: "REVS", "TARS" or "FT-L-delete".
        base: open-unlearning's `FinetuneTrainer`.

    Raises:
        InputError: When there is no such method.
    """
    chosen = method_of(method)

    class EditingTrainer(base):  # type: ignore[misc, valid-type]
        """A trainer whose training is an edit."""

        def __init__(self, settings: str | None = None, **arguments: Any) -> None:
            names = inspect.signature(_trainer_of(base).__init__).parameters
            settable = {item.name for item in fields(chosen.hyperparams)} - set(names)
            own = {name: arguments.pop(name) for name in tuple(arguments) if name in settable}
            unknown = [name for name in arguments if name not in (*names, *_OF_THE_BASE)]
            if unknown:
                raise InputError(
                    f'trainer.method_args: {method} has no setting "{unknown[0]}"{did_you_mean(unknown[0], settable)}'
                )
            if "tokenizer" not in names:  # transformers 5 calls it otherwise
                arguments["processing_class"] = arguments.pop("tokenizer", None)
            super().__init__(**arguments)
            self._settings, self._changes = settings, own

        def train(self, *_args: Any, **_kwargs: Any) -> Any:
            """Edits the model; nothing is trained."""
            from transformers.trainer_utils import TrainOutput

            tok = getattr(self, "processing_class", None) or self.tokenizer
            forget = getattr(self.train_dataset, "forget", self.train_dataset)
            retain = getattr(self.train_dataset, "retain", None) or ()
            requests: list[dict[str, Any]] = [record.request() for record in records_of(forget, tok)]
            name = getattr(self.model.config, "_name_or_path", "") or "model"
            if self._settings:
                hparams = chosen.hyperparams.from_hparams(self._settings)
            else:
                hparams = measured_settings(chosen, self.model, name)
            hparams = type(hparams)(**{**hparams.to_dict(), **self._changes})
            if retain and hparams.spares_retained_texts:
                requests[0]["retain_texts"] = [join(kept.prompt, kept.answer) for kept in records_of(retain, tok)]
            training = self.model.training
            assert chosen.execute is not None
            edits = chosen.execute(self.model.eval(), tok, requests, hparams)
            edits.apply(self.model)
            self.model.train(training)
            self.log({"edited numbers": float(edits.n_changed)})
            return TrainOutput(self.state.global_step, 0.0, {})

    EditingTrainer.__name__ = EditingTrainer.__qualname__ = method
    return EditingTrainer


def records_of(dataset: Any, tok: Any) -> list[Record]:
    """Returns the prompts and answers of a data set of open-unlearning, whose items are tokens.

    Args:
        dataset: Items with `input_ids`, and `labels` that are -100 wherever the prompt is.
        tok: The tokenizer.

    Raises:
        InputError: When an item has neither prompt nor answer.
    """
    records = []
    for number in range(len(dataset)):
        item = dataset[number]
        if not isinstance(item, Mapping) or any(name not in item for name in _ITEM):
            raise InputError(f"Item {number} of the data set has no {' or no '.join(_ITEM)}; it must be a QA data set.")
        ids, labels = (_listed(item[name]) for name in _ITEM)
        answer = [token for token, label in zip(ids, labels, strict=True) if label != _IGNORED]
        start = next((place for place, label in enumerate(labels) if label != _IGNORED), len(ids))
        while answer and answer[-1] in tok.all_special_ids:
            answer.pop()
        # The tokenizer puts its own token in front again.
        prompt = ids[1:start] if ids[:1] == [tok.bos_token_id] else ids[:start]
        if not prompt or not answer:
            raise InputError(f"Item {number} of the data set has no prompt or no answer; nothing can be forgotten.")
        texts = [tok.decode(part, clean_up_tokenization_spaces=False) for part in (prompt, answer)]
        records.append(Record(str(number), str(number), "question", "", texts[0], texts[1]))
    return records


def run_script(script: str | Path, arguments: Sequence[str]) -> None:
    """Runs a script of open-unlearning with our methods among its trainers.

    Args:
        script: Its `src/train.py`.
        arguments: What the script is given: hydra's overrides, `trainer.handler=REVS` among them.

    Raises:
        InputError: When there is no such script, or its trainers cannot be imported.
    """
    file = Path(script).expanduser()
    if not file.is_file():
        raise InputError(f"{file} is no file; name open-unlearning's src/train.py.")
    source = str(file.resolve().parent)
    sys.path.insert(0, source)
    before = sys.argv
    try:
        try:
            trainers = importlib.import_module("trainer")
            table, base = trainers.TRAINER_REGISTRY, trainers.FinetuneTrainer
        except (ImportError, AttributeError) as error:
            raise InputError(f"{source} has no trainers of open-unlearning that can be imported: {error}") from error
        table.update({name: unlearning_trainer(name, base) for name, method in METHODS.items() if method.execute})
        sys.argv = [str(file), *arguments]
        runpy.run_path(str(file.resolve()), run_name="__main__")
    finally:
        sys.argv = before
        sys.path.remove(source)


def _trainer_of(base: type) -> Any:
    """The first class of the library among the bases: it says which arguments there are."""
    return next((each for each in base.__mro__ if each.__module__.startswith("transformers")), base)


def _listed(values: Any) -> list[int]:
    return [int(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]
