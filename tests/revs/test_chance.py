"""`aim: chance`: a secret ends where one that was never learned would be."""

import math
import random

import pytest
import torch
from characters import byte_tokenizer, character_tokenizer, sentencepiece_tokenizer
from helpers import LLAMA_NAMES, assert_same_bits, copy_of, snapshot, tiny_settings
from transformers import LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import InputError, REVSHyperParams, execute_revs
from revs_tars_plugin.data.memorised import memorise
from revs_tars_plugin.evaluation import Exposure, compared, form_places, still_generated
from revs_tars_plugin.requests.reading import Secret
from revs_tars_plugin.revs.chance_demoter import groups_of_like_length
from revs_tars_plugin.revs.read_texts import kinds_of
from revs_tars_plugin.revs.targets import Target

NAMES = [
    "ada",
    "ben",
    "cleo",
    "dora",
    "emil",
    "fred",
    "gina",
    "hugo",
    "ines",
    "jan",
    "kim",
    "lena",
    "max",
    "nora",
    "otto",
    "pia",
]


def codes(seed):
    """A code of four digits for each name."""
    generator = random.Random(seed)
    return ["".join(generator.choice("0123456789") for _ in range(4)) for _ in NAMES]


CHANCE = {
    "aim": "chance",
    "schedule": "support_vectors",
    "sibling_contexts": 0,
    "ridge_first_layer": 0.1,
    "ridge_last_layer": 0.1,
}
PROMPTS = [f"the code of {name} is" for name in NAMES]
FORGOTTEN = slice(0, None, 4)


@pytest.fixture(scope="module")
def characters():
    """A token a character."""
    return character_tokenizer()


