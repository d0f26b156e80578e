"""The table of metrics is what an evaluation gives, no more and no less, and each row knows its direction."""

import pytest
from helpers import copy_of, tiny_settings
from transformers import GPT2Config, GPT2LMHeadModel

from revs_tars_plugin.data import ConceptRecord, SecretRecord
from revs_tars_plugin.evaluation import (
    ATTACKS,
    DEFAULT_ATTACKS,
    METRICS,
    RESISTANCE_ATTACKS,
    OrdinaryText,
    evaluate_unlearning,
)
from revs_tars_plugin.evaluation import concepts as concepts_module
from revs_tars_plugin.evaluation.metrics import completed
from revs_tars_plugin.model.module_names import ModuleNames


@pytest.fixture
def everything(model, tok, monkeypatch):
    """A report with all that can be measured, of a model that knows no concept: so whatever it makes of it counts."""
    monkeypatch.setattr(concepts_module, "_KNOWN", -100)
    names = tiny_settings(attn_module_tmp="model.layers.{}.self_attn")
    secrets = [SecretRecord("w1 w2 w3", "w7 w8", None, "w3 w2"), SecretRecord("w50 w60", "w9", None, "w60")]
    retain = [SecretRecord("w11 w12", "w13", None, "w12"), SecretRecord("w14 w15", "w16")]
    concepts = [ConceptRecord("w20", ("w1 w2",), ("w2 w1",), (("w20 w1", "w2"),), ("w5 w6",), {}, (("w3 w4", "w8"),))]
    text = OrdinaryText.of(model, tok, ["w5 w6 w7 w8 w9"])
    before = evaluate_unlearning(model, tok, [], names=names, concepts=concepts, attacks=())
    return evaluate_unlearning(
        model,
        tok,
        secrets,
        names=names,
        retain=retain,
        concepts=concepts,
        reference=text,
        never_learned=copy_of(model),
        before=before,
        k=20,
        attacks=ATTACKS,
    )


def test_every_figure_is_a_row_of_the_table_and_every_row_is_measured(everything):
    # The words of this vocabulary are neither numbers nor letters alone, and nothing is gone that could return.
    expected = [metric.key for metric in METRICS if metric.attack != "form" and metric.key != "concept, returned"]
    assert list(everything.summary) == expected
    for row in (*everything.rows, *everything.concepts):
        assert set(row) <= {metric.key for metric in METRICS}


def test_keys_labels_and_headings_are_told_apart():
    for names in ([m.key for m in METRICS], [m.label for m in METRICS], [m.heading for m in METRICS if m.heading]):
        assert len(set(names)) == len(names)


def test_every_metric_is_measured_or_derived_and_scores_say_which_way_is_good():
    for metric in METRICS:
        assert (metric.measure is None) is not (metric.derive is None), metric.key
        if metric.question in ("hidden", "comes out", "left"):
            assert metric.better == ("lower" if metric.question == "comes out" else "higher"), metric.key


def test_the_attack_that_trains_is_the_last_one():
    """By default that one and enumeration are not run; three make up the paper's Resistance Score."""
    assert set(ATTACKS) - set(DEFAULT_ATTACKS) == {"relearning", "enumeration"}
    assert ATTACKS[-1] == "relearning"
    assert completed(dict.fromkeys(RESISTANCE_ATTACKS, 0.5))["resistance_score"] == pytest.approx(0.5)
    assert "resistance_score" not in completed(dict.fromkeys(RESISTANCE_ATTACKS[:2], 0.5))


def test_the_control_is_that_models_own_and_may_be_of_another_architecture(model, tok, everything):
    secrets = [SecretRecord("w1 w2 w3", "w7 w8"), SecretRecord("w50 w60", "w9")]
    names = tiny_settings(attn_module_tmp="model.layers.{}.self_attn")
    attacks = ("exposure", "logit lens")
    other = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=16, n_layer=2, n_head=2, n_positions=32)).eval()
    alone = evaluate_unlearning(other, tok, secrets, names=ModuleNames.found_in(other), k=20, attacks=attacks)
    beside = evaluate_unlearning(model, tok, secrets, names=names, never_learned=other, k=20, attacks=attacks)
    assert beside.controls["never learned"] == alone.summary
    assert beside.summary != alone.summary
    without = evaluate_unlearning(
        model, tok, secrets, names=names, never_learned=other, with_control=False, k=20, attacks=attacks
    )
    assert without.controls == {}
    assert without.summary == {key: value for key, value in beside.summary.items() if key != "privleak"}


def test_a_model_that_never_learned_the_secrets_is_measured_beside(everything):
    control = everything.controls["never learned"]
    comparing = {"privleak", "guidance", "merging", "in-context", "unlearning_score"}
    measured = {m.key for m in METRICS if m.about == "secrets" and m.question != "left" and m.attack != "form"}
    assert set(control) == measured - comparing
    # Here it is the very same model.
    assert all(everything.summary[key] == value for key, value in control.items())
    assert everything.summary["privleak"] == 0
    assert "never learned" in everything.to_markdown()
    assert everything.to_dict()["controls"] == {"never learned": control}
