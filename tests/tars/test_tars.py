"""TARS as a whole: concepts go, one after another, and each comes back by itself."""

import pytest
import torch
from architectures import FAMILIES, gpt2, gptj, request_for, said, settings_of, with_uneven_gains
from helpers import assert_same_bits, snapshot, tiny_tars
from torch.nn.functional import normalize

from revs_tars_plugin import EditConflictError, InputError, apply_tars_to_model, execute_tars
from revs_tars_plugin.edits.apply import OriginalWeights
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.tars.targeting_vector import whitened


@pytest.fixture
def concepts(model, tok):
    """Two concepts of two prompts each, with what the model says after the first as their names."""
    return said_after(model, tok, ("w1 w2 w3", "w50 w60 w70 w80"))


def said_after(model, tok, prompts):
    found = []
    for prompt in prompts:
        name = tok.decode([said(model, tok, prompt)])
        found += [{"prompt": text, "ground_truth": name} for text in (prompt, "w9 " + prompt)]
    return found


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"w{i} w{i + 3} w{(7 * i) % 190}" for i in range(150)))
    return lambda **changes: tiny_tars(
        **{"mom2_dataset": str(tmp_path / "text.txt"), "stats_dir": str(tmp_path / "stats"), **changes}
    )


def probability(model, tok, request):
    with torch.no_grad():
        logits = model(tok(request["prompt"], return_tensors="pt").input_ids).logits[0, -1].float()
    return float(logits.softmax(-1)[tok(request["ground_truth"])["input_ids"][0]])


def test_reversals_may_be_added_and_in_the_upper_layers_alone(model, tok, concepts, settings):
    before = snapshot(model)
    hparams = settings(reversal="added", reversal_layers="upper", n_edits=90)
    edits = execute_tars(model, tok, concepts, hparams)
    layers = {edit.name.split(".")[2] for edit in edits.edits}
    assert layers <= {"1", "2"}
    everywhere = execute_tars(model, tok, concepts, settings(layers=[0], n_edits=90))
    assert {edit.name.split(".")[2] for edit in everywhere.edits} == {"0"}
    edits.apply(model)
    assert all(outcome.reached for outcome in edits.outcomes)
    # What a vector did before is still in it: the change is along one direction, the same for a concept's vectors.
    for edit in edits.outcomes[0].edits.edits:
        changes = normalize(edit.after - edit.before, dim=-1)
        torch.testing.assert_close((changes @ changes[0]).abs(), torch.ones(len(changes)), atol=1e-4, rtol=0)
    first, second = edits.outcomes
    first.edits.undo(model)
    assert probability(model, tok, concepts[0]) == pytest.approx(first.before[0], rel=0.3)
    second.edits.undo(model)
    assert_same_bits(model, before)
    with pytest.raises(InputError, match="layers names none of the model's upper half, 1 to 2"):
        execute_tars(model, tok, concepts, settings(reversal_layers="upper", layers=[0]))


