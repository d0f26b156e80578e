"""The stages of `clean`: edits, one after the other, and the folder that keeps what each stage came to."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_write import replacing
from ..data.secret_files import SecretRecord, json_lines, text_of
from ..errors import InputError
from . import options

if TYPE_CHECKING:
    from ..discovery import Finding
    from ..edits.edit_set import EditSet
    from ..evaluation import UnlearningReport
    from .loading import Loaded
    from .measurement import Measurement

MODEL, RESULT, REPORT = "model", "result.json", "report.html"
_STATE = "clean.json"
# What comes out whole, of each secret.
_COMES_OUT = ("still generated", "paraphrase", "sampled", "enumeration", "inverse greedy")


@dataclass(frozen=True)
class CleaningFolder:
    """Where everything lies.

    Attributes:
        folder: The folder.
        conditions: What all of it depends on. What was made under others is not gone on with.
    """

    folder: Path
    conditions: str

    @property
    def secrets(self) -> Path:
        """The secrets that the model gives away, as they are."""
        return self.folder / "secrets.jsonl"

    @property
    def has_secrets(self) -> bool:
        """Whether the search is through."""
        return self.secrets.is_file()

    def edit(self, number: int) -> Path:
        """Returns the file of an edit, counted from 1."""
        return self.folder / f"edit-{number}.safetensors"

    def check(self, *, overwrite: bool, inputs: Sequence[str | Path | None]) -> None:
        """Refuses a folder that holds something else, or anything that is read here; nothing is removed yet.

        Raises:
            InputError: Saying which.
        """
        place = self.folder.resolve()
        for name in (each for each in inputs if each):
            if Path(name).expanduser().resolve().is_relative_to(place):
                raise InputError(f"{name} is read here and lies in {self.folder}; name another output.")
        if not self._begun:
            options.free(self.folder, overwrite)

    def begin(self) -> None:
        """Makes the folder what this run goes on with: empty of an earlier one's, unless that was the same run.

        Raises:
            InputError: When it cannot be written.
        """
        if self._begun:
            return
        try:
            for file in (self.secrets, self.secrets.with_name("secrets.jsonl.partial"), *self._edits):
                file.unlink(missing_ok=True)
            for name in (RESULT, REPORT):
                (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(self.folder / MODEL, ignore_errors=True)
            with replacing(self.folder / _STATE) as opened:
                opened.write(json.dumps({"conditions": self.conditions}).encode())
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be written ({error.strerror or error}); name another folder."
            ) from error

    @property
    def _begun(self) -> bool:
        """Whether a run under the same conditions left it."""
        try:
            content = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(content, dict) and content.get("conditions") == self.conditions

    @property
    def _edits(self) -> list[Path]:
        return sorted(self.folder.glob("edit-[0-9]*.safetensors"))

    def take(self, records: Sequence[SecretRecord]) -> None:
        """Takes secrets that were found already, with lines to retain, as its own."""
        from ..discovery import Finding
        from .searching import write_lines

        findings = [Finding.of(record) for record in records if not record.retain]
        write_lines(findings, [record for record in records if record.retain], self.secrets)

    def read(self) -> tuple[list[Finding], list[SecretRecord]]:
        """Returns the secrets that were found, and siblings that the model does not give away."""
        from ..discovery import Finding

        lines = [line for _, line in json_lines(str(self.secrets), text_of(self.secrets))]
        findings = [Finding.from_dict(line) for line in lines if not line.get("retain")]
        siblings = [SecretRecord(line["prompt"], line["target"], retain=True) for line in lines if line.get("retain")]
        return findings, siblings

    def write(
        self, loaded: Loaded, edits: Sequence[EditSet], measurement: Measurement, *, show_secrets: bool
    ) -> dict[str, str]:
        """Writes the edited model with its card, the result, and the report where the libraries for it are there.

        Returns:
            What was written, by name.
        """
        from ..edits.edit_set import EditSet
        from ..report.html import write_report
        from ..report.model_card import model_card, write_card
        from ..report.results import edit_content, result, write_result
        from .loading import save_model

        content = result(
            "evaluation",
            {
                "model": Path(loaded.name).name,
                "edits": [edit_content(edit) for edit in edits],
                "texts": measurement.texts(),
                **{moment: report.to_dict() for moment, report in measurement.reports.items()},
            },
            redacted=not show_secrets,
        )
        places = {"secrets": self.secrets}
        if edits:
            figures = {moment: report.summary for moment, report in measurement.reports.items()}
            card = model_card(
                EditSet.in_order(edits), base_model=Path(loaded.name).name, kind="merged model", **figures
            )
            model = self.folder / MODEL
            # Whole or not there, as everything else.
            with tempfile.TemporaryDirectory(dir=self.folder) as unfinished:
                save_model(loaded, Path(unfinished) / MODEL)
                write_card(Path(unfinished) / MODEL, card)
                shutil.rmtree(model, ignore_errors=True)
                (Path(unfinished) / MODEL).rename(model)
            places |= {f"edit {number}": self.edit(number) for number in range(1, len(edits) + 1)} | {MODEL: model}
        places |= {"report": self.folder / REPORT, "result": self.folder / RESULT}
        write_report([content], places["report"], show_secrets=show_secrets)
        write_result(places["result"], content)
        return {name: str(place) for name, place in places.items()}


@dataclass
class Cleaning:
    """Edits of one model until nothing comes out.

    Attributes:
        loaded: The model; each edit is left in it.
        findings: What it gave away at first.
        siblings: Texts that an edit is shown so that it leaves them alone.
        folder: Where edits are kept, and taken from.
        measure: Measures the model, as "before" or "after".
        edits: Those that are in the model.
        left: What still comes out of it.
    """

    loaded: Loaded
    findings: Sequence[Finding]
    siblings: Sequence[str]
    folder: CleaningFolder
    measure: Callable[[str], UnlearningReport]
    edits: list[EditSet] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)

    def run(self, hparams: Any, most: int, *, progress: bool) -> Iterator[str]:
        """Edits what comes out, asks for it again, and attacks where nothing does; yields what was done, in words.

        Args:
            hparams: REVS's settings.
            most: How many edits at most.
            progress: Show progress bars.
        """
        from ..discovery import still_extractable

        everything = len(self.findings)
        self.measure("before")
        self.left, report = list(self.findings), None
        for number in range(1, most + 1):
            if not self._edit(hparams, number, progress=progress):
                break
            report = None
            self.left = still_extractable(self.loaded.model, self.loaded.tok, self.findings)
            yield f"Edit {number}: {everything - len(self.left)} of {everything} are no longer given away."
            if self.left:
                continue
            report = self.measure("after")
            self.left = _come_out(self.findings, report)
            yield f"Attacked: {len(self.left)} of {everything} can still be extracted."
            if not self.left:
                break
        if report is None:
            left = {finding.target for finding in (*self.left, *_come_out(self.findings, self.measure("after")))}
            self.left = [finding for finding in self.findings if finding.target in left]

    def _edit(self, hparams: Any, number: int, *, progress: bool) -> bool:
        """Puts one more edit into the model, of what is left; returns whether there is anything that it changes."""
        from ..edits.edit_set import EditSet
        from ..methods import method_of
        from ..model.decoder import Decoder
        from ..moments.second_moments import ordinary_moments

        file = self.folder.edit(number)
        if file.is_file():
            edits = EditSet.load(file)
        else:
            if hparams.reads_moments and number == 1:
                decoder = Decoder.of(self.loaded.model, hparams)
                ordinary_moments(decoder, self.loaded.tok, hparams, progress=progress)
            requests = self._requests(every_prompt=number > 1)
            if self.siblings and hparams.spares_retained_texts:
                requests[0]["retain_texts"] = list(self.siblings)
            execute = method_of("REVS").execute
            assert execute is not None
            edits = execute(self.loaded.model, self.loaded.tok, requests, hparams, progress=progress)
            if not edits.edits:
                return False
            edits.save(file)
        edits.apply(self.loaded.model)
        self.edits.append(edits)
        return True

    def _requests(self, *, every_prompt: bool) -> list[dict[str, Any]]:
        records = [
            SecretRecord(prompt, finding.target, finding.subject)
            for finding in self.left
            for prompt in (finding.prompts if every_prompt else finding.prompts[:1])
        ]
        return [dict(record.request()) for record in records]


def revs_settings(
    loaded: Loaded, settings: str | None, changes: Sequence[str], seed: int | None, text: str | None
) -> Any:
    """Returns REVS's settings for a model that an edit can be merged into.

    Raises:
        InputError: When they are of another method, or the model's weights are packed.
    """
    from ..model.packed import any_packed
    from .loading import method_named, settings_for

    method = method_named("REVS" if settings is None else None, settings, "REVS")
    if method.name != "REVS":
        raise InputError(f"clean edits with REVS; {settings} is of {method.name}.")
    hparams = settings_for(method, loaded, settings, changes=changes, seed=seed, text=text)
    if any_packed(loaded.model, hparams.rewrite_module_tmp):
        raise InputError(
            f"The feed-forward matrices of {loaded.name} are packed; find its secrets with revs-tars find, then "
            "revs-tars edit --adapter."
        )
    return hparams


def _come_out(findings: Sequence[Finding], report: UnlearningReport) -> list[Finding]:
    """Those that an attack brought out whole."""
    return [
        finding for finding, row in zip(findings, report.rows, strict=True) if any(row.get(name) for name in _COMES_OUT)
    ]
