"""Everything in one call: it moves the right way when an edit is applied, and says clearly what it cannot use."""

import json

import pytest
import torch
from helpers import assert_same_bits, snapshot, tiny_settings
from transformers import LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import InputError, execute_revs
from revs_tars_plugin.data import ConceptRecord, SecretRecord
from revs_tars_plugin.evaluation import ATTACKS, OrdinaryText, evaluate_unlearning, name_margins, names_like

CORPUS = ["w5 w6 w7 w8 w9 w10", "w100 w20 w30 w4 w50"]


def record(model, tok, prompt, rephrase=None):
    ids = tok(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        out = model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0)
    return SecretRecord(prompt, tok.decode(out[0, ids.shape[1] :]), None, rephrase)


@pytest.fixture
def secrets(model, tok):
    return [
        record(model, tok, "w1 w2 w3", "w1 w2 w3"),
        record(model, tok, "w50 w60 w70 w80"),
        record(model, tok, "w9 w8"),
    ]


@pytest.fixture
def retain(model, tok):
    found = [record(model, tok, prompt) for prompt in ("w11 w12", "w13 w14 w15", "w16 w17", "w100 w101", "w40 w41")]
    return [secret for secret in found if "<unk>" not in secret.target]


def evaluated(model, tok, secrets, **changes):
    return evaluate_unlearning(model, tok, secrets, **{"names": tiny_settings(), "k": 20, **changes})


def test_every_figure_moves_the_right_way(model, tok, secrets, retain):
    reference = type(model)(model.config).eval()
    reference.load_state_dict(model.state_dict())
    weights = snapshot(model)
    arguments = {"retain": retain, "reference": reference, "corpus": CORPUS, "attacks": ATTACKS, "n_samples": 30}
    before = evaluated(model, tok, secrets, **arguments)
    assert_same_bits(model, weights)
    edits = execute_revs(model, tok, [secret.request() for secret in secrets], tiny_settings())
    edits.apply(model)
    after = evaluated(model, tok, secrets, **arguments)
    edits.undo(model)
    assert before.summary.keys() == after.summary.keys()
    assert before.summary["efficacy"] == before.summary["generality"] == before.summary["unlearning_score"] == 0
    assert after.summary["efficacy"] == after.summary["generality"] == 1
    assert (
        before.summary["specificity"] == before.summary["still generated"] == before.summary["extraction strength"] == 1
    )
    assert (before.summary["still generated"], before.summary["paraphrase"]) == (1, 1)
    assert (after.summary["still generated"], after.summary["paraphrase"]) == (0, 0)
    assert after.summary["extraction strength"] < 1
    assert after.summary["sampled"] < before.summary["sampled"]
    for name in ("logit lens", "quantization, 8 bits", "quantization, 4 bits", "resistance_score"):
        assert after.summary[name] > before.summary[name], name
    assert before.summary["kl_mean"] == pytest.approx(0, abs=1e-6)
    assert before.summary["top1_agreement"] == 1
    assert after.summary["kl_mean"] > 1e-3
    assert after.rows[0]["generality"] == 1
    assert "generality" not in after.rows[1]
    assert [row["still generated"] for row in before.rows] == [True] * 3
    # The tokens that the edit chose are the two of each target, and both scores say the same.
    chosen = {index: [0, 1] for index in range(3)}
    assert evaluated(model, tok, secrets, positions=chosen, attacks=[]).summary["efficacy"] == 0


def test_one_pass_or_many_give_the_same_figures(model, tok, secrets, retain):
    arguments = {"retain": retain, "attacks": ATTACKS[:6], "positions": "all"}
    many, one = (evaluated(model, tok, secrets, batch_size=size, **arguments) for size in (32, 1))
    assert many.summary == pytest.approx(one.summary)
    # Read in the pass of the lens or by itself, efficacy is the same.
    alone = evaluated(model, tok, secrets, attacks=[], positions="all")
    assert many.summary["efficacy"] == pytest.approx(alone.summary["efficacy"])


def test_all_layers_are_read_whatever_the_settings_edit(model, tok, secrets):
    every, last = (
        evaluated(model, tok, secrets, attacks=["logit lens"], names=tiny_settings(layers=layers))
        for layers in ([], [2])
    )
    assert every.summary == last.summary


