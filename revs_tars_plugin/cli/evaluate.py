"""`evaluate`: is it gone under attack, and what did it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from ..errors import InputError, did_you_mean
from ..requests.chat import asked_prompt
from . import options
from .requests_file import RequestsFile, read_requests_file
from .session import Session, check_goals, print_json, print_table, session_of

if TYPE_CHECKING:
    from ..evaluation import UnlearningReport
    from ..model.module_names import ModuleNames
    from .loading import Loaded


# Prompts that go through the model together.
_PROMPTS = 16


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(evaluate)


def evaluate(
    *,
    context: typer.Context,
    file: options.Requests,
    model: options.Model,
    edits: Annotated[
        list[Path],
        typer.Option("--edit", "-e", metavar="EDIT", help="A saved edit: the model is measured without and with it."),
    ] = [],
    base: Annotated[
        str | None, typer.Option(help="The model before an edit that --model has in it already; measured first.")
    ] = None,
    never_learned: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model that never learned the secrets, such as the one that was fine-tuned: whatever is near its "
            "figures is forgotten, not hidden. It is measured as well, which takes as long again.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="JSON", help="The whole result, for revs-tars report.")
    ] = None,
    attack: Annotated[
        list[str],
        typer.Option(
            help="Only these attacks, each by an option of its own; all but relearning and enumeration, which are slow."
        ),
    ] = [],
    k: Annotated[int, typer.Option(help="From how many places on a token counts as hidden.")] = 100,
    tokens: Annotated[str, typer.Option(help="Which tokens of a secret count: all, or the two rarest.")] = "all",
    samples: Annotated[int, typer.Option(help="Sampled continuations for each secret.")] = 20,
    settings: options.Settings = None,
    text: options.Text = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    seed: options.Seed = None,
    chat: options.Chat = False,
    require: options.Require = [],
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    show_secrets: options.ShowSecrets = False,
    debug: options.Debug = False,
    secret: options.Secret = None,
) -> None:
    """Measure how well a model hides what FILE says, under attack, and what is left of the rest.

    Lines with retain are what must still be there. With --edit or --base the cost on ordinary text is measured too.
    Every figure in the table can be a goal for --require, which looks at the column "after"; with --never-learned what
    it is over that model's as well, as in "exposure, top, over never learned<=0.5".

    Example: revs-tars evaluate secrets.csv --model ./my-model --edit edit.safetensors -o result.json
    """
    session = session_of(context)
    if output is not None:
        output = options.free(output, overwrite, file, *edits)
    if edits and base is not None:
        raise InputError("--edit and --base are two ways to say what changed; leave one out.")
    requested = read_requests_file(file, session)
    from ..edits.edit_set import EditSet
    from ..evaluation import ATTACKS, DEFAULT_ATTACKS
    from ..evaluation.metrics import DIRECTIONS
    from ..report.results import edit_content, result, write_result
    from .loading import load_model, ordinary_chunks

    needs = {"guidance": never_learned, "merging": never_learned, "in-context": requested.retain}
    needed = {"in-context": "lines with retain"}
    for name in attack:
        if name in needs and not needs[name]:
            raise InputError(f"--attack {name} needs {needed.get(name, '--never-learned MODEL')}.")
        if name not in ATTACKS:
            raise InputError(f'--attack is "{name}"; it must be of {", ".join(ATTACKS)}{did_you_mean(name, ATTACKS)}')
    applied = [EditSet.load(edit) for edit in edits]
    chat = chat or any(edit.settings.get("chat_template") for edit in applied)
    first = load_model(base or model, device, dtype, progress=not quiet)
    asking = _Measurement(
        requested,
        session,
        _names(first, settings),
        {
            "attacks": attack or DEFAULT_ATTACKS,
            "k": k,
            "positions": tokens,
            "n_samples": samples,
            "seed": seed or 0,
            "chat_template": chat,
            "progress": not quiet,
        },
        None if never_learned is None else load_model(never_learned, device, dtype, progress=not quiet).model,
    )
    if not applied and base is None:
        asking.measure("after", first)
    else:
        from ..evaluation import OrdinaryText

        chunks = ordinary_chunks(first, text, seed or 0, progress=not quiet)
        reference = OrdinaryText.of(first.model, first.tok, chunks)
        asking.measure("before", first, reference)
        if base is not None:
            del first  # one model at a time in memory
            first = load_model(model, device, dtype, progress=not quiet)
        for edit in applied:
            edit.apply_beside(first.model)
        asking.measure("after", first, reference)
    figures = asking.reports["after"].summary
    control = asking.reports["after"].controls.get("never learned", {})
    reports = {moment: report.to_dict() for moment, report in asking.reports.items()}
    content = result(
        "evaluation",
        {
            "model": Path(first.name).name,
            "edits": [edit_content(edit) for edit in applied],
            "texts": asking.texts(),
            **reports,
        },
        redacted=not show_secrets,
    )
    if output is not None:
        write_result(output, content)
    if json:
        print_json(reports)
    else:
        before = asking.reports.get("before")
        rows = [
            {
                "figure": name,
                **({"before": before.summary.get(name)} if before else {}),
                "after": value,
                **({"never learned": control.get(name)} if control else {}),
                "better": DIRECTIONS[name],
            }
            for name, value in figures.items()
        ]
        print_table(f"{len(requested.forget or requested.concepts)} to forget, k = {k}", rows)
        if output is not None:
            typer.echo(f"The result: {output}; revs-tars report {output} -o report.html draws it.")
    over = {f"{name}, over never learned": figures[name] - value for name, value in control.items() if name in figures}
    check_goals(require, options.as_goals({**figures, **over}))


@dataclass
class _Measurement:
    """What is measured before and after, alike."""

    requested: RequestsFile
    session: Session
    names: ModuleNames
    arguments: dict[str, Any]
    never_learned: Any = None
    reports: dict[str, UnlearningReport] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)

    def measure(self, moment: str, loaded: Loaded, reference: Any = None) -> None:
        """Runs the evaluation and reads what the model says."""
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
            **self.arguments,
        )
        chat = self.arguments["chat_template"]
        prompts = [asked_prompt(loaded.tok, prompt, chat) for _, prompt, _, _ in self._prompts()]
        batches = [prompts[start : start + _PROMPTS] for start in range(0, len(prompts), _PROMPTS)]
        self.said[moment] = [
            text
            for batch in tqdm(batches, "asking", disable=not self.arguments["progress"])
            for text in greedy_continuations(loaded.model, loaded.tok, batch, 16)
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


def _names(loaded: Loaded, settings: str | None) -> ModuleNames:
    """The names of the model's modules: of the settings file, or found in the model."""
    from ..model.module_names import ModuleNames
    from .loading import method_named

    if settings is None:
        return ModuleNames.found_in(loaded.model)
    return ModuleNames.of(method_named(None, settings, "REVS").hyperparams.from_hparams(settings))
