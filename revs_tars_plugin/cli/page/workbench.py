"""What the page can do: one model in memory, an edit that is in it or not, and what was measured of both."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...report.redaction import Redactor, masked_texts, redactor_of
from .. import options
from ..loading import Loaded, load_model, method_named, ordinary_text, settings_for
from ..measurement import Measurement, module_names
from ..requests_file import RequestsFile
from ..session import Session
from .entries import MOST_CHARACTERS

if TYPE_CHECKING:
    from ...edits.edit_set import EditSet
    from ...evaluation import OrdinaryText

# Quick ones: what they find is drawn at once. The others are a command's.
_ATTACKS = ("exposure", "logit lens")
_NAME = re.compile(r"\w[\w.-]{0,63}")
_SAID_TOKENS = 24


@dataclass
class Workbench:
    """The model with what is asked of it.

    Attributes:
        folder: Where what is kept is written to.
        device: A torch device; None takes the accelerator, else the CPU.
        dtype: As `load_model` takes it.
        settings: Settings, a file or a packaged name; None takes those measured best.
        text: Ordinary text to compare with; None lets the model write it.
        asked: What must be forgotten.
        loaded: The model; None where none was loaded yet.
        edits: The edit of the list; None where there is none, or the list changed.
        inside: Whether it is in the model.
        measured: What was found before and after it, texts and all.
        said: What the model said last where it was asked, without and with the edit.
    """

    folder: Path
    device: str | None = None
    dtype: str = "auto"
    settings: str | None = None
    text: str | None = None
    asked: RequestsFile = field(default_factory=RequestsFile)
    loaded: Loaded | None = None
    edits: EditSet | None = None
    inside: bool = False
    measured: dict[str, Any] | None = None
    said: dict[str, str] = field(default_factory=dict)
    _ever_asked: list[RequestsFile] = field(default_factory=list)
    _ordinary: OrdinaryText | None = None

    def load(self, name: str) -> str:
        """Loads a model in place of the one that is there, without its edit; returns what it is.

        Raises:
            InputError: When it cannot be loaded; the one that is there stays.
        """
        name = name.strip()
        if not name or len(name) > MOST_CHARACTERS:
            raise InputError('"Model" must be a checkpoint folder, a hub id, or demo.')
        loaded = load_model(name, self.device, self.dtype, progress=False)
        module_names(loaded, self.settings)  # refuses a model whose layers nobody knows
        self.loaded, self._ordinary = loaded, None
        self.inside = False
        self._drop()
        model = loaded.model
        weight = model.get_input_embeddings().weight
        return (
            f"{Path(loaded.name).name}: {sum(each.numel() for each in model.parameters()):,} weights, "
            f"{len(loaded.tok):,} tokens, {str(weight.dtype).removeprefix('torch.')} on {weight.device}."
        )

    def ask_for(self, asked: RequestsFile) -> None:
        """Takes a list of what must be forgotten; an edit of an earlier list leaves the model."""
        self._take_out()
        self._drop()
        self.asked = asked
        self._ever_asked.append(asked)

    def forget(self, progress: bool = True) -> None:
        """Computes an edit for the list, puts it into the model, and measures both.

        Raises:
            InputError: When no model is loaded, nothing is asked for, or it cannot be forgotten; the model is as it was
                before.
        """
        from ...report.results import edit_content, result

        loaded, asked = self._model(), self.asked
        if not (asked.forget or asked.concepts):
            raise InputError("Nothing is on the list; add what must be forgotten.")
        self._take_out()
        self._drop()
        method = method_named(None, self.settings, "TARS" if asked.concepts else "REVS")
        hparams = settings_for(method, loaded, self.settings, text=self.text)
        protect = hparams.spares_retained_texts
        requests = asked.requests_of_call(loaded.tok, protect=protect, chat=hparams.chat_template)
        assert method.execute is not None
        edits = method.execute(loaded.model, loaded.tok, requests, hparams, progress=progress)
        session = Session()
        session.redact = Redactor(show=True)  # masked when it is drawn
        arguments = {"attacks": _ATTACKS, "chat_template": hparams.chat_template, "progress": progress}
        measurement = Measurement(asked, session, module_names(loaded, self.settings), arguments)
        if self._ordinary is None:
            self._ordinary = ordinary_text(loaded, self.text, 0, progress=progress)
        measurement.measure("before", loaded, self._ordinary)
        self.edits = edits
        try:
            self.switch(True)
            measurement.measure("after", loaded, self._ordinary)
        except BaseException:
            self._take_out()
            self.edits = None
            raise
        reports = {moment: report.to_dict() for moment, report in measurement.reports.items()}
        content = {"model": Path(loaded.name).name, "edits": [edit_content(edits)], "texts": measurement.texts()}
        self.measured = result("evaluation", {**content, **reports}, redacted=False)

    def switch(self, on: bool) -> None:
        """Puts the edit into the model, or takes it out, bit for bit.

        Raises:
            InputError: When there is none.
        """
        if self.edits is None:
            raise InputError("There is no edit yet; press Forget first.")
        if on and not self.inside and self.edits.edits:
            self.edits.apply_beside(self._model().model)
            self.inside = True
        elif not on:
            self._take_out()

    def say(self, prompt: str) -> None:
        """Lets the model go on without and with the edit; the switch is left as it stands.

        Raises:
            InputError: When no model is loaded, or the prompt is empty or too long.
        """
        loaded = self._model()
        if not prompt.strip() or len(prompt) > MOST_CHARACTERS:
            raise InputError(f'"Prompt" must have 1 to {MOST_CHARACTERS:,} characters.')
        if self.edits is None:
            self.said = {"without the edit": self._said(loaded, prompt)}
            return
        stood = self.inside
        said = {}
        try:
            for on, name in ((False, "without the edit"), (True, "with the edit")):
                self.switch(on)
                said[name] = self._said(loaded, prompt)
        finally:
            self.switch(stood)
        self.said = said

    def save(self, name: str) -> list[Path]:
        """Writes the edit, what was measured, and the report, into the folder, under one name.

        Raises:
            InputError: When there is no edit, the name is none, or one of the files is there already.
        """
        from ...report import write_report
        from ...report.results import write_result

        if self.edits is None or self.measured is None:
            raise InputError("There is no edit yet; press Forget first.")
        if not _NAME.fullmatch(name.strip()):
            raise InputError(
                '"Name" may have letters, digits, dots, dashes and underscores, 64 at most, and no folder.'
            )
        files = [self.folder / f"{name.strip()}{ending}" for ending in (".safetensors", ".json", ".html")]
        for file in files:
            options.free(file, overwrite=False)
        # Whom a row is about is kept where it is shown alone.
        rows = [{key: value for key, value in row.items() if key != "subject"} for row in self.measured["texts"]]
        masked = {**self.measured, "texts": masked_texts(rows, self.redactor(show=False)), "redacted": True}
        self.edits.save(files[0])
        write_result(files[1], masked)
        write_report([masked], files[2])
        return files

    def redactor(self, *, show: bool) -> Redactor:
        """Returns what masks everything that is on the list, or ever was."""
        lists = self._ever_asked
        secrets = [record for asked in lists for record in (*asked.forget, *asked.retain)]
        return redactor_of(secrets, [concept for asked in lists for concept in asked.concepts], show=show)

    def _said(self, loaded: Loaded, prompt: str) -> str:
        from ...evaluation import greedy_continuations

        return greedy_continuations(loaded.model, loaded.tok, [prompt], _SAID_TOKENS)[0]

    def _model(self) -> Loaded:
        if self.loaded is None:
            raise InputError("No model is loaded; name one and press Load.")
        return self.loaded

    def _drop(self) -> None:
        """Forgets the edit, and what was seen of it."""
        self.edits, self.measured, self.said = None, None, {}

    def _take_out(self) -> None:
        if self.inside:
            assert self.edits is not None
            self.edits.undo(self._model().model)
            self.inside = False