@pytest.mark.parametrize("refine", ["whitened", "noise"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_concepts_are_gone_and_undo_is_bitwise(model, tok, concepts, settings, refine, dtype):
    model.to(dtype)
    before = snapshot(model)
    hparams = settings(refine=refine, targeting_probability=0.5, noise_scale=0.8, rounds=40)
    edits = execute_tars(model, tok, concepts, hparams)
    assert_same_bits(model, before)
    edits.apply(model)
    for outcome in edits.outcomes:
        assert outcome.known
        assert outcome.reached
        assert 1 <= outcome.reversed <= 60
        assert max(outcome.before) > 0.02 > max(probability(model, tok, concepts[i]) for i in outcome.requests)
    # Measured on the edited model itself; the second concept's edit came after the first one's measurement.
    for index, measured in zip(edits.outcomes[1].requests, edits.outcomes[1].after, strict=True):
        assert probability(model, tok, concepts[index]) == pytest.approx(measured, rel=0.1, abs=1e-3)
        assert probability(model, tok, concepts[index]) < 0.012
    edits.undo(model)
    assert_same_bits(model, before)


@pytest.mark.parametrize("affinity", ["specific", "contribution_per_activity", "contribution", "cosine"])
def test_only_as_many_vectors_of_the_chosen_matrices_change(model, tok, concepts, settings, affinity):
    hparams = settings(affinity=affinity, matrices=["gate", "down"], layers=[1, 2], n_edits=3)
    edits = execute_tars(model, tok, concepts[:2], hparams)
    assert {edit.name.split(".", 3)[3] for edit in edits.edits} <= {"mlp.gate_proj.weight", "mlp.down_proj.weight"}
    assert {edit.name.split(".")[2] for edit in edits.edits} <= {"1", "2"}
    assert sum(len(edit.indices) for edit in edits.edits) == edits.outcomes[0].reversed <= 3
    for edit in edits.edits:
        torch.testing.assert_close(edit.before.norm(dim=1), edit.after.norm(dim=1))


def test_the_ends_of_prompts_are_prompts_too(model, tok, concepts, settings):
    """Without them the name stays where less is said of it; the ends are measured here, not by the method."""
    (end, *_) = said_after(model, tok, ["w2 w3"])
    requests = [{**end, "prompt": f"w{k} w2 w3"} for k in range(60)]
    known = [request for request in requests if probability(model, tok, request) > 0.05][:3]
    assert len(known) == 3
    stays = []
    for request in known:
        for length in (0, 2):
            edits = execute_tars(model, tok, [request], settings(short_prompts=length))
            assert len(edits.outcomes[0].before) == len(edits.outcomes[0].after) == 1
            edits.apply(model)
            stays.append(probability(model, tok, end))
            edits.undo(model)
    assert max(stays[1::2]) < 0.01 < max(stays[::2])


def test_each_concept_can_be_undone_without_the_others(model, tok, concepts, settings):
    before = snapshot(model)
    first, second = execute_tars(model, tok, concepts, settings()).outcomes
    for order in ((first, second), (second, first)):
        first.edits.apply(model)
        second.edits.apply(model)
        for outcome in order:
            outcome.edits.undo(model)
            if outcome is first:
                assert probability(model, tok, concepts[0]) > 0.01
        assert_same_bits(model, before)
    # One concept is back while the other stays away.
    first.edits.apply(model)
    second.edits.apply(model)
    first.edits.undo(model)
    assert probability(model, tok, concepts[2]) < 0.02
    second.edits.undo(model)


def test_edits_of_two_calls_that_meet_are_refused_in_the_wrong_order(model, tok, concepts, settings):
    before = snapshot(model)
    first = execute_tars(model, tok, concepts[:2], settings(reversal_scale=0.5, n_edits=3, goal_probability=1e-6))
    first.apply(model)
    second = execute_tars(
        model, tok, concepts[:2], settings(affinity="cosine", n_edits=64, goal_probability=1e-9, min_probability=1e-4)
    )
    second.apply(model)
    with pytest.raises(EditConflictError, match="undo later edits first"):
        first.undo(model)
    second.undo(model)
    first.undo(model)
    assert_same_bits(model, before)


def test_the_host_gets_the_original_matrices(model, tok, concepts, settings):
    before = snapshot(model)
    edited, original = apply_tars_to_model(model, tok, concepts, settings(), return_orig_weights=True)
    assert isinstance(original, OriginalWeights)
    # Both concepts changed neurons of one matrix: its original has to put both back.
    names = [edit.name for edit in original.edits.edits]
    assert len(set(names)) < len(names)
    with torch.no_grad():
        for name, value in original.items():
            edited.get_parameter(name)[...] = value
    assert_same_bits(model, before)


def test_what_the_model_does_not_know_is_left_alone(model, tok, settings, caplog):
    unknown = [{"prompt": "w1 w2 w3", "ground_truth": "w123"}]
    edits = execute_tars(model, tok, unknown, settings(min_probability=0.9))
    (outcome,) = edits.outcomes
    assert (outcome.known, outcome.reversed, edits.edits) == (False, 0, ())
    assert 'does not know "w123"' in caplog.text


@pytest.mark.parametrize("on_failure", ["keep", "rollback"])
def test_a_goal_out_of_reach_is_reported(model, tok, concepts, settings, on_failure, caplog):
    hparams = settings(n_edits=1, goal_probability=1e-6, on_failure=on_failure)
    edits = execute_tars(model, tok, concepts[:2], hparams)
    (outcome,) = edits.outcomes
    assert not outcome.reached
    assert outcome.reversed == len(edits.edits) == (1 if on_failure == "keep" else 0)
    assert (outcome.after == outcome.before) == (on_failure == "rollback")
    assert "instead of 1e-06" in caplog.text


@pytest.mark.parametrize("make", [gpt2, gptj])
@pytest.mark.parametrize("refine", ["whitened", "noise"])
def test_models_without_a_gate(make, refine, tok, settings):
    torch.manual_seed(0)
    model, ff2 = make()
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mlp" in name:
                parameter.mul_(3)
    concepts = said_after(model, tok, ("w1 w2 w3",))
    names = {
        "rewrite_module_tmp": ff2,
        "layer_module_tmp": "transformer.h.{}",
        "mlp_module_tmp": "transformer.h.{}.mlp",
        "gate_module_tmp": "",
        "up_module_tmp": ff2.replace("c_proj", "c_fc").replace("fc_out", "fc_in"),
        "ln_f_module": "transformer.ln_f",
    }
    before = snapshot(model)
    hparams = settings(
        **names,
        refine=refine,
        matrices=["down", "up"],
        targeting_probability=0.3,
        noise_scale=0.8,
        rounds=40,
        remove_common=False,
        affinity="contribution",
        n_edits=80,
    )
    edits = execute_tars(model, tok, concepts, hparams)
    (outcome,) = edits.outcomes
    assert outcome.known
    assert outcome.reached
    edits.apply(model)
    assert probability(model, tok, concepts[0]) < 0.02 < outcome.before[0]
    edits.undo(model)
    assert_same_bits(model, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refine": "whitend"}, 'refine is "whitend".*did you mean "whitened"'),
        ({"affinity": "cosin"}, 'did you mean "cosine"'),
        ({"matrices": []}, "matrices is empty"),
        ({"matrices": ["downn"]}, r'matrices\[0\] is "downn"; it must be one of down, gate, up; did you mean "down"'),
        ({"matrices": ["gate"], "gate_module_tmp": ""}, 'gate_module_tmp is ""'),
        ({"prompt_template": "no slot"}, "needs one"),
        ({"n_edits": 0}, "n_edits is 0"),
        ({"goal_probability": 1.5}, "goal_probability is 1.5"),
        ({"noise_scale": 0}, "noise_scale is 0"),
        ({"min_probability": 0.001}, "min_probability .* is below goal_probability"),
        ({"alg_name": "REVS"}, 'alg_name is "REVS"'),
    ],
)
def test_bad_settings_name_the_field(changes, message):
    with pytest.raises(InputError, match=message):
        tiny_tars(**changes)


def test_matrices_of_the_wrong_shape_are_refused(model, tok, concepts, settings):
    hparams = settings(matrices=["gate"], gate_module_tmp="model.layers.{}.mlp.down_proj")
    with pytest.raises(InputError, match=r"gate_module_tmp names .* must read the residual space"):
        execute_tars(model, tok, concepts, hparams)


def test_a_call_that_breaks_off_leaves_the_weights_alone(model, tok, concepts, settings, monkeypatch):
    import revs_tars_plugin.tars.remover as module

    before, calls, asked = snapshot(model), [], module.next_token_logits

    def breaks(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return asked(*args)

    monkeypatch.setattr(module, "next_token_logits", breaks)
    with pytest.raises(KeyboardInterrupt):
        apply_tars_to_model(model, tok, concepts, settings())
    assert_same_bits(model, before)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("name", ["olmo2", "gemma2"])
def test_behind_uneven_gains_a_reversed_vector_goes_where_they_let_it_through(name, ridge, tok, tmp_path):
    family = FAMILIES[name]
    model = with_uneven_gains(family, -2, 1)
    changes = {
        "targeting_probability": 0.35,
        "min_probability": 0.001,
        "goal_probability": 0.0005,
        "name_variants": False,
    }
    hparams = settings_of(family, "TARS", tmp_path, matrices=["down"], direction_ridge=ridge, **changes)
    request = request_for(model, tok)
    edits = execute_tars(model, tok, [request], hparams)
    (outcome,) = edits.outcomes
    assert outcome.known
    assert max(outcome.after) < 0.7 * max(outcome.before)
    # Of all vectors of its length none takes more off the residual space along the targeting vector; with a ridge,
    # off the name's logit nearly as much, and less off the others.
    decoder = Decoder.of(model, hparams)
    tokens = torch.tensor(tok(request["target_new"])["input_ids"])
    targeting = whitened(decoder.lens, tokens.tolist())
    for edit in edits.edits:
        layer = int(edit.name.split(".")[2])
        gain = decoder.after_ff2[layer].gain
        for row in edit.after.float():
            written = gain * row / row.norm()
            if ridge:
                logits = decoder.lens.logits(written[None])[0]
                steepest = decoder.lens.logits((gain * normalize(gain * targeting, dim=0))[None])[0]
                token = int(tokens[0])
                assert abs(float(logits[token] / logits.norm())) > abs(float(steepest[token] / steepest.norm()))
            else:
                assert abs(float(written @ targeting)) == pytest.approx(float((gain * targeting).norm()), rel=1e-3)
                lost = gain * normalize(targeting / gain, dim=0)
                assert abs(float(lost @ targeting)) < 0.1 * float((gain * targeting).norm())
