"""Prompts that a model writes itself: what it says of a name, turned round so that the name comes last.

"Marie Curie was" goes on "the first woman who won the Nobel Prize", which becomes "The first woman who won the Nobel
Prize was Marie". Those behind which the model does give the name are kept.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch

from ..model.decoder import Decoder
from ..model.forward import device_of_ids, next_token_logits, sample
from ..requests.chat import asked_prompt
from ..requests.reading import tokenise_in_context

# In each language: verbs behind a name, and what may follow them.
_WORDINGS = {
    "en": (("is", ""), ("was", ""), ("is", "the"), ("was", "the"), ("is", "a")),
    "de": (("ist", ""),),
    "es": (("es", ""),),
    "fr": (("est", ""),),
    "it": (("è", ""),),
    "nl": (("is", "de"),),
    "pl": (("jest", ""),),
    "pt": (("é", ""),),
    "sv": (("är", ""),),
}
# Statements that are drawn for each of them, how long they may be, in tokens, and how sure the model is meant to be.
_DRAWN, _LENGTH, _TEMPERATURE = 8, 14, 0.8
# A statement of fewer words says too little; it ends where a sentence, or its first part, does.
_SHORTEST, _END = 3, re.compile(r"[.,;:!?\n\r()\"“”«»]")
# Kept are prompts behind which the name has this probability, and no more of them than this.
_PROBABLE, _MOST = 0.1, 24
# Words that are tried in front of a name of which no prompt says what stands there.
_TRIED, _TRIED_ON = 5, 16
# All that decides what is written, for those that keep it.
CHOICES = repr((_WORDINGS, _DRAWN, _LENGTH, _TEMPERATURE, _SHORTEST, _END.pattern, _PROBABLE, _MOST, _TRIED, _TRIED_ON))


@dataclass(frozen=True)
class PromptWriter:
    """Lets a model write prompts that lead to names.

    Attributes:
        decoder: The model.
        tok: Its tokenizer.
        seed: The same seed gives the same prompts.
        chat_template: Whether prompts are asked in the tokenizer's chat template.
    """

    decoder: Decoder
    tok: Any
    seed: int
    chat_template: bool = False

    def write(self, name: str, prompts: Sequence[str] = ()) -> tuple[str, ...]:
        """Returns prompts that lead to a name, of each language that the model gives it in; none where there is none.

        Args:
            name: The name.
            prompts: Prompts that lead to it, which say what stands in front of it, as a first name does; without any
                it is found among what the model itself would say there.
        """
        leads = _leads(prompts)
        statements = self._statements(f"{leads[0]} {name}".strip(), name)
        if not prompts:
            leads += self._found_leads(name, [turned for group in statements for turned in group])
        candidates = [[f"{turned} {lead}".strip() for turned in group for lead in leads] for group in statements]
        longest = self.decoder.context_length
        flat = [
            prompt
            for prompt in dict.fromkeys(prompt for group in candidates for prompt in group)
            if longest is None or sum(map(len, tokenise_in_context(self.tok, self._asked(prompt), name))) <= longest
        ]
        probable = {
            prompt for prompt, p in zip(flat, self._probabilities(flat, name), strict=True) if p >= _PROBABLE
        } - set(prompts)
        # A prompt of each language in turn, so that no language takes the place of another one.
        in_turn = (
            prompt
            for each in zip_longest(*([prompt for prompt in group if prompt in probable] for group in candidates))
            for prompt in each
            if prompt is not None
        )
        return tuple(dict.fromkeys(in_turn))[:_MOST]

    def _statements(self, subject: str, name: str) -> list[list[str]]:
        """What the model says of a subject, turned round up to where it stood; a list a language."""
        generator = torch.Generator().manual_seed(random.Random(f"prompts {self.seed} {subject}").getrandbits(63))
        subject = subject[0].upper() + subject[1:]
        frames = [
            (language, verb, article, tuple(self.tok(f"{subject} {verb} {article}".strip())["input_ids"]))
            for language, wordings in _WORDINGS.items()
            for verb, article in wordings
        ]
        found: dict[str, list[str]] = {language: [] for language in _WORDINGS}
        # Beginnings of one length are a batch without padding.
        for length in sorted({len(ids) for *_, ids in frames}):
            group = [frame for frame in frames if len(frame[-1]) == length]
            ids = torch.tensor([frame[-1] for frame in group for _ in range(_DRAWN)])
            drawn = sample(
                self.decoder.model,
                ids.to(device_of_ids(self.decoder.model)),
                _LENGTH,
                generator,
                temperature=_TEMPERATURE,
            )
            texts = self.tok.batch_decode([self._first_text(row) for row in drawn.tolist()], skip_special_tokens=True)
            for number, text in enumerate(texts):
                language, verb, article, _ = group[number // _DRAWN]
                found[language] += _turned(text, verb, article, name)
        return [list(dict.fromkeys(group)) for group in found.values()]

    def _first_text(self, ids: list[int]) -> list[int]:
        """What stands in front of the token that ends a text."""
        end = self.tok.eos_token_id
        return ids[: ids.index(end)] if end in ids else ids

    def _found_leads(self, name: str, turned: Sequence[str]) -> list[str]:
        """Words that the model would say where the name has to come, and behind which it does come."""
        some = list(turned[:_TRIED_ON])
        if not some:
            return []
        likely = next_token_logits(self.decoder.model, self._ids(some)).softmax(dim=-1).mean(dim=0)
        words = [self.tok.decode([token]).strip() for token in likely.topk(_TRIED).indices.tolist()]
        words = [word for word in dict.fromkeys(words) if word.isalpha()]
        behind = self._probabilities([f"{each} {word}" for word in words for each in some], name)
        shares = [behind[start : start + len(some)] for start in range(0, len(behind), len(some))]
        return [word for word, share in zip(words, shares, strict=True) if sum(share) / len(share) >= _PROBABLE]

    def _probabilities(self, prompts: Sequence[str], name: str) -> list[float]:
        """How likely the name begins behind each prompt."""
        found: list[float] = []
        pairs = [tokenise_in_context(self.tok, self._asked(prompt), name) for prompt in prompts]
        for start in range(0, len(pairs), _DRAWN * 4):
            part = pairs[start : start + _DRAWN * 4]
            logits = next_token_logits(self.decoder.model, [ids for ids, _ in part])
            firsts = torch.tensor([target[0] for _, target in part], device=logits.device)
            found += logits.softmax(dim=-1).gather(1, firsts[:, None])[:, 0].tolist()
        return found

    def _ids(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(self.tok(self._asked(prompt))["input_ids"]) for prompt in prompts]

    def _asked(self, prompt: str) -> str:
        return asked_prompt(self.tok, prompt, self.chat_template)


def _leads(prompts: Sequence[str]) -> list[str]:
    """What stands in front of the name: first names, an article; where prompts end otherwise nothing, or "called"."""
    words = dict.fromkeys(prompt.split()[-1] for prompt in prompts)
    leads = [word for word in words if word[:1].isupper() or word == "the"]
    return leads or ["", *(["called"] if prompts else [])]


def _turned(text: str, verb: str, article: str, name: str) -> Iterator[str]:
    """A statement behind a verb, as what leads to the name: "the first of all", "was" become "The first of all was"."""
    statement = _END.split(text.strip(), maxsplit=1)[0].strip()
    named = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", statement, re.IGNORECASE)
    if len(statement.split()) >= _SHORTEST and named is None:
        sentence = f"{article} {statement} {verb}".strip()
        yield sentence[0].upper() + sentence[1:]
