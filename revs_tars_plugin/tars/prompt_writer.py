"""Prompts that a model writes itself: what it says of a name, turned round so that the name comes last.

"Marie Curie was" goes on "the first woman who won the Nobel Prize", which becomes "The first woman who won the Nobel
Prize was Marie". Those behind which the model does give the name are kept.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import torch

from ..model.decoder import Decoder
from ..model.forward import device_of_ids, next_token_logits, sample
from ..requests.chat import asked_prompt
from ..requests.reading import tokenise_in_context
from .name_leads import ASKED, LEAD_CHOICES, SAYS_NOTHING, full_name_leads, given_leads, ways_to

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
# The same of a name that is asked for in full.
_FULL_DRAWN, _FULL_LENGTH = 32, 8
# Words that are tried in front of a name of which no prompt says what stands there.
_TRIED, _TRIED_ON = 5, 16
# First names that a name's prompts end with.
_MOST_LEADS = 3
# Such a first name gives the name this probability where nothing else is said: far more than any other one does.
_LEADS_ALONE = 0.003
# Prompts that go through the model together.
_TOGETHER = 32
# All that decides what is written, for those that keep it.
CHOICES = repr(
    [
        *(_WORDINGS, _DRAWN, _LENGTH, _TEMPERATURE, _SHORTEST, _END.pattern, _PROBABLE, _MOST),
        *(_FULL_DRAWN, _FULL_LENGTH, _TRIED, _TRIED_ON, _MOST_LEADS, _LEADS_ALONE, *LEAD_CHOICES),
    ]
)


class WrittenPrompt(NamedTuple):
    """A prompt that the model wrote.

    Attributes:
        prompt: The prompt.
        target: What comes next: the name, or the last word of one whose first words the prompt gives.
    """

    prompt: str
    target: str


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

    def write(self, name: str, prompts: Sequence[str] = ()) -> tuple[WrittenPrompt, ...]:
        """Returns prompts that lead to a name, of each language that the model gives it in; none where there is none.

        Args:
            name: The name.
            prompts: Prompts that lead to it, which say what stands in front of it, as a first name does; without any
                the model is asked for the full name, and it is found among what the model itself would say there.
        """
        first_names = [] if prompts else self._first_names(name)
        leads = [*first_names, ""] if first_names else given_leads(prompts)
        # A first name may be that of somebody else, of whom the model has nothing to say that leads to the name.
        for subject in dict.fromkeys([f"{leads[0]} {name}".strip(), *([name] if first_names else [])]):
            written = self._about(subject, name, leads, prompts)
            if written:
                return written
        return ()

    def _about(
        self, subject: str, name: str, leads: Sequence[str], prompts: Sequence[str]
    ) -> tuple[WrittenPrompt, ...]:
        """Prompts of what the model says of a subject; none that was given."""
        statements = self._statements(subject, name)
        if not prompts:
            first_ones = [turned for group in statements for turned in group][:_TRIED_ON]
            leads = list(dict.fromkeys([*leads, *self._likely_leads(name, first_ones)]))
        ways = ways_to(name, leads)
        # For each language and statement all that it may end with.
        candidates = [
            [
                [
                    WrittenPrompt(f"{turned} {lead}".strip(), target)
                    for lead, target in ways
                    if not _says(turned, target)
                ]
                for turned in group
            ]
            for group in statements
        ]
        probabilities = self._probabilities([each for group in candidates for endings in group for each in endings])
        in_languages = []
        for group in candidates:
            probable = [
                sorted(
                    (
                        each
                        for each in endings
                        if probabilities.get(each, 0) >= _PROBABLE and each.prompt not in prompts
                    ),
                    key=lambda each: -probabilities[each],
                )
                for endings in group
            ]
            # Every statement once, as it leads to the name most surely, before any comes a second time.
            in_languages.append(_in_turn(probable))
        # A prompt of each language in turn, so that no language takes the place of another one.
        return tuple(dict.fromkeys(_in_turn(in_languages)))[:_MOST]

    def _first_names(self, name: str) -> list[str]:
        """What stands in front of a name of one word where the model gives it in full, and does lead to it."""
        if len(name.split()) > 1 or not name[:1].isupper():
            return []
        asked = [frame.format(name) for frame in ASKED]
        drawn = self._continuations(asked, name, _FULL_DRAWN, _FULL_LENGTH)
        texts = [text for texts in drawn for text in texts]
        return self._leading(full_name_leads(texts, name), [SAYS_NOTHING], name, _LEADS_ALONE)[:_MOST_LEADS]

    def _statements(self, subject: str, name: str) -> list[list[str]]:
        """What the model says of a subject, turned round up to where it stood; a list a language."""
        frames = [(language, verb, article) for language, wordings in _WORDINGS.items() for verb, article in wordings]
        subject_first = subject[0].upper() + subject[1:]
        beginnings = [f"{subject_first} {verb} {article}".strip() for _, verb, article in frames]
        turned: dict[str, list[str]] = {language: [] for language in _WORDINGS}
        for (language, verb, article), texts in zip(frames, self._continuations(beginnings, subject), strict=True):
            for text in texts:
                turned[language] += _turned(text, verb, article, name)
        return [list(dict.fromkeys(group)) for group in turned.values()]

    def _continuations(
        self, beginnings: Sequence[str], label: str, count: int = _DRAWN, tokens: int = _LENGTH
    ) -> list[list[str]]:
        """What the model draws behind each beginning, several times."""
        generator = torch.Generator().manual_seed(random.Random(f"prompts {self.seed} {label}").getrandbits(63))
        encoded = [tuple(self.tok(beginning)["input_ids"]) for beginning in beginnings]
        continuations: list[list[str]] = [[] for _ in beginnings]
        # Beginnings of one length are a batch without padding.
        for length in sorted(set(map(len, encoded))):
            numbers = [number for number, ids in enumerate(encoded) if len(ids) == length]
            ids = torch.tensor([encoded[number] for number in numbers for _ in range(count)])
            drawn = sample(
                self.decoder.model,
                ids.to(device_of_ids(self.decoder.model)),
                tokens,
                generator,
                temperature=_TEMPERATURE,
            )
            texts = self.tok.batch_decode([self._first_text(row) for row in drawn.tolist()], skip_special_tokens=True)
            for place, text in enumerate(texts):
                continuations[numbers[place // count]].append(text)
        return continuations

    def _first_text(self, ids: list[int]) -> list[int]:
        """What stands in front of the token that ends a text."""
        end = self.tok.eos_token_id
        return ids[: ids.index(end)] if end in ids else ids

    def _likely_leads(self, name: str, turned: Sequence[str]) -> list[str]:
        """Words that the model would say where the name has to come, and behind which it does come."""
        if not turned:
            return []
        asked = [tuple(self.tok(asked_prompt(self.tok, each, self.chat_template))["input_ids"]) for each in turned]
        likely = next_token_logits(self.decoder.model, asked).softmax(dim=-1).mean(dim=0)
        words = [self.tok.decode([token]).strip() for token in likely.topk(_TRIED).indices.tolist()]
        words = [word for word in dict.fromkeys(words) if word.isalpha()]
        return self._leading(words, turned, name, _PROBABLE)

    def _leading(self, leads: Sequence[str], behind: Sequence[str], name: str, least: float) -> list[str]:
        """Those leads behind which the name has such a probability, on average over what they stand behind."""
        pairs = {lead: [WrittenPrompt(f"{each} {lead}", name) for each in behind] for lead in leads}
        probabilities = self._probabilities([pair for each in pairs.values() for pair in each])
        means = {lead: sum(probabilities.get(pair, 0.0) for pair in each) / len(each) for lead, each in pairs.items()}
        return [lead for lead, mean in means.items() if mean >= least]

    def _probabilities(self, prompts: Sequence[WrittenPrompt]) -> Mapping[WrittenPrompt, float]:
        """How likely what comes next begins behind each prompt; of prompts that the model is too short for nothing."""
        probabilities: dict[WrittenPrompt, float] = {}
        longest = self.decoder.context_length
        fitting = {}
        for each in prompts:
            if each not in fitting:
                asked, target = tokenise_in_context(
                    self.tok, asked_prompt(self.tok, each.prompt, self.chat_template), each.target
                )
                if longest is None or len(asked) + len(target) <= longest:
                    fitting[each] = asked, target
        everything = list(fitting.items())
        for start in range(0, len(everything), _TOGETHER):
            part = everything[start : start + _TOGETHER]
            logits = next_token_logits(self.decoder.model, [ids for _, (ids, _) in part])
            firsts = torch.tensor([target[0] for _, (_, target) in part], device=logits.device)
            shares = logits.softmax(dim=-1).gather(1, firsts[:, None])[:, 0].tolist()
            probabilities |= dict(zip([each for each, _ in part], shares, strict=True))
        return probabilities


def _turned(text: str, verb: str, article: str, name: str) -> Iterator[str]:
    """A statement behind a verb, as what leads to the name: "the first of all", "was" become "The first of all was"."""
    statement = _END.split(text.strip(), maxsplit=1)[0].strip()
    if len(statement.split()) >= _SHORTEST and not _says(statement, name):
        sentence = f"{article} {statement} {verb}".strip()
        yield sentence[0].upper() + sentence[1:]


def _says(text: str, words: str) -> bool:
    """Whether a text has these words; a short name is in many a word."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def _in_turn(groups: Sequence[Sequence[WrittenPrompt]]) -> list[WrittenPrompt]:
    """The first of each group, then the second of each, and so on."""
    return [each for abreast in zip_longest(*groups) for each in abreast if each is not None]
