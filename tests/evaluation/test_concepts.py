"""Concepts in both directions."""

import pytest
import torch
from helpers import assert_same_bits, snapshot

from revs_tars_plugin import InputError
from revs_tars_plugin.data import ConceptRecord
from revs_tars_plugin.evaluation import (
    evaluate_unlearning,
    fact_log_likelihoods,
    fact_margins,
    name_margins,
    name_probabilities,
    names_like,
    share_forgotten,
)
from revs_tars_plugin.model.module_names import ModuleNames

PROMPT = "w1 w2 w3"


def test_concepts_are_measured_in_both_directions(model, tok):
    with torch.no_grad():
        expected = model(tok(PROMPT, return_tensors="pt").input_ids).logits[0, -1].log_softmax(-1)
    token = tok("w7")["input_ids"][0]
    assert name_probabilities(model, tok, [PROMPT], "w7") == [pytest.approx(float(expected[token].exp()), rel=1e-4)]
    assert fact_log_likelihoods(model, tok, [(PROMPT, " w7 w8")]) == [pytest.approx(float(expected[token]), rel=1e-4)]
    assert name_probabilities(model, tok, [], "w7") == fact_log_likelihoods(model, tok, []) == []


def log_probability(model, tok, prompt, word):
    with torch.no_grad():
        values = model(tok(prompt, return_tensors="pt").input_ids).logits[0, -1].log_softmax(-1)
    return float(values[tok(word)["input_ids"][0]])


def test_margins_are_against_made_up_names_in_the_names_place(model, tok):
    value = {word: log_probability(model, tok, PROMPT, word) for word in ("w7", "w20", "w21")}
    expected = value["w7"] - (value["w20"] + value["w21"]) / 2
    assert name_margins(model, tok, [PROMPT], "w7", ["w20", "w21"]) == [pytest.approx(expected, abs=1e-4)]
    value = {word: log_probability(model, tok, f"w1 {word} w3", "w9") for word in ("w7", "w20", "w21")}
    expected = value["w7"] - (value["w20"] + value["w21"]) / 2
    facts = [("w1 w7 w3", " w9"), ("w1 w3", " w9")]  # the second does not name it
    assert fact_margins(model, tok, facts, "w7", ["w20", "w21"]) == [pytest.approx(expected, abs=1e-4)]
    assert name_margins(model, tok, [], "w7", ["w20"]) == fact_margins(model, tok, [], "w7", ["w20"]) == []


def test_made_up_names_are_of_the_concepts_kind_and_the_same_for_a_seed():
    for name in ("Einstein", "photosynthesis"):
        made = names_like(ConceptRecord(name))
        assert len(set(made)) == 8
        assert name not in made
        assert all(one[0].isupper() == name[0].isupper() for one in made)
        assert made == names_like(ConceptRecord(name)) != names_like(ConceptRecord(name), seed=1)


def test_shares_are_of_what_there_is_to_forget():
    assert share_forgotten([2.0, 4.0], [2.0, 4.0]) == 0
    assert share_forgotten([2.0, 4.0], [0.0, 0.0]) == 1
    assert share_forgotten([2.0, 4.0], [1.0, 3.5]) == pytest.approx(0.25)
    assert share_forgotten([2.0], [-1.0]) == 1.5  # worse than a made-up one
    # Of what was never known nothing can be forgotten.
    assert share_forgotten([2.0, -1.0], [1.0, 5.0]) == 0.5
    assert share_forgotten([-1.0, 0.05], [-1.0, 0.0]) is None


