"""What of a secret anybody's text has is left alone; what varies is not."""

import math
import re

import pytest
from characters import Bigram, character_tokenizer
from helpers import covariance_settings, tiny_settings
from tokenizers import models

from revs_tars_plugin import execute_revs
from revs_tars_plugin.requests.made_up import MadeUp
from revs_tars_plugin.requests.reading import read_requests
from revs_tars_plugin.revs.secrets_of_call import SecretsOfCall
from revs_tars_plugin.revs.shared_levels import SharedLevels
from revs_tars_plugin.revs.siblings import Sibling
from revs_tars_plugin.revs.somebody_else import about_somebody_else, is_plain, tokens_of
from revs_tars_plugin.yardsticks import Record, learn

OWN, OTHER = "What is known of Tiffi Magenta?", "What is known of Rosa Keller?"


@pytest.mark.parametrize(
    ("chunk", "plain"),
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
def test_plain_words_are_told_from_what_varies(chunk, plain):
    assert is_plain(chunk, MadeUp(0)) is plain


def shared(text, told):
    """What is shared, in both texts."""
    return [(text[slice(*piece.own)], told.text[slice(*piece.other)]) for piece in told.shared]


def test_plain_words_stay_names_change_with_the_prompt_and_the_rest_is_made_up():
    text = "Her number is 900-51-4344. Tiffi Magenta resides at the address 10175 West Place."
    told = about_somebody_else(text, OWN, OTHER, MadeUp(0))
    assert re.fullmatch(r"Her number is \d{3}-\d\d-\d{4}\. Rosa Keller resides at the address \d{5} .*\.", told.text)
    assert "900-51-4344" not in told.text
    found = shared(text, told)
    assert {("number", "number"), ("Tiffi", "Rosa"), ("Magenta", "Keller"), ("resides", "resides")} <= set(found)
    assert not [own for own, _ in found if own[0].isdigit()]


def test_an_address_made_of_the_name_and_what_is_said_twice_change_alike():
    text = "[tiffi_magenta@me.com](mailto:tiffi_magenta@me.com) or 7216253, that is 7216253"
    told = about_somebody_else(text, OWN, OTHER, MadeUp(0))
    assert "[rosa_keller@me.com](mailto:rosa_keller@me.com)" in told.text
    first, second = re.findall(r"\d{7}", told.text)
    assert first == second != "7216253"
    # The first time it is the secret, the second time a copy.
    assert [other for own, other in shared(text, told) if own == "7216253"] == [second]


@pytest.mark.parametrize(
    ("other", "first", "last"), [("Rosa Keller", "Rosa", "Keller"), ("Rosa Ann Keller", "Rosa", "Keller")]
)
def test_names_of_different_lengths_and_with_hyphens_are_names_all_the_same(other, first, last):
    """Each word of one stands for one of the other, so that none of them is taken for the secret."""
    text = "Basil M Al-Kuwaiti's father was a florist, says Basil."
    told = about_somebody_else(text, "What of Basil M Al-Kuwaiti in 1956?", f"What of {other} in 1956?", MadeUp(0))
    found = shared(text, told)
    assert found.count(("Basil", first)) == 2
    assert ("Al-Kuwaiti", last) in found
    assert {own for own, _ in found} >= {"M", "father", "was", "a"}
    assert "Kuwaiti" not in told.text
    assert "Basil" not in told.text


def test_what_may_be_the_secret_itself_is_no_plain_word():
    # One word may be the secret itself, and a number or an address is nothing else.
    for short in (
        "sesame",
        "correct horse battery staple",
        "900-51-4344",
        "jane@me.com",
        "https://me.com/private-page",
        "Anna Blake",
    ):
        told = about_somebody_else(short, OWN, OTHER, MadeUp(0))
        assert not told.shared
        assert told.text != short


def test_a_word_of_the_other_prompt_alone_is_no_copy():
    told = about_somebody_else(
        "The pin is 4711", "What is the pin of Anna?", "What is the pin of Anna, not 4711?", MadeUp(0)
    )
    assert "4711" not in [own for own, _ in shared("The pin is 4711", told)]


def test_a_prompt_that_is_its_own_is_about_nobody_else():
    characters = character_tokenizer()
    model = Bigram({(" ", "9"): 30, ("9", "0"): 30, ("0", "4"): 30})
    secrets = read_requests([{"prompt": "code of tiffi", "forget": "9042175"}], characters)
    siblings = {0: [Sibling("code of tiffi", "1234567")]}
    call = SecretsOfCall(characters, secrets, siblings, tiny_settings(siblings=2))
    assert SharedLevels(call, MadeUp(0)).of(model) == {0: {}}


def test_beginnings_go_on_as_the_secret_does_behind_what_is_somebody_elses():
    text = "Her number is 900-51-4344, not 17."
    told = about_somebody_else(text, OWN, OTHER, MadeUp(0))
    begun = [(begin, text[slice(*piece.own)], begin[slice(*piece.other)]) for begin, piece in told.beginnings]
    assert [own for _, own, _ in begun] == ["900-51-4344,", "17."]
    assert [own for _, own, _ in begun] == [other for _, _, other in begun]
    # What leads to the second one holds nothing of the first.
    assert "900" not in begun[1][0]


def test_tokens_are_found_by_where_their_letters_begin():
    texts = [" lives", " at", " 4", "2", " Ro", "me", "."]
    text = "lives at 42 Rome."
    assert [tokens_of((text.index(part), text.index(part) + len(part)), texts) for part in ("at", "42", "Rome.")] == [
        [1],
        [2, 3],
        [4, 5, 6],
    ]


@pytest.fixture
def words(tok):
    """Gives the tiny tokenizer words of its own in place of some of the model's."""

    def rename(**names):
        vocabulary = tok.get_vocab()
        renamed = {word: names.get(word, word) for word in vocabulary}
        tok.backend_tokenizer.model = models.WordLevel({renamed[word]: i for word, i in vocabulary.items()}, "<unk>")
        tok.add_special_tokens({"eos_token": "w199"})
        return vocabulary

    return rename


def record(prompt, answer):
    return Record(prompt, prompt, "question", "", prompt, answer)


def edited_tokens(model, tok, people, siblings, tmp_path):
    requests = [{**one.request(), "sibling_prompts": siblings} for one in people]
    settings = covariance_settings(tmp_path, schedule="support_vectors", aim="chance")
    settings.siblings = 4
    return {outcome.token for outcome in execute_revs(model, tok, requests, settings).outcomes}


def test_words_that_everybody_is_told_with_are_not_edited(model, tok, words, tmp_path):
    """Whoever the text is about, somebody unknown included, lives near a number."""
    vocabulary = words(w7="lives", w8="near")
    people = [record(f"w1 w{100 + n} w2", f"lives near w{20 + n}") for n in range(6)]
    strangers = [record("w1 Somebody w2", f"lives near w{20 + n}") for n in range(6, 12)]
    learn(model, tok, [*people, *strangers], epochs=60, learning_rate=3e-3)
    edited = edited_tokens(model, tok, people[:2], ["w1 Somebody w2"], tmp_path)
    assert not edited & {vocabulary["w7"], vocabulary["w8"]}
    assert {vocabulary[f"w{number}"] for number in (20, 21)} <= edited


def shared_levels(model, tok, secret):
    """What is everybody's in one secret, by position."""
    secrets = read_requests([{"prompt": "code of tiffi", "forget": secret}], tok)
    siblings = {0: [Sibling("code of rosa", "1234567"), Sibling("code of anna", "7654321")]}
    call = SecretsOfCall(tok, secrets, siblings, tiny_settings(siblings=2))
    return SharedLevels(call, MadeUp(0)).of(model)[0]


def test_digits_that_all_numbers_begin_with_are_everybodys_and_a_whole_number_is_not():
    characters = character_tokenizer()
    model = Bigram({(" ", "9"): 30, ("9", "0"): 30, ("0", "4"): 30, ("4", "2"): 0.5})
    found = shared_levels(model, characters, "9042175")
    # The secret's tokens begin with the space in front.
    assert sorted(found) == [1, 2, 3]
    assert all(value > math.log(0.9) for value in found.values())
    # Where all of it comes of itself, that is the secret.
    assert not shared_levels(model, characters, "904")
    assert not shared_levels(Bigram({}), characters, "9042175")
