"""What a model still holds of a secret: measures on cases where the right number is known, and after an edit."""

import pytest
import torch
from helpers import assert_same_bits, snapshot
from transformers import GPT2Config, GPT2LMHeadModel

from revs_tars_plugin import InputError, execute_revs
from revs_tars_plugin.evaluation import (
    Recall,
    after_relearning,
    efficacy,
    fact_log_likelihoods,
    in_context_prompts,
    name_probabilities,
    probes_of,
    quantized,
    recall,
    sampled_extractions,
)
from revs_tars_plugin.evaluation.quantization import rounded

PROMPT = "w1 w2 w3"


def says(model, tok, prompt, count):
    ids = tok(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        out = model.generate(ids, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return tok.decode(out[0, ids.shape[1] :]).split()


def test_a_continuation_is_recalled_whole_and_a_changed_one_in_part(model, tok):
    words = says(model, tok, PROMPT, 4)
    other = next(f"w{number}" for number in range(200) if f"w{number}" not in words)
    # The second of four is wrong: what comes after it depends on it, and is asked of the model here.
    (third,) = says(model, tok, " ".join([PROMPT, words[0], other]), 1)
    changed = [words[0], other, third]
    found = recall(model, tok, [PROMPT, PROMPT, "w50 w60"], [" ".join(words), " ".join(changed), other])
    assert found[0] == Recall(1.0, 1.0)
    assert found[1].exact_memorization == pytest.approx(2 / 3)
    assert found[1].extraction_strength == pytest.approx(1 / 3)
    assert found[2] == (Recall(1.0, 1.0) if says(model, tok, "w50 w60", 1) == [other] else Recall(0.0, 0.0))


def test_an_edit_lowers_recall_and_sampling_finds_less(model, tok, requests_, hparams):
    prompts, targets = [r["prompt"] for r in requests_], [r["target_new"] for r in requests_]
    assert recall(model, tok, prompts, targets) == [Recall(1.0, 1.0)] * 2
    before = sampled_extractions(model, tok, prompts, targets, n_samples=200, temperature=0.5)
    edits = execute_revs(model, tok, requests_, hparams)
    edits.apply(model)
    assert all(found.extraction_strength < 1 for found in recall(model, tok, prompts, targets))
    after = sampled_extractions(model, tok, prompts, targets, n_samples=200, temperature=0.5)
    assert sum(after) < sum(before) / 5
    assert sum(before) > 10


def test_sampling_is_the_same_for_the_same_seed_and_leaves_the_callers_numbers_alone(model, tok, requests_):
    prompts, targets = [r["prompt"] for r in requests_], [r["target_new"] for r in requests_]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = sampled_extractions(model, tok, prompts, targets, n_samples=50, seed=3)
    assert torch.equal(torch.rand(3), expected)
    assert first == sampled_extractions(model, tok, prompts, targets, n_samples=50, seed=3, batch_size=50)


def test_sampling_at_low_temperature_is_greedy(model, tok, requests_):
    prompts, targets = [r["prompt"] for r in requests_], [r["target_new"] for r in requests_]
    assert sampled_extractions(model, tok, prompts, targets, n_samples=4, temperature=1e-3) == [4, 4]


def test_rounding_by_hand():
    weight = torch.tensor([[3.0, -1.4, 0.4], [0.0, 0.0, 0.0], [-0.3, 0.1, 0.04]])
    # 3 bits: levels -3..3 of a third of the row's largest.
    expected = torch.tensor([[3.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-0.3, 0.1, 0.0]])
    torch.testing.assert_close(rounded(weight, 3), expected)
    torch.testing.assert_close(rounded(weight.T, 3, channel_dim=1), expected.T)
    with pytest.raises(InputError, match="bits is 16"):
        rounded(weight, 16)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_quantization_rounds_and_restores_to_the_bit(model, kind):
    if kind == "conv":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16)).eval()
    before = snapshot(model)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        logits = model(ids).logits
        distances = []
        for bits in (8, 4):
            with quantized(model, bits):
                distances.append(float((model(ids).logits - logits).abs().mean()))
                changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
            assert_same_bits(model, before)
    assert 0 < distances[0] < distances[1] / 4
    assert all("embed" not in name and "lm_head" not in name and "wte" not in name for name in changed)
    with pytest.raises(InputError), quantized(model, 1):
        pass
    assert_same_bits(model, before)


def test_relearning_one_secret_is_measured_and_taken_back(model, tok, requests_, hparams):
    execute_revs(model, tok, requests_, hparams).apply(model)
    before = snapshot(model)
    taught, other = (" ".join([r["prompt"], r["target_new"]]) for r in requests_)
    probes = probes_of(tok, [requests_[0]["prompt"]], [requests_[0]["target_new"]], {0: [0]})
    hidden = efficacy(model, probes, k=20)
    back = after_relearning(model, tok, [taught], lambda m: efficacy(m, probes, k=20), epochs=30, learning_rate=5e-3)
    assert hidden > 0.9
    assert back < 0.2
    assert_same_bits(model, before)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())

    def breaks(_model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        after_relearning(model, tok, [other], breaks)
    assert_same_bits(model, before)


def test_other_secrets_stand_in_front_of_a_prompt():
    examples = [(f"The number of {name} is", str(number)) for number, name in enumerate("ABCDE")]
    found = in_context_prompts(["The number of C is", "Who?"], examples, shots=4)
    assert found[0].endswith(". The number of C is")
    assert "2." not in found[0]
    assert all(f"The number of {name} is {number}." in found[0] for name, number in (("A", 0), ("E", 4)))
    assert found[1].count(".") == 4
    assert found == in_context_prompts(["The number of C is", "Who?"], examples, shots=4)


def test_concepts_are_measured_in_both_directions(model, tok):
    with torch.no_grad():
        expected = model(tok(PROMPT, return_tensors="pt").input_ids).logits[0, -1].log_softmax(-1)
    token = tok("w7")["input_ids"][0]
    assert name_probabilities(model, tok, [PROMPT], "w7") == [pytest.approx(float(expected[token].exp()), rel=1e-4)]
    assert fact_log_likelihoods(model, tok, [(PROMPT, " w7 w8")]) == [pytest.approx(float(expected[token]), rel=1e-4)]
    assert name_probabilities(model, tok, [], "w7") == fact_log_likelihoods(model, tok, []) == []
