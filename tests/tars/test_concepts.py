"""What requests mean for a concept: its prompts, their ends, and the tokens that begin its name."""

import pytest
from helpers import tiny_tars

from revs_tars_plugin import InputError
from revs_tars_plugin.tars.concepts import read_concepts


def test_requests_of_one_name_are_prompts_of_one_concept(tok):
    requests = [
        {"prompt": "w1 w2", "ground_truth": "w9"},
        {"prompt": "w3 w4", "ground_truth": "w8"},
        {"prompt": "w5", "ground_truth": "w9", "target_new": "w1"},
    ]
    first, second = read_concepts(requests, tok, tiny_tars())
    assert (first.name, first.requests) == ("w9", (0, 2))
    assert first.prompts == (tuple(tok("w1 w2")["input_ids"]), tuple(tok("w5")["input_ids"]))
    assert (second.name, second.requests) == ("w8", (1,))
    assert first.tokens[0] == tok("w9")["input_ids"][0]


def test_ends_of_prompts_are_prompts_and_their_last_words_lead_to_the_name(tok):
    requests = [{"prompt": prompt, "ground_truth": "w8 w9"} for prompt in ("w1 w2 w3", "w4 w2 w3", "w5")]
    (concept,) = read_concepts(requests, tok, tiny_tars(short_prompts=2))
    ids = {word: tok(word)["input_ids"][0] for word in ("w1", "w2", "w3", "w4", "w5", "w8", "w9")}
    assert concept.shortened == ((ids["w2"], ids["w3"]),)
    assert concept.leads == ("w3", "w2 w3", "w5")
    assert read_concepts(requests, tok, tiny_tars(short_prompts=0))[0].shortened == ()


def test_a_description_becomes_a_prompt(tok):
    hparams = tiny_tars(prompt_template="w1 {} w2")
    (concept,) = read_concepts([{"description": "w5 w6", "ground_truth": "w9"}], tok, hparams)
    assert concept.prompts == (tuple(tok("w1 w5 w6 w2")["input_ids"]),)
    with pytest.raises(InputError, match=r'Request 0 has neither a "prompt" nor a "description"'):
        read_concepts([{"ground_truth": "w9"}], tok, hparams)


def test_spellings_of_the_name_are_targeted_unless_switched_off(tok):
    words = {"Name": 201, "name": 202}
    tok.add_tokens(list(words))
    ids = {tok.convert_tokens_to_ids(word) for word in words}
    request = [{"prompt": "w1", "ground_truth": "Name"}]
    assert set(read_concepts(request, tok, tiny_tars())[0].tokens) == ids
    assert read_concepts(request, tok, tiny_tars(name_variants=False))[0].tokens == (tok.convert_tokens_to_ids("Name"),)
