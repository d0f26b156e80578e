"""The stages of `clean`: edits, one after the other, and the folder that keeps what each stage came to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
    from .loading import Loaded
    from .measurement import Measurement

# Prompts that one secret is edited behind when it still comes out.
_PROMPTS = 3


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

    def free(self, *, overwrite: bool, inputs: Sequence[str | Path | None]) -> CleaningFolder:
        """Makes the folder, or takes the one that a run under the same conditions left.

        Raises:
            InputError: When something else stands there, or it is one of the inputs.
        """
        state = self.folder / "clean.json"
        try:
            known = json.loads(state.read_text(encoding="utf-8")).get("conditions") if state.is_file() else None
        except (OSError, ValueError, AttributeError):
            known = None
        if known != self.conditions:
            options.free(self.folder, overwrite, *inputs)
            for file in (self.secrets, *self.folder.glob("edit-*.safetensors"), self.folder / "result.json"):
                file.unlink(missing_ok=True)
        try:
            with replacing(state) as opened:
                opened.write(json.dumps({"conditions": self.conditions}).encode())
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be written ({error.strerror or error}); name another folder."
            ) from error
        return self

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
        places = {"secrets": self.secrets, "edits": self.edit(1), "result": self.folder / "result.json"}
        write_result(places["result"], content)
        if edits:
            places["model"] = self.folder / "model"
            save_model(loaded, places["model"])
            figures = {moment: report.summary for moment, report in measurement.reports.items()}
            card = model_card(edits[-1], base_model=Path(loaded.name).name, kind="merged model", **figures)
            write_card(places["model"], card)
        else:
            del places["edits"]
        try:
            write_report([content], self.folder / "report.html", show_secrets=show_secrets)
            places["report"] = self.folder / "report.html"
        except InputError as error:  # without its libraries everything else is there
            places["report"] = Path(str(error))
        return {name: str(place) for name, place in places.items()}


@dataclass
class Cleaning:
    """Edits of one model until nothing comes out.

    Attributes:
        loaded: The model; each edit is left in it.
        findings: What it gave away at first.
        siblings: Texts that an edit is shown so that it leaves them alone.
        folder: Where edits are kept, and taken from.
        edits: Those that are in the model.
        left: What it still gives away.
    """

    loaded: Loaded
    findings: Sequence[Finding]
    siblings: Sequence[str]
    folder: CleaningFolder
    edits: list[EditSet] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)

    @classmethod
    def of(
        cls, loaded: Loaded, findings: Sequence[Finding], siblings: Sequence[str], folder: CleaningFolder
    ) -> Cleaning:
        """Prepares them.

        Raises:
            InputError: When the model's weights are packed: no edited model could be written.
        """
        from ..model.packed import any_packed
        from .measurement import module_names

        if any_packed(loaded.model, module_names(loaded, None).rewrite_module_tmp):
            raise InputError(
                f"The feed-forward matrices of {loaded.name} are packed; find its secrets with revs-tars find, then "
                "revs-tars edit --adapter."
            )
        return cls(loaded, findings, siblings, folder, left=list(findings))

    def hparams(self, settings: str | None, changes: Sequence[str], seed: int | None, text: str | None) -> Any:
        """Returns REVS's settings for this model."""
        from .loading import method_named, settings_for

        method = method_named("REVS" if settings is None else None, settings, "REVS")
        if method.name != "REVS":
            raise InputError(f"clean edits with REVS; {settings} is of {method.name}.")
        return settings_for(method, self.loaded, settings, changes=changes, seed=seed, text=text)

    def rounds(self, hparams: Any, most: int, *, progress: bool) -> Iterator[int]:
        """Edits what is left, again and again, and yields after each edit how many still come out.

        Args:
            hparams: REVS's settings.
            most: How many edits at most.
            progress: Show progress bars.
        """
        from ..discovery import still_extractable
        from ..edits.edit_set import EditSet
        from ..methods import method_of
        from ..model.decoder import Decoder
        from ..moments.second_moments import ordinary_moments

        execute = method_of("REVS").execute
        assert execute is not None
        for number in range(1, most + 1):
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
                edits = execute(self.loaded.model, self.loaded.tok, requests, hparams, progress=progress)
                if not edits.edits:
                    return
                edits.save(file)
            edits.apply(self.loaded.model)
            self.edits.append(edits)
            self.left = still_extractable(self.loaded.model, self.loaded.tok, self.findings)
            yield len(self.left)
            if not self.left:
                return

    def _requests(self, *, every_prompt: bool) -> list[dict[str, Any]]:
        records = [
            SecretRecord(prompt, finding.target, finding.subject)
            for finding in self.left
            for prompt in finding.prompts[: _PROMPTS if every_prompt else 1]
        ]
        return [dict(record.request()) for record in records]