@pytest.fixture(scope="module")
def learned(characters):
    """A small model that knows all codes by heart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(characters),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            tie_word_embeddings=False,
        )
        model = LlamaForCausalLM(config)
        texts = [f"{prompt} {code}" for prompt, code in zip(PROMPTS, codes(0), strict=True)]
        memorise(model, characters, texts, epochs=60, learning_rate=2e-3)
    return model


@pytest.fixture
def edited(learned, characters, tmp_path):
    """Gives a copy of the model that forgot every fourth code, with the edit."""

    def make(**settings):
        hparams = REVSHyperParams(
            **{
                "alg_name": "REVS",
                "model_name": "tiny",
                **LLAMA_NAMES,
                "layers": [2, 3],
                "localization": "covariance",
                "mom2_n_samples": 16,
                "stats_dir": str(tmp_path),
                **settings,
            }
        )
        subjects = zip(PROMPTS, codes(0), NAMES, strict=True)
        requests = [{"prompt": prompt, "forget": code, "subject": name} for prompt, code, name in subjects][FORGOTTEN]
        model = copy_of(learned)
        before = snapshot(model)
        edits = execute_revs(model, characters, requests, hparams)
        assert_same_bits(model, before)
        edits.apply(model)
        return model, edits

    return make


def exposure(model, tok, targets):
    """Mean bits from the top and from the bottom of the codes to forget."""
    found = [Exposure.of(comparison) for comparison in compared(model, tok, PROMPTS[FORGOTTEN], targets[FORGOTTEN])]
    return sum(one.top for one in found) / len(found), sum(one.bottom for one in found) / len(found)


def test_a_secret_at_a_low_rank_is_exposed_and_one_at_chance_is_not(learned, characters, edited):
    never_learned = [exposure(learned, characters, codes(seed)) for seed in range(1, 9)]
    chance = sum(top for top, _ in never_learned) / len(never_learned)
    assert exposure(learned, characters, codes(0)) == (6, 0)
    hidden, _ = edited(max_tokens=1, token_method="chained", residual_bottom_rank=0.5, residual_top_rank=0.9)
    assert not any(still_generated(hidden, characters, PROMPTS[FORGOTTEN], codes(0)[FORGOTTEN]))
    assert exposure(hidden, characters, codes(0))[0] > 5.5
    found = []
    for seed in range(3):
        forgotten, edits = edited(**CHANCE, seed=seed)
        assert not any(still_generated(forgotten, characters, PROMPTS[FORGOTTEN], codes(0)[FORGOTTEN]))
        found.append(exposure(forgotten, characters, codes(0)))
        places = form_places(forgotten, characters, PROMPTS[FORGOTTEN], codes(0)[FORGOTTEN])
        assert not any(all(place.first) for place in places)
        edits.undo(forgotten)
        assert_same_bits(forgotten, snapshot(learned))
    # Four secrets are few, so the mean over seeds counts.
    assert sum(top for top, _ in found) / 3 < chance + 1
    assert sum(bottom for _, bottom in found) / 3 < chance + 1  # and they cannot be read off from there


@pytest.mark.parametrize("schedule", ["support_vectors", "joint"])
def test_every_digit_is_asked_for_its_chance_and_gets_it(edited, schedule):
    _, edits = edited(**{**CHANCE, "schedule": schedule})
    assert {outcome.request for outcome in edits.outcomes} == set(range(4))
    assert len(edits.outcomes) > 10

    def deviation(moment):
        """How far tokens are from chance, in nats, to either side."""
        return sum(
            abs(math.log(getattr(outcome, moment) / outcome.asked_probability)) for outcome in edits.outcomes
        ) / len(edits.outcomes)

    assert deviation("probability_before") > 2.5
    assert deviation("probability_after") < 1.25
    for outcome in edits.outcomes:
        assert "rank asked" not in outcome.row() and outcome.row()["probability asked"] == outcome.asked_probability


def test_one_key_a_token_makes_a_smaller_edit_than_one_a_context(edited):
    ranks = {
        schedule: max(edit.keys.shape[1] for edit in edited(**{**CHANCE, "schedule": schedule})[1].edits)
        for schedule in ("support_vectors", "joint")
    }
    assert ranks["support_vectors"] <= 10 < ranks["joint"]


def test_a_secret_that_was_never_learned_is_left_alone(learned, characters, tmp_path):
    hparams = tiny_settings(
        aim="chance", localization="covariance", schedule="support_vectors", mom2_n_samples=4, stats_dir=str(tmp_path)
    )
    unknown = codes(1)[1]
    edits = execute_revs(
        copy_of(learned), characters, [{"prompt": PROMPTS[1], "forget": unknown, "subject": "ben"}], hparams
    )
    known = execute_revs(
        copy_of(learned), characters, [{"prompt": PROMPTS[1], "forget": codes(0)[1], "subject": "ben"}], hparams
    )
    assert len(edits.outcomes) < len(known.outcomes)
    # Of a secret that nobody knows some tokens are likelier than in its double, and some are not.
    assert max(outcome.probability_before for outcome in edits.outcomes) < 0.9
    assert min(outcome.probability_before for outcome in known.outcomes) > 0.5


def test_places_are_told_apart(characters):
    ids = characters("a7-b@c")["input_ids"]
    assert kinds_of(characters, ids) == (
        "first piece of a word",
        "digits 1",
        '"-"',
        "first piece of a word",
        '"@"',
        '"c"',  # a mail provider belongs to the form
    )


def test_a_mail_provider_ends_at_a_space(characters):
    assert kinds_of(characters, characters("a@b 7 c")["input_ids"])[-3:] == ("digits 1", '""', "first piece of a word")


def test_parts_of_letters_are_pieces_of_words():
    tok = byte_tokenizer()
    ids = tok("ж")["input_ids"]
    assert len(ids) == 2
    assert set(kinds_of(tok, ids)) == {"further piece of a word"}


def test_a_first_piece_of_a_word_is_told_from_a_further_one_where_the_space_is_part_of_the_token():
    """A SentencePiece tokenizer drops the space when it decodes a token by itself."""
    tok = sentencepiece_tokenizer(["jane", "doe", "▁doe", "▁jane", "▁7", "7"])
    ids = tok("jane doe 7", add_special_tokens=False)["input_ids"]
    assert tok.decode(ids[1:2]) == "doe"
    assert kinds_of(tok, ids) == ("first piece of a word", "first piece of a word", "digits 1")
    together = tok("janedoe", add_special_tokens=False)["input_ids"]
    assert kinds_of(tok, together) == ("first piece of a word", "further piece of a word")


def test_a_secret_of_which_nothing_varies_is_refused(learned, characters):
    before = snapshot(learned)
    with pytest.raises(InputError, match="Request 1: nothing in the secret varies"):
        execute_revs(
            learned,
            characters,
            [{"prompt": PROMPTS[0], "forget": codes(0)[0]}, {"prompt": PROMPTS[1], "forget": "-@-"}],
            tiny_settings(aim="chance", localization="covariance"),
        )
    assert_same_bits(learned, before)


def test_chance_needs_keys_of_contexts():
    with pytest.raises(InputError, match='aim is "chance", which needs localization: covariance'):
        tiny_settings(aim="chance")


def test_targets_of_like_length_are_solved_together():
    def target(length):
        ids = tuple(range(length))
        secret = Secret(index=0, request=0, prompt="", target="", subject=None, prompt_ids=ids, target_ids=(1,))
        return Target(secret, 0)

    short, long = [target(10 + n % 5) for n in range(100)], [target(90) for _ in range(100)]
    assert groups_of_like_length([*long, *short], 256) == [[*range(100, 200)], [*range(100)]]
    assert groups_of_like_length([*long, *short], 50) == [
        sorted(order[start : start + 50])
        for order in (sorted(range(100, 200), key=lambda n: ((n - 100) % 5, n)), [*range(100)])
        for start in range(0, 100, 50)
    ]
    # A few long ones are not worth a pass of their own.
    assert groups_of_like_length([*short[:40], *long[:20]], 256) == [[*range(60)]]
    assert groups_of_like_length([], 256) == []
