"""Which prompts a call has: those that were given, those that the model writes, or both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic_write import replacing
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.processes import of_writer, writer_first
from ..model.tensors import checksum
from ..requests.forgotten import forgotten_texts
from .prompt_writer import PromptWriter
from .tars_hparams import TARSHyperParams

# Returns prompts that lead to a name, from prompts that were given.
Write = Callable[[str, Sequence[str]], Sequence[str]]
# What a name alone is asked by where the model writes nothing that leads to it.
_NOTHING = "It was"


@dataclass(frozen=True)
class PromptedRequest:
    """A request with a prompt.

    Attributes:
        request: The host's request dictionary.
        origins: Positions of the requests it comes from.
        written: Whether the model wrote the prompt.
    """

    request: Mapping[str, Any]
    origins: tuple[int, ...]
    written: bool = False


def prompted_requests(
    requests: Sequence[Mapping[str, Any]], hparams: TARSHyperParams, write: Write | None = None
) -> list[PromptedRequest]:
    """Gives every request a prompt.

    Args:
        requests: The host's request dictionaries. One without a prompt may give a "description", which
            `prompt_template` makes into one, or nothing but a name, where the model writes the prompts.
        hparams: `prompts`, `prompt_template` and `forget_field` count here.
        write: Writes prompts; needed where `hparams.prompts` asks for it.

    Raises:
        InputError: Naming the request and its field.
    """
    given = [_with_prompt(index, request, hparams) for index, request in enumerate(requests)]
    if hparams.prompts == "given" or write is None:
        return [PromptedRequest(request, (index,)) for index, request in enumerate(given)]
    texts = forgotten_texts(given, hparams.forget_field)
    origins: dict[str, list[int]] = {}
    for index, names in enumerate(texts):
        for name in names:
            origins.setdefault(name.strip(), []).append(index)
    found = []
    for name, indices in origins.items():
        prompts = [given[index]["prompt"] for index in indices if given[index].get("prompt")]
        written = list(write(name, prompts))
        if hparams.prompts == "both" or not written:
            for index in indices:
                if given[index].get("prompt"):
                    found.append(PromptedRequest({**given[index], "forget": name}, (index,)))
        if not prompts and not written:
            written = [_NOTHING]
        first = {key: value for key, value in given[indices[0]].items() if key != "description"}
        found += [
            PromptedRequest({**first, "prompt": prompt, "forget": name}, tuple(indices), written=True)
            for prompt in written
        ]
    return found


def written_prompts(decoder: Decoder, tok: Any, hparams: TARSHyperParams) -> Write:
    """Returns what writes prompts and keeps them beside the model's second moments: the same for the same weights.

    Args:
        decoder: The model, before any edit.
        tok: Its tokenizer.
        hparams: `seed`, `chat_template` and `stats_dir` count here.
    """
    writer = PromptWriter(decoder, tok, hparams.seed, chat_template=hparams.chat_template)
    weights = [matrix.weight for ff2 in decoder.ff2.values() for matrix in ff2.matrices]
    # Without values there is nothing to tell models by.
    label = None if any(weight.is_meta for weight in weights) else checksum(weights)
    folder = Path(hparams.stats_dir).expanduser() / "written_prompts"

    def write(name: str, prompts: Sequence[str]) -> Sequence[str]:
        if label is None:
            return writer.write(name, prompts)
        asked = json.dumps([label, name, list(prompts), hparams.seed, hparams.chat_template])
        path = folder / f"{hashlib.blake2b(asked.encode(), digest_size=12).hexdigest()}.json"
        kept = of_writer(lambda: _kept(path))
        if kept is not None:
            return kept
        found = writer.write(name, prompts)
        with writer_first():  # of processes that share a disk all but one find the file there
            if not path.is_file():
                with replacing(path) as file:
                    file.write(json.dumps(found, ensure_ascii=False, indent=1).encode())
        return found

    return write


def _kept(path: Path) -> list[str] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no prompts ({error}); delete it to have them written anew.") from error
    if not isinstance(found, list) or not all(isinstance(prompt, str) and prompt for prompt in found):
        raise InputError(f"{path} holds no prompts; delete it to have them written anew.")
    return found


def _with_prompt(index: int, request: Any, hparams: TARSHyperParams) -> Any:
    if not isinstance(request, Mapping) or request.get("prompt"):
        return request
    description = request.get("description")
    if isinstance(description, str) and description.strip():
        return {**request, "prompt": hparams.prompt_template.format(description.strip())}
    if hparams.prompts != "given" and not request.get("prompt") and description is None:
        return request
    raise InputError(
        f'Request {index} has neither a "prompt" nor a "description"; give a text that leads to the name, or set '
        "prompts: written, and the model writes them."
    )
