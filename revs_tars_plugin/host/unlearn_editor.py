"""`UnlearnEditor`: the host's `BaseEditor` with one call that edits, keeps the edit, and measures what it did.

Its base class is the host's, so the class is made when it is first asked for; our methods are registered when an editor
is made. Importing this module does neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from ..data.concept_files import ConceptRecord
from ..data.secret_files import SecretRecord
from ..errors import InputError
from ..evaluation import RESISTANCE_ATTACKS, OrdinaryText, evaluate_unlearning
from ..hyperparams import UnlearnHyperParams
from ..model.decoder import Decoder
from ..moments.second_moments import ordinary_moments
from .easyedit import load_host
from .edit_recorder import EditRecorder
from .host_methods import for_loaded_model, module_names, needs_subject, padded, padding_side, reads_moments
from .host_moments import with_moments
from .registry import REGISTERED, register
from .release_bridge import on_cpu
from .unlearning_result import UnlearningResult, host_means

REPLACEMENT = "unknown"
# What WISE wants to leave alone while it writes.
_UNTOUCHED = "The weather in the mountains is"


class Unlearning:
    """What `UnlearnEditor` adds to EasyEdit's `BaseEditor`, of whichever generation is installed.

    It works for any `alg_name` that edits weights.
    """

    model: nn.Module
    tok: Any
    model_name: str
    alg_name: str
    apply_algo: Any
    hparams: Any
    edit: Any
    batch_edit: Any
    _prepare_requests: Any

    def unlearn(
        self,
        prompts: Sequence[str],
        secrets: Sequence[str],
        *,
        subjects: Sequence[str] | None = None,
        rephrase_prompts: Sequence[str | tuple[str, ...]] | None = None,
        locality_inputs: Mapping[str, Mapping[str, Any]] | None = None,
        retain: Sequence[SecretRecord | tuple[str, str]] | None = None,
        concepts: Sequence[ConceptRecord] | None = None,
        corpus: Sequence[str] | OrdinaryText | None = None,
        replacement: str | None = None,
        attacks: Sequence[str] = RESISTANCE_ATTACKS,
        keep: bool = True,
        verbose: bool = False,
        **evaluation: Any,
    ) -> UnlearningResult:
        """Runs the host's own edit and evaluation, and measures how well the secrets are hidden.

        REVS, TARS and the deleting methods forget `secrets`, in one call, unless `batch_size` says how many a call. The
        host's own methods write `replacement` in their place, one after another where `batch_size` is 1. All are scored
        alike: every token of a secret counts (`positions="all"`).

        Args:
            prompts: What leads to the secrets.
            secrets: What must not follow, one a prompt.
            subjects: What the prompts are about; ROME and MEMIT need them.
            rephrase_prompts: Other wordings that lead to the same secrets, one or several each, for generality; the
                host's own evaluation takes the first.
            locality_inputs: As the host's `edit` takes them.
            retain: What must still be known, as records or pairs of prompt and target.
            concepts: Concepts that must be unknown afterwards.
            corpus: Ordinary texts; measured before and after. Or an `OrdinaryText` made with this model.
            replacement: What the host's own methods write; by default `hparams.target_new`, else "unknown".
            attacks: See `evaluate_unlearning`.
            keep: Whether the returned model, which is the editor's, stays edited. Without, every bit is put back.
            verbose: Whether the host prints what it does.
            **evaluation: Further arguments of `evaluate_unlearning`, as `k`, `positions` or `seed`.

        Raises:
            InputError: When an argument cannot be used; no weight has changed then.
            HostError: When the method does not edit weights.
        """
        records = _records(prompts, secrets, subjects, rephrase_prompts)
        if subjects is None and needs_subject(self.hparams):
            raise InputError(f"{self.alg_name} needs subjects: for each prompt, the words in it that it is about.")
        retained = [record if isinstance(record, SecretRecord) else SecretRecord(*record) for record in retain or ()]
        names = module_names(self.model, self.hparams)
        text = corpus if isinstance(corpus, OrdinaryText) else None
        if corpus and text is None:
            text = OrdinaryText.of(self.model, self.tok, corpus)  # type: ignore[arg-type]
        if getattr(self.hparams, "chat_template", False):
            evaluation.setdefault("chat_template", True)
        evaluation = {"positions": "all", **evaluation, "retain": retained, "concepts": concepts, "attacks": attacks}
        if self.alg_name in REGISTERED:
            written = list(secrets)
        else:
            written = [replacement or getattr(self.hparams, "target_new", None) or REPLACEMENT] * len(records)
        hparams = self.hparams
        model = self.model
        # Moments are measured once a model and kept on disk; no part of a secret's time.
        if reads_moments(hparams):
            self.hparams = with_moments(load_host(), model, self.tok, hparams)
        elif isinstance(hparams, UnlearnHyperParams) and hparams.reads_moments:
            ordinary_moments(Decoder.of(model, hparams), self.tok, hparams)
        if not isinstance(hparams, UnlearnHyperParams):
            self.hparams = for_loaded_model(model, self.hparams)
        # The host decides this when it loads a model; here one editor may have run other methods before.
        side = padding_side(load_host(), model, hparams)
        recorder = EditRecorder(model, self.apply_algo, self.alg_name)
        try:
            with padded(self.tok, side):
                metrics = self._edited(recorder, records, written, locality_inputs, verbose)
            for module in model.modules():
                # GRACE looks for its keys at this token; its last edit left it where that prompt ended.
                if hasattr(module, "key_id"):
                    module.key_id = -1  # type: ignore[assignment]
            report = evaluate_unlearning(self.model, self.tok, records, names=names, reference=text, **evaluation)
        except BaseException:
            recorder.restore()
            self.model = model
            raise
        finally:
            self.hparams = hparams
        for metric, row in zip(metrics, report.rows, strict=True):
            metric["post"]["unlearning"] = dict(row)
        edits = recorder.edits
        changed = None
        if not keep:
            changed = recorder.restore()
            self.model = model  # which stood inside an adapter
        summary = {**report.summary, **host_means(metrics)}
        return UnlearningResult(
            metrics=metrics,
            summary=summary,
            report=report,
            model=self.model,
            edits=edits,
            seconds=recorder.seconds,
            peak_mib=recorder.peak_mib,
            n_changed=changed,
        )

    def _edited(
        self,
        recorder: EditRecorder,
        records: Sequence[SecretRecord],
        written: Sequence[str],
        locality_inputs: Mapping[str, Mapping[str, Any]] | None,
        verbose: bool,
    ) -> list[dict[str, Any]]:
        """Runs the host's edit with the recorder in the method's place; returns its metrics, in order."""
        batch_size = getattr(self.hparams, "batch_size", 1)
        size = len(records) if self.alg_name in REGISTERED and batch_size == 1 else batch_size
        batch_editor = load_host().module("editors.batch_editor").BatchEditor
        together = size > 1 and batch_editor.is_batchable_method(self.alg_name)
        chunks = [range(start, min(start + size, len(records))) for start in range(0, len(records), size)]
        apply = self.apply_algo
        self.apply_algo = recorder
        metrics: list[dict[str, Any]] = []
        try:
            for chunk in chunks if together else [range(len(records))]:
                arguments = self._arguments(
                    [records[i] for i in chunk], [written[i] for i in chunk], locality_inputs, chunk
                )
                measured = (
                    self._batch(arguments, len(chunk), verbose) if together else self._one_by_one(arguments, verbose)
                )
                metrics += [{**metric, "case_id": index} for index, metric in zip(chunk, measured, strict=True)]
        finally:
            self.apply_algo = apply
            if hasattr(self.hparams, "batch_size"):
                self.hparams.batch_size = batch_size
        return metrics

    def _arguments(
        self,
        records: Sequence[SecretRecord],
        written: Sequence[str],
        locality_inputs: Mapping[str, Mapping[str, Any]] | None,
        chunk: range,
    ) -> dict[str, Any]:
        """What the host's `edit` and `batch_edit` take, for some of the secrets."""
        arguments: dict[str, Any] = {
            "prompts": [record.prompt for record in records],
            "target_new": list(written),
            "ground_truth": [record.target for record in records],
            "forget": [record.target for record in records],
        }
        if load_host().generation == "main":
            arguments["loc_prompts"] = [_UNTOUCHED] * len(records)
        if all(record.subject for record in records):
            arguments["subject"] = [record.subject for record in records]
        if all(record.rewordings for record in records):
            arguments["rephrase_prompts"] = [record.rewordings[0] for record in records]
        if locality_inputs:
            arguments["locality_inputs"] = {
                key: {name: [values[i] for i in chunk] for name, values in columns.items()}
                for key, columns in locality_inputs.items()
            }
        return arguments

    def _one_by_one(self, arguments: dict[str, Any], verbose: bool) -> list[dict[str, Any]]:
        keeping = {"keep_original_weight": False} if load_host().generation == "release" else {"sequential_edit": True}
        metrics: list[dict[str, Any]] = self.edit(**arguments, **keeping, verbose=verbose)[0]
        return metrics

    def _batch(self, arguments: dict[str, Any], size: int, verbose: bool) -> list[dict[str, Any]]:
        self.hparams.batch_size = size
        if load_host().generation == "main":
            return list(self.batch_edit(**arguments, sequential_edit=True, verbose=verbose)[0])
        # The release measures "pre" when the edit is in place already, and knows locality by another name there.
        before = self._release_quality(arguments)
        locality = arguments.pop("locality_inputs", None)
        arguments.update(locality_prompts=locality, keep_original_weight=False, verbose=verbose)
        metrics = self.batch_edit(**arguments)[0]
        for metric, pre in zip(metrics, before, strict=True):
            metric["pre"] = pre
            for key in (metric["requested_rewrite"].get("locality") or {}) if locality else ():
                same = np.equal(pre["locality"][f"{key}_output"], metric["post"]["locality"][f"{key}_output"])
                metric["post"]["locality"][f"{key}_acc"] = [float(np.mean(same))]
        return list(metrics)

    @on_cpu
    def _release_quality(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The host's own evaluation of every request, on the model as it stands."""
        compute = load_host().module("evaluate").compute_edit_quality
        requests = self._prepare_requests(**arguments)
        return [
            compute(self.model, self.model_name, self.hparams, self.tok, request, self.hparams.device)
            for request in requests
        ]


def _unlearn_editor() -> type:
    """Returns the class `UnlearnEditor`, whose base is the `BaseEditor` of the host that is installed.

    Raises:
        HostError: When EasyEdit cannot be imported.
    """
    base: Any = load_host().module("editors.editor").BaseEditor

    class UnlearnEditor(Unlearning, base):  # type: ignore[misc]
        """EasyEdit's `BaseEditor` with `unlearn`."""

        def __init__(self, hparams: Any) -> None:
            """Registers our methods with the host, then loads the model as the host does."""
            register()
            super().__init__(hparams)

    UnlearnEditor.__module__ = __name__
    UnlearnEditor.__qualname__ = "UnlearnEditor"
    return UnlearnEditor


def __getattr__(name: str) -> Any:
    """Makes the class when it is first asked for, once."""
    if name != "UnlearnEditor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, _unlearn_editor())


def _records(
    prompts: Sequence[str],
    secrets: Sequence[str],
    subjects: Sequence[str] | None,
    rephrase_prompts: Sequence[str | tuple[str, ...]] | None,
) -> list[SecretRecord]:
    if isinstance(prompts, str) or isinstance(secrets, str):
        raise InputError("prompts and secrets must be lists of texts, one secret a prompt.")
    if not prompts:
        raise InputError("prompts is empty; give at least one, with its secret.")
    others = {"secrets": secrets, "subjects": subjects, "rephrase_prompts": rephrase_prompts}
    for name, values in others.items():
        if values is not None and len(values) != len(prompts):
            raise InputError(f"{name} has {len(values)} entries, prompts {len(prompts)}; give one for each prompt.")
    for index, subject in enumerate(subjects or ()):
        if subject not in prompts[index]:
            raise InputError(f"subjects: entry {index} does not stand in its prompt.")
    empty: Sequence[None] = [None] * len(prompts)
    return [
        SecretRecord(prompt, secret, subject, rephrase)
        for prompt, secret, subject, rephrase in zip(
            prompts, secrets, subjects or empty, rephrase_prompts or empty, strict=True
        )
    ]