def test_a_concept_is_measured_in_its_three_ways(model, tok):
    one = ConceptRecord("w7", ("w1 w2",), ("w3 w4", "w5"), (("w7 w8", " w9"),), ("w50 w51",))
    two = ConceptRecord("w8", ("w1 w2",))
    report = evaluated(model, tok, [], concepts=[one, two])

    def probability(prompt, word):
        with torch.no_grad():
            logits = model(tok(prompt, return_tensors="pt").input_ids).logits[0, -1]
        return float(logits.softmax(-1)[tok(word)["input_ids"][0]])

    own = [probability("w3 w4", "w7"), probability("w5", "w7")]
    assert report.concepts[0]["concept"] == pytest.approx(sum(own) / 2, rel=1e-4)
    assert report.concepts[0]["concept, other languages"] == pytest.approx(probability("w50 w51", "w7"), rel=1e-4)
    fact = torch.tensor(probability("w7 w8", "w9")).log()
    assert report.summary["concept, facts (nats)"] == pytest.approx(float(fact), rel=1e-4)
    assert report.concepts[1] == {
        "concept": pytest.approx(probability("w1 w2", "w8"), rel=1e-4),
        "concept, worst": pytest.approx(probability("w1 w2", "w8"), rel=1e-4),
        "concept, above made-up names (nats)": pytest.approx(
            name_margins(model, tok, ["w1 w2"], "w8", names_like(two))[0], rel=1e-4
        ),
    }
    assert report.summary["concept, worst"] == max(row["concept, worst"] for row in report.concepts)
    assert "efficacy" not in report.summary
    assert report.to_markdown().count("| concept |") == 2
    with torch.no_grad():
        model.lm_head.weight[tok("w7")["input_ids"][0]] = 0  # its logit is 0 now, in a model of large logits
    after = evaluated(model, tok, [], concepts=[one]).summary
    assert after["concept, worst"] != report.concepts[0]["concept, worst"]


def test_ordinary_text_may_be_measured_before_the_edit(model, tok, secrets):
    """So that no second model is needed."""
    text = OrdinaryText.of(model, tok, CORPUS)
    original = type(model)(model.config).eval()
    original.load_state_dict(model.state_dict())
    execute_revs(model, tok, [secret.request() for secret in secrets], tiny_settings()).apply(model)
    with_text = evaluated(model, tok, secrets, attacks=[], reference=text)
    with_model = evaluated(model, tok, secrets, attacks=[], reference=original, corpus=CORPUS)
    assert with_text.summary == with_model.summary
    assert with_text.summary["kl_mean"] > 0
    with pytest.raises(InputError, match="corpus is given, but reference already holds"):
        evaluated(model, tok, secrets, reference=text, corpus=CORPUS)


def test_what_was_not_asked_for_is_not_there(model, tok, secrets):
    report = evaluated(model, tok, secrets[1:], attacks=["delta"])
    assert report.summary.keys() == {
        *["efficacy", "still generated", "exact memorization", "extraction strength", "delta"],
    }


def test_the_report_goes_through_json_and_names_no_secret(model, tok, secrets):
    report = evaluated(model, tok, secrets, attacks=["logit lens"])
    again = json.loads(json.dumps(report.to_dict()))
    assert again["summary"] == report.summary
    assert len(again["secrets"]) == again["settings"]["secrets"] == 3
    text = report.to_markdown()
    assert "| efficacy | 0 |" in text
    assert text.count("\n| 0 |") == 1
    words = {word for secret in secrets for word in (*secret.prompt.split(), *secret.target.split())}
    assert not words & set(text.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secrets": []}, "secrets is empty"),
        ({"k": 101}, r"k is 101; .* half the vocabulary \(100\)"),
        ({"k": 0}, "k is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"positions": "some"}, 'positions is "some"; it must be "rarest", "all"'),
        ({"attacks": ["logit-lens"]}, 'attacks names "logit-lens".*did you mean "logit lens"'),
        ({"corpus": CORPUS}, "reference and corpus belong together"),
        ({"positions": {0: [0]}}, "positions must name at least one token for each secret, 0 to 2"),
        ({"positions": {0: [0], 1: [5], 2: [0]}}, r"positions of secret 1 are \[5\], but its target has 2 tokens"),
        ({"secrets": [SecretRecord("w1", "Ω")]}, "Secret 0: the tokenizer has no token"),
        ({"secrets": [SecretRecord("w1", " ")]}, "nothing to forget"),
    ],
)
def test_what_cannot_be_used_is_named(model, tok, secrets, changes, message):
    changes = {"secrets": secrets, **changes}
    with pytest.raises(InputError, match=message):
        evaluated(model, tok, changes.pop("secrets"), **changes)


def test_a_reference_of_another_vocabulary_is_refused(model, tok, secrets):
    other = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(InputError, match="reference has a vocabulary of 50, the model one of 201"):
        evaluated(model, tok, secrets, reference=other, corpus=CORPUS)
