"""Every family is edited exactly, kept and exported."""

import pytest
import torch
from architectures import FAMILIES, WITH_ROWS, logits_after, request_for, settings_of, wider
from helpers import assert_same_bits, snapshot, tiny_settings
from peft import PeftModel

from revs_tars_plugin import EditSet, InputError, execute_revs, execute_tars
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.requests.reading import read_requests

# Logits that are divided are never so sure of a token; random vectors in a random model are not reversed without end.
OWN = {"phi3": {"matrices": ["down"]}, "granite": {"targeting_probability": 0.02}, "gemma2": {"n_edits": 10}}
OWN |= {name: {"matrices": ["down"], "targeting_probability": 0.25} for name in ("olmoe", "gpt_oss", "mixtral_modules")}
IDS = torch.tensor([[1, 2, 3, 9, 4]])


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def changed_weights(model, before):
    """The names of what is not bit for bit as it was; of experts' matrices each by itself."""
    changed = set()
    for name, value in model.state_dict().items():
        if value.dim() == 3:
            changed |= {
                f"{name}[{i} of {len(value)}]" for i, part in enumerate(value) if not torch.equal(part, before[name][i])
            }
        elif not torch.equal(value, before[name]):
            changed.add(name)
    return changed


def check_round_trips(family, edits, tmp_path):
    """Undone to the bit, the same from a file, and the same logits as an adapter."""
    model = family.make()
    before = snapshot(model)
    base = logits(model)
    edits.apply(model)
    changed = changed_weights(model, before)
    assert changed
    assert changed <= {edit.name for edit in edits.edits}
    edited, weights = logits(model), snapshot(model)
    edits.undo(model)
    assert_same_bits(model, before)
    edits.save(tmp_path / "edit.safetensors")
    loaded = EditSet.load(tmp_path / "edit.safetensors")
    loaded.apply(model)
    assert_same_bits(model, weights)
    loaded.undo(model)
    assert_same_bits(model, before)
    edits.to_peft(tmp_path / "adapter")
    wrapped = PeftModel.from_pretrained(model, tmp_path / "adapter")
    scale = float(edited.abs().max())
    torch.testing.assert_close(logits(wrapped), edited, atol=1e-4 * max(1.0, scale), rtol=0)
    with wrapped.disable_adapter():
        assert torch.equal(logits(wrapped), base)


@pytest.mark.parametrize("localization", ["neurons", "covariance"])
@pytest.mark.parametrize("name", FAMILIES)
def test_revs_reaches_the_rank_in_the_model_itself(name, localization, tok, tmp_path):
    family = FAMILIES[name]
    model = family.make()
    before = snapshot(model)
    request = request_for(model, tok)
    hparams = settings_of(family, "REVS", tmp_path, localization=localization)
    edits = execute_revs(model, tok, [request], hparams)
    assert_same_bits(model, before)
    (outcome,) = edits.outcomes
    assert outcome.rank_before == 0
    assert outcome.reached
    edits.apply(model)
    (secret,) = read_requests([request], tok)
    with torch.no_grad():
        found = model(torch.tensor([secret.context(0)])).logits[0, -1]
    assert int((found > found[secret.target_ids[0]]).sum()) >= 40
    ff2 = Decoder.of(model, hparams).ff2.values()
    assert {edit.name for edit in edits.edits} <= {matrix.weight_name for each in ff2 for matrix in each.matrices}
    edits.undo(model)
    check_round_trips(family, edits, tmp_path)


@pytest.mark.parametrize("refine", ["whitened", "noise"])
@pytest.mark.parametrize("name", FAMILIES)
def test_tars_lowers_the_concept(name, refine, tok, tmp_path):
    family = FAMILIES[name]
    model = family.make()
    before = snapshot(model)
    request = request_for(model, tok)
    settings = {
        "refine": refine,
        "targeting_probability": 0.35,
        "rounds": 100,
        "noise_scale": 0.8,
        "min_probability": 0.001,
        "goal_probability": 0.0005,
        **OWN.get(name, {}),
    }
    hparams = settings_of(family, "TARS", tmp_path, **settings)
    edits = execute_tars(model, tok, [request], hparams)
    assert_same_bits(model, before)
    (outcome,) = edits.outcomes
    assert outcome.known
    assert max(outcome.after) < 0.7 * max(outcome.before)
    check_round_trips(family, edits, tmp_path)


@pytest.mark.parametrize("name", WITH_ROWS)
def test_detectors_of_a_name_make_round_trips(name, tok, tmp_path):
    family = wider(FAMILIES[name])
    model = family.make()
    before = snapshot(model)
    own = {"directions": ["from_name"], "spelling_layer": 1, "min_probability": 1e-9, "goal_probability": 1e-12}
    edits = execute_tars(model, tok, [request_for(model, tok)], settings_of(family, "TARS", tmp_path, **own))
    assert_same_bits(model, before)
    assert edits.outcomes[0].detectors == 1
    check_round_trips(family, edits, tmp_path)


def test_a_fused_gate_and_up_matrix_is_refused(tok, tmp_path):
    family = FAMILIES["phi3"]
    model = family.make()
    with pytest.raises(InputError, match="it holds more than the up matrix; leave up out of matrices"):
        execute_tars(model, tok, [request_for(model, tok)], settings_of(family, "TARS", tmp_path))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_lens_at_the_last_layer_is_the_model(name, tok):
    """Final norm and head are read as the model itself uses them, whatever its kind."""
    family = FAMILIES[name]
    model = family.make()
    decoder = Decoder.of(model, tiny_settings(**family.names))
    states = []
    decoder.forward_through_layers([[1, 2, 3]], lambda _layer, state: states.append(state.residual[0, -1]))
    expected = logits_after(model, [1, 2, 3])
    found = decoder.lens.full_logits(states[-1][None].float())[0]
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
