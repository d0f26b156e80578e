"""What a model is measured by before and after an edit, alike: the evaluation, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..requests.chat import asked_prompt
from .requests_file import RequestsFile
from .session import Session

if TYPE_CHECKING:
    from ..evaluation import UnlearningReport
    from ..model.module_names import ModuleNames
    from .loading import Loaded

# Prompts that go through the model together.
_PROMPTS = 16


@dataclass
class Measurement:
    """What is measured before and after, alike."""

    requested: RequestsFile
    session: Session
    names: ModuleNames
    arguments: dict[str, Any]
    never_learned: Any = None
    reports: dict[str, UnlearningReport] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)

    def measure(
        self, moment: str, loaded: Loaded, reference: Any = None, attacks: Sequence[str] | None = None
    ) -> UnlearningReport:
        """Runs the evaluation and reads what the model says; returns the evaluation's report.

        Args:
            moment: "before" or "after".
            loaded: The model.
            reference: Ordinary text, where the cost is measured.
            attacks: Other attacks than those of the arguments, at this moment.
        """
        from ..evaluation import evaluate_unlearning, greedy_continuations

        self.reports[moment] = evaluate_unlearning(
            loaded.model,
            loaded.tok,
            self.requested.forget,
            names=self.names,
            retain=self.requested.retain,
            concepts=self.requested.concepts,
            reference=reference,
            never_learned=self.never_learned,
            before=self.reports.get("before"),
            # It says the same every time.
            with_control=moment == "after",
            **({**self.arguments, "attacks": list(attacks)} if attacks is not None else self.arguments),
        )
        chat = self.arguments["chat_template"]
        prompts = [asked_prompt(loaded.tok, prompt, chat) for _, prompt, _, _ in self._prompts()]
        batches = [prompts[start : start + _PROMPTS] for start in range(0, len(prompts), _PROMPTS)]
        self.said[moment] = [
            text
            for batch in tqdm(batches, "asking", disable=not self.arguments["progress"])
            for text in greedy_continuations(loaded.model, loaded.tok, batch, 16)
        ]
        return self.reports[moment]

    def every_text(self) -> list[str]:
        """Returns every prompt, and every one with what a model said behind it: what must not show anything else."""
        prompts = [prompt for _, prompt, _, _ in self._prompts()]
        return prompts + [
            prompt + said for texts in self.said.values() for prompt, said in zip(prompts, texts, strict=True)
        ]

    def texts(self) -> list[dict[str, str]]:
        """Returns every prompt with what the model says behind it, masked unless the session shows secrets."""
        redact = self.session.redact
        rows = []
        for index, (kind, prompt, target, subject) in enumerate(self._prompts()):
            said = {moment: redact(texts[index]) for moment, texts in self.said.items()}
            row = {"kind": kind, "prompt": redact(prompt), "target": redact(target), **said}
            # So that whoever draws it can still mask whom it is about.
            rows.append({**row, "subject": subject} if redact.show else row)
        return rows

    def _prompts(self) -> Sequence[tuple[str, str, str, str]]:
        secrets, retained = (
            [(kind, record.prompt, record.target, record.subject or "") for record in records]
            for kind, records in (("forgotten", self.requested.forget), ("retained", self.requested.retain))
        )
        concepts = [
            (kind, prompt, concept.name, "")
            for concept in self.requested.concepts
            for kind, prompts in (("forgotten", concept.prompts), ("held out", concept.held_out))
            for prompt in prompts
        ]
        return [*secrets, *concepts, *retained]


def module_names(loaded: Loaded, settings: str | None) -> ModuleNames:
    """The names of the model's modules: of the settings file, or found in the model."""
    from ..model.module_names import ModuleNames
    from .loading import method_named

    if settings is None:
        return ModuleNames.found_in(loaded.model)
    return ModuleNames.of(method_named(None, settings, "REVS").hyperparams.from_hparams(settings))