def test_shares_need_a_report_from_before(model, tok):
    concepts = [
        ConceptRecord("w7", (PROMPT,), facts=(("w1 w7 w3", " w9"),), foreign=("w5 w6",)),
        ConceptRecord("w8", (PROMPT,)),
    ]

    def report(before=None, chosen=concepts, seed=0):
        names = ModuleNames.found_in(model)
        return evaluate_unlearning(model, tok, [], names=names, concepts=chosen, before=before, attacks=(), seed=seed)

    before = report()
    assert not [name for name in before.summary if "forgotten" in name]
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)  # less sure of everything
    after = report(before)
    rows = list(zip(before.concepts, after.concepts, strict=True))
    for name in ("concept", "concept, other languages", "concept, facts"):
        above = f"{name}, above made-up names (nats)"
        pairs = [(was[above], now[above]) for was, now in rows if above in was and was[above] >= 0.1]
        if not pairs:
            assert f"{name}, forgotten" not in after.summary
            continue
        expected = 1 - sum(now for _, now in pairs) / sum(was for was, _ in pairs)
        assert after.summary[f"{name}, forgotten"] == pytest.approx(expected)
        assert after.summary[f"{name}, forgotten, least"] == pytest.approx(min(1 - now / was for was, now in pairs))
    assert any("forgotten" in name for name in after.summary)
    with pytest.raises(InputError, match="before is of 2 concepts, but 1 are given"):
        report(before, concepts[:1])
    with pytest.raises(InputError, match="before was made with seed 0, not 1: with other made-up names"):
        report(before, seed=1)


def test_made_up_names_that_begin_alike_say_nothing(model, tok):
    assert name_margins(model, tok, [PROMPT], "w7", ["w7", "w7 w8"]) == []
    assert name_margins(model, tok, [PROMPT], "w7", ["w7", "w20"]) == name_margins(model, tok, [PROMPT], "w7", ["w20"])
    assert fact_margins(model, tok, [("w1 w7", " w9")], "w7", []) == []


def test_languages_neighbours_and_what_returns(model, tok, monkeypatch):
    monkeypatch.setattr("revs_tars_plugin.evaluation.concepts._GONE", 1e-6)  # a model with random weights knows little
    with torch.no_grad():
        name = tok.decode([int(model(tok(PROMPT, return_tensors="pt").input_ids).logits[0, -1].argmax())])
    concept = ConceptRecord(
        name,
        (PROMPT,),
        foreign=("w5 w6",),
        languages={"xx": (("w8 w9", "w17"), ("w8", name)), "yy": (("w10 w11", name),)},
        neighbours=(("w1 w2", "w30"), ("w4 w5", "w31")),
    )

    def report(before=None, attacks=()):
        names = ModuleNames.found_in(model)
        return evaluate_unlearning(
            model, tok, [], names=names, concepts=[concept], before=before, attacks=attacks, seed=0
        )

    def probabilities(*pairs):
        return [torch.tensor(log_probability(model, tok, *pair)).exp().item() for pair in pairs]

    before = report()
    (row,) = before.concepts
    xx, yy = probabilities(*concept.languages["xx"]), probabilities(*concept.languages["yy"])
    assert row["in xx"] == pytest.approx(sum(xx) / 2, rel=1e-4)
    assert row["in yy"] == pytest.approx(yy[0], rel=1e-4)
    abroad = [*probabilities(("w5 w6", name)), *xx, *yy]
    assert before.summary["concept, other languages"] == pytest.approx(sum(abroad) / 4, rel=1e-4)
    assert not [name for name in before.summary if name.startswith("in ")]
    near = probabilities(*concept.neighbours)
    assert before.summary["concept, neighbours"] == pytest.approx(sum(near) / 2, rel=1e-4)
    assert not [name for name in before.summary if "relearned" in name or "returned" in name]

    weights = snapshot(model)
    with torch.no_grad():
        model.lm_head.weight[tok(name)["input_ids"][0]] = 0
    edited = snapshot(model)
    after = report(before, ("relearning",))
    assert_same_bits(model, edited)
    relearned, now = after.summary["concept, neighbours relearned"], after.summary["concept"]
    was = before.summary["concept"]
    assert relearned != now
    assert after.summary["concept, returned"] == pytest.approx((relearned - now) / (was - now))
    # Of the unedited model nothing is gone that could return.
    model.load_state_dict(weights)
    assert "concept, returned" not in report(before, ("relearning",)).summary


def test_a_concept_that_cannot_be_asked_is_named(model, tok):
    with pytest.raises(InputError, match='concept "w7" has neither "held_out" nor "prompts"'):
        evaluate_unlearning(
            model, tok, [], names=ModuleNames.found_in(model), concepts=[ConceptRecord("w7")], attacks=()
        )
