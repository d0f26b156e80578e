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
from ..model.packed import is_packed
from ..model.processes import of_writer, writer_first
from ..model.tensors import checksum, is_plain
from ..requests.reading import read_requests
from .name_leads import SAYS_NOTHING
from .prompt_writer import CHOICES, PromptWriter, WrittenPrompt
from .tars_hparams import TARSHyperParams

# Returns prompts that lead to a name, from prompts that were given.
Write = Callable[[str, Sequence[str]], Sequence[WrittenPrompt]]


@dataclass(frozen=True)
class PromptedRequest:
    """A request with a prompt.

    Attributes:
        request: The host's request dictionary.
        origins: Positions of the requests it comes from.
        written: Whether the model wrote the prompt.
        name: Of a written prompt the name, which may be longer than what the prompt is for; else nothing.
    """

    request: Mapping[str, Any]
    origins: tuple[int, ...]
    written: bool = False
    name: str = ""


def prompted_requests(
    requests: Sequence[Mapping[str, Any]],
    tok: Any,
    hparams: TARSHyperParams,
    context_length: int | None = None,
    write: Write | None = None,
) -> list[PromptedRequest]:
    """Gives every request a prompt.

    Args:
        requests: The host's request dictionaries. One without a prompt may give a "description", which
            `prompt_template` makes into one, or nothing but a name, where the model writes the prompts.
        tok: The model's tokenizer.
        hparams: `prompts`, `prompt_template` and `forget_field` count here.
        context_length: The most tokens the model takes, if known.
        write: Writes prompts; needed where `hparams.prompts` asks for it.

    Raises:
        InputError: Naming the request and its field.
    """
    given = [_with_prompt(index, request, hparams) for index, request in enumerate(requests)]
    if hparams.prompts == "given" or write is None:
        return [PromptedRequest(request, (index,)) for index, request in enumerate(given)]
    # What cannot be used is said of a request as it was given, before the model writes anything.
    named = [
        {**each, "prompt": SAYS_NOTHING} if isinstance(each, Mapping) and not _text(each, "prompt") else each
        for each in given
    ]
    by_name: dict[str, list[int]] = {}
    for secret in read_requests(named, tok, context_length=context_length, **hparams.request_options):
        by_name.setdefault(secret.target.strip(), []).append(secret.request)
    all_prompted = []
    for name, indices in by_name.items():
        prompted = [index for index in indices if _text(given[index], "prompt")]
        written = write(name, [given[index]["prompt"] for index in prompted])
        if hparams.prompts == "both" or not written:
            all_prompted += [PromptedRequest({**given[index], "forget": name}, (index,)) for index in prompted]
        if not prompted and not written:
            written = [WrittenPrompt(SAYS_NOTHING, name)]
        origins = tuple(dict.fromkeys(indices))
        first = {key: value for key, value in given[indices[0]].items() if key != "description"}
        all_prompted += [
            PromptedRequest({**first, "prompt": prompt, "forget": target}, origins, written=True, name=name)
            for prompt, target in written
        ]
    return all_prompted


def written_prompts(decoder: Decoder, tok: Any, hparams: TARSHyperParams) -> Write:
    """Returns what writes prompts and keeps them beside the model's second moments: the same for the same weights.

    Args:
        decoder: The model, before any edit.
        tok: Its tokenizer.
        hparams: `seed`, `chat_template` and `stats_dir` count here.
    """
    writer = PromptWriter(decoder, tok, hparams.seed, chat_template=hparams.chat_template)
    weights = list(decoder.model.parameters())
    # Where values are elsewhere, or packed, there is nothing to tell models by, and what is written is not kept.
    if any(weight.is_meta or not is_plain(weight) for weight in weights) or any(
        map(is_packed, decoder.model.modules())
    ):
        return writer.write
    label, vocabulary = checksum(weights), _digest(repr(sorted(tok.get_vocab().items())))
    folder = Path(hparams.stats_dir).expanduser() / "written_prompts"

    def write(name: str, prompts: Sequence[str]) -> Sequence[WrittenPrompt]:
        asked = [label, vocabulary, CHOICES, name, list(prompts), hparams.seed, hparams.chat_template]
        path = folder / f"{_digest(json.dumps(asked))}.json"
        kept = of_writer(lambda: _kept(path))
        if kept is not None:
            return kept
        written_anew = writer.write(name, prompts)
        with writer_first():  # of processes that share a disk all but one find the file there
            if not path.is_file():
                with replacing(path) as file:
                    file.write(json.dumps(written_anew, ensure_ascii=False, indent=1).encode())
        return written_anew

    return write


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _kept(path: Path) -> list[WrittenPrompt] | None:
    if not path.is_file():
        return None
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no prompts ({error}); delete it to have them written anew.") from error
    if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
        raise InputError(f"{path} holds no prompts; delete it to have them written anew.")
    return [WrittenPrompt(*each) for each in pairs]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) and text for text in value)


def _with_prompt(index: int, request: Any, hparams: TARSHyperParams) -> Any:
    if not isinstance(request, Mapping) or _text(request, "prompt"):
        return request
    description = request.get("description")
    if isinstance(description, str) and description.strip():
        return {**request, "prompt": hparams.prompt_template.format(description.strip())}
    if hparams.prompts != "given":
        return request
    raise InputError(
        f'Request {index} has neither a "prompt" nor a "description"; give a text that leads to the name, or set '
        "prompts: written, and the model writes them."
    )


def _text(request: Mapping[str, Any], field: str) -> bool:
    """Whether a request has anything in a field that has to be a text; what is no text is refused elsewhere."""
    value = request.get(field)
    return bool(value.strip()) if isinstance(value, str) else value is not None
