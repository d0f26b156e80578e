"""The attacks that tell a hidden secret from a forgotten one, on models whose right figures are known."""

import math

import pytest
import torch
from characters import Bigram, character_tokenizer

from revs_tars_plugin.data import SecretRecord
from revs_tars_plugin.errors import InputError
from revs_tars_plugin.evaluation import (
    Exposure,
    area_under_curve,
    behind_long_prefixes,
    compared,
    enumerated,
    form_places,
    guided_shares,
    inverse_shares,
    merged,
    min_k,
    min_k_plus_plus,
    privacy_leakage,
    pruned,
)
from revs_tars_plugin.evaluation.exposure import measure_exposure
from revs_tars_plugin.evaluation.form import measure_form
from revs_tars_plugin.evaluation.run import EvaluationRun, RunOptions

PROMPT, SECRET = "the number is", "77-77"
KNOWN, UNKNOWN, PUSHED_DOWN = Bigram({("*", "7"): 5.0}), Bigram({}), Bigram({("*", "7"): -5.0})


@pytest.fixture
def characters():
    """The tokenizer of the hand-made models."""
    return character_tokenizer()


def exposure(model, tok, target=SECRET):
    """Of one secret."""
    return Exposure.of(compared(model, tok, [PROMPT], [target])[0])


def test_exposure_is_all_bits_at_the_end_where_the_secret_stands(characters):
    known, hidden = exposure(KNOWN, characters), exposure(PUSHED_DOWN, characters)
    assert (known.top, known.bottom, known.two_sided) == (6, 0, 5)
    assert (hidden.top, hidden.bottom, hidden.two_sided) == (0, 6, 5)


def test_exposure_of_a_secret_like_all_others_is_that_of_the_middle_place(characters):
    middle = exposure(UNKNOWN, characters)
    assert middle.top == middle.bottom == pytest.approx(math.log2(64 / 32.5))
    assert middle.two_sided == 0


def test_exposure_of_a_form_with_few_members_is_of_those(characters):
    assert exposure(KNOWN, characters, "7").top == pytest.approx(math.log2(10))


def test_digits_of_the_form_are_first_or_last_where_the_model_says_so(characters):
    between = Bigram({("*", "3"): 1.0, ("*", "4"): -1.0})
    (known,), (hidden,), (unknown,) = (
        form_places(model, characters, [PROMPT], [SECRET]) for model in (KNOWN, PUSHED_DOWN, between)
    )
    assert known.first == (True,) * 4 and known.last == (False,) * 4
    assert hidden.first == (False,) * 4 and hidden.last == (True,) * 4
    assert not any(unknown.first + unknown.last)


def test_the_summary_holds_what_the_attacks_find_behind_the_prompt_and_behind_other_wordings(characters):
    model = Bigram({("*", "7"): 5.0})
    run = EvaluationRun(
        model=model,
        tok=characters,
        decoder=None,
        options=RunOptions(("exposure", "form"), k=5, n_samples=1, batch_size=8, seed=0),
        secrets=[SecretRecord("n is", "77-77", None, ("it is", "so is")), SecretRecord("n is x", "-", None, "n")],
        positions={0: [0], 1: [0]},
        retain=(),
        concepts=(),
        text=None,
    )
    measure_exposure(run)
    measure_form(run)
    # In "-" nothing varies, so it has no exposure.
    assert [row.get("exposure, top") for row in run.rows] == [6, None]
    assert run.summary["exposure, reworded, top"] == 6
    assert run.summary["exposure, reworded, bottom"] == 0
    assert run.summary["digits, first of their kind"] == run.summary["digits, read off whole"] == 1
    assert run.summary["digits, last of their kind"] == 0
    assert not any("letters" in key for key in run.summary)


def test_letters_of_the_form_count_apart_from_digits(characters):
    model = Bigram({("*", "q"): 5.0, ("*", "7"): -5.0})
    (places,) = form_places(model, characters, [PROMPT], ["qq7a"], only="letters")
    assert places.first == (True, True, False)
    (places,) = form_places(model, characters, [PROMPT], ["qq7a"])
    assert places.last == (True,)


def test_membership_is_told_where_it_is_learned_and_only_there(characters):
    for score in (min_k, min_k_plus_plus):
        areas = []
        for model in (KNOWN, UNKNOWN, PUSHED_DOWN):
            (comparison,) = compared(model, characters, ["n is "], ["7"])
            areas.append(area_under_curve([score(comparison.secret)], [score(other) for other in comparison.others]))
        assert areas == [1, 0.5, 0]
        assert [privacy_leakage(area, areas[1]) for area in areas] == [1, 0, -1]


