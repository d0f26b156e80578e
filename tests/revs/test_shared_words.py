"""Words of a longer secret that anybody's text has are left alone; what varies is not."""

import re

import pytest
from characters import sentencepiece_tokenizer
from helpers import covariance_settings
from tokenizers import models

from revs_tars_plugin import execute_revs
from revs_tars_plugin.requests.made_up import MadeUp
from revs_tars_plugin.revs.shared_words import about_somebody_else, is_shared, places_of_words
from revs_tars_plugin.yardsticks import Record, learn


@pytest.mark.parametrize(
    ("chunk", "shared"),
    [
        ("resides", True),
        ("number.", True),
        ("She", True),
        ("co-worker", True),
        ("Magenta", False),
        ("900-51-4344.", False),
        ("jane_42", False),
        ("jane@me.com", False),
        ("#505,", False),
    ],
)
def test_plain_words_are_told_from_what_varies(chunk, shared):
    assert is_shared(chunk, MadeUp(0)) is shared


def test_a_text_about_somebody_else_keeps_the_plain_words_alone():
    text = "Her number is 900-51-4344. Tiffi Magenta resides at the address 10175 West Place."
    other = about_somebody_else(text, MadeUp(0))
    assert re.fullmatch(r"Her number is \d{3}-\d\d-\d{4}\. [A-Z]\w+ [A-Z]\w+ resides at the address \d{5} .*\.", other)
    assert not {"Tiffi", "Magenta", "900-51-4344."} & set(other.split())
    # One word may be the secret itself, and a number or an address is nothing else.
    for short in ("sesame", "900-51-4344", "jane@me.com", "https://me.com/private-page", "Tiffi Magenta"):
        assert about_somebody_else(short, MadeUp(0)) is None


def test_a_word_has_the_same_place_in_texts_that_differ_in_what_varies():
    tok = sentencepiece_tokenizer(["▁lives", "▁at", "▁4", "▁5", "4", "5", "▁by", "▁the", "▁Ro", "me", "▁sea"])
    places = [
        places_of_words(tok, tok(text, add_special_tokens=False)["input_ids"], MadeUp(0))
        for text in ("lives at 4 Rome by the sea", "lives at 55454 me4 by the sea")
    ]
    words = [[place for place in found if place is not None] for found in places]
    assert words[0] == words[1]
    assert [text for _, _, text in words[0]] == ["lives", "at", "by", "the", "sea"]


def test_words_that_everybody_is_told_with_are_not_edited(model, tok, tmp_path):
    """Whoever the text is about, somebody unknown included, lives near a number."""
    vocabulary = tok.get_vocab()
    renamed = {word: {"w7": "lives", "w8": "near"}.get(word, word) for word in vocabulary}
    tok.backend_tokenizer.model = models.WordLevel({renamed[word]: i for word, i in vocabulary.items()}, "<unk>")
    tok.add_special_tokens({"eos_token": "w199"})

    def record(prompt, number):
        return Record(prompt, prompt, "question", "", prompt, f"lives near w{20 + number}")

    people = [record(f"w1 w{100 + n} w2", n) for n in range(6)]
    strangers = [record("w1 Somebody w2", n) for n in range(6, 12)]
    learn(model, tok, [*people, *strangers], epochs=60, learning_rate=3e-3)
    requests = [{**record.request(), "sibling_prompts": ["w1 Somebody w2"]} for record in people[:2]]
    settings = covariance_settings(tmp_path, schedule="support_vectors", aim="chance")
    settings.siblings = 4
    edited = {outcome.token for outcome in execute_revs(model, tok, requests, settings).outcomes}
    assert not edited & {vocabulary["w7"], vocabulary["w8"]}
    assert {vocabulary[f"w{number}"] for number in (20, 21)} <= edited