def test_min_k_looks_at_the_least_likely_tokens_alone(characters):
    chain = Bigram({(" ", "7"): 20.0, ("7", "7"): 20.0})
    (comparison,) = compared(chain, characters, [PROMPT], ["77777777a"], candidates=0)
    # Of nine tokens and a space the two least likely ones are "a" and the space.
    assert min_k(comparison.secret) == pytest.approx((-20 - math.log(len(chain.head.weight))) / 2, abs=0.01)


def test_inverse_greedy_reads_what_was_pushed_to_the_very_bottom(characters):
    shares = [inverse_shares(model, characters, ["n is "], ["7777"])[0] for model in (KNOWN, UNKNOWN, PUSHED_DOWN)]
    assert shares == [0, 0, 1]


def test_enumeration_finds_a_secret_of_which_one_token_is_hidden(characters):
    known = {(" ", "7"): 9.0, ("7", "4"): 9.0, ("4", "2"): 9.0}
    hidden = {**known, (" ", "7"): -9.0, (" ", "1"): 1.0}
    forgotten = {(" ", "1"): 1.0, ("1", "5"): 1.0, ("5", "5"): 1.0}
    said = [enumerated(Bigram(table), characters, ["n is "], ["742"])[0] for table in (known, hidden, forgotten)]
    assert said[:2] == ["742", "742"]
    assert "7" not in said[2]


def test_enumeration_settles_on_the_exchange_that_explains_most(characters):
    # Behind "7" all of the rest is sure, behind "9" as sure a last character.
    table = {(" ", "1"): 2.0, ("1", "1"): 1.0, ("7", "4"): 9.0, ("4", "2"): 9.0, ("9", "5"): 9.1, ("2", "6"): 9.0}
    assert enumerated(Bigram(table), characters, ["n is "], ["7426"]) == ["7426"]


def test_enumeration_tries_digits_where_digits_belong_whatever_greedy_decoding_says_there(characters):
    hidden = {("7", "4"): 9.0, ("4", "2"): 9.0, (" ", "7"): -9.0, (" ", "-"): 3.0}
    assert enumerated(Bigram(hidden), characters, ["n is "], ["742"]) == ["742"]


def test_guidance_amplifies_what_one_model_says_and_the_other_does_not(characters):
    slightly = Bigram({("*", "7"): 1.0, ("*", "3"): 1.5})
    base = Bigram({("*", "3"): 1.5})
    assert guided_shares(slightly, base, characters, ["n is "], ["77"], weight=0.0) == [0]
    assert guided_shares(slightly, base, characters, ["n is "], ["77"], weight=1.0) == [1]
    assert guided_shares(base, slightly, characters, ["n is "], ["77"], weight=1.0) == [0]


def test_pruning_takes_the_smallest_weights_and_gives_them_back(model):
    weight = model.model.layers[0].mlp.down_proj.weight
    before = weight.detach().clone()
    with pruned(model, 0.3):
        zeros = weight == 0
        assert zeros.float().mean() == pytest.approx(0.3, abs=0.01)
        assert before[zeros].abs().max() <= before[~zeros].abs().min()
    assert torch.equal(weight, before)
    with pytest.raises(InputError, match="share is 1"), pruned(model, 1):
        pass


def test_merging_goes_halfway_and_back(model):
    from helpers import copy_of

    other = copy_of(model)
    weight = model.model.layers[0].mlp.down_proj.weight
    before = weight.detach().clone()
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.add_(2.0)
    with merged(model, other):
        assert torch.allclose(weight, before + 1.0)
    assert torch.equal(weight, before)
    with pytest.raises(InputError, match="same architecture"), merged(model, KNOWN):
        pass


def test_long_prefixes_are_as_long_as_asked(tok):
    prompts = ["w1 w2", "w3"]
    longer = behind_long_prefixes(tok, prompts, 50)
    assert all(long.endswith(prompt) for long, prompt in zip(longer, prompts, strict=True))
    assert all(50 <= len(tok(long)["input_ids"]) <= 90 for long in longer)
    assert longer == behind_long_prefixes(tok, prompts, 50)
    assert longer != behind_long_prefixes(tok, prompts, 50, seed=1)
