"""From a name to facts: neurons that find the name, and only it, and take its state for that of any name."""

import pytest
import torch
from architectures import FAMILIES, WITH_ROWS, request_for, settings_of, wider
from helpers import assert_same_bits, snapshot, tiny_tars
from transformers import LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import InputError, execute_tars
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.tars.concepts import read_concepts
from revs_tars_plugin.tars.layer_reading import read_layers
from revs_tars_plugin.tars.spellings import spellings_of

# Of these a norm stands behind FF2, which lets an answer through only so far.
NORMS = {"gemma2", "gemma3", "olmo2"}


@pytest.fixture
def model():
    """A random Llama wide enough to tell 200 words apart."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=201, max_position_embeddings=64, initializer_range=0.1, **sizes)
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"w{i} w{i + 3} w{(7 * i) % 190}" for i in range(150)))
    known = {"min_probability": 1e-9, "goal_probability": 1e-12}
    return lambda **changes: tiny_tars(
        **{
            "mom2_dataset": str(tmp_path / "text.txt"),
            "stats_dir": str(tmp_path / "stats"),
            "directions": ["from_name"],
            "spelling_layer": 1,
            **known,
            **changes,
        }
    )


def request(name, prompt="w1 w2 w3"):
    return {"prompt": prompt, "ground_truth": name}


def states(model, tok, hparams, name):
    """The states behind a name in every frame, and the mean ones behind made-up names there."""
    decoder = Decoder.of(model, hparams)
    (concept,) = read_concepts([request(name)], tok, hparams)
    found = []
    for spelling in spellings_of(concept, tok):
        layer = hparams.name_layer if len(spelling.tokens) == 1 else hparams.spelling_layer
        first = decoder.first_matrices("up_module_tmp", hparams.up_module_tmp)[layer]
        others = [each for made_up in spelling.made_up for each in made_up]
        own, generic = (read_layers(decoder, {layer: first}, each)[layer].output for each in (spelling.named, others))
        found.append((own, generic.reshape(len(own), -1, own.shape[1]).mean(dim=1)))
    return found


def neurons_of_three_calls(model, tok, hparams):
    """Takes three names out, one call after another, and returns the neuron that each call wrote."""
    neurons = []
    for word in ("w50", "w70", "w90"):
        edits = execute_tars(model, tok, [request(word)], hparams)
        edits.apply(model)
        neurons.append(int(edits.edits[0].indices[0]))
    return neurons


def apart(pairs):
    return sum(float((own - generic).square().sum()) for own, generic in pairs)


@pytest.mark.parametrize("name", [name for name in WITH_ROWS if name not in NORMS])
def test_a_names_state_becomes_that_of_any_name(name, tok, tmp_path):
    family = wider(FAMILIES[name])
    model = family.make()
    before = snapshot(model)
    asked = request_for(model, tok)
    changes = {"directions": ["from_name"], "spelling_layer": 1, "min_probability": 1e-9, "goal_probability": 1e-12}
    hparams = settings_of(family, "TARS", tmp_path, **changes)
    edits = execute_tars(model, tok, [asked], hparams)
    assert_same_bits(model, before)
    (outcome,) = edits.outcomes
    assert (outcome.reversed, outcome.detectors, outcome.reached) == (0, 1, True)
    word = asked["target_new"].strip()
    was = apart(states(model, tok, hparams, word))
    edits.apply(model)
    # Of Granite's random model it is 0.87 or 0.95: even its weights depend on the processor.
    assert apart(states(model, tok, hparams, word)) < (0.97 if name == "granite" else 0.9) * was
    edits.undo(model)
    assert_same_bits(model, before)


def test_other_names_and_texts_stay(model, tok, settings):
    """Less than the neuron that was given away is all that other words lose."""
    hparams = settings()
    edits = execute_tars(model, tok, [request("w50")], hparams)
    first = Decoder.of(model, hparams).first_matrices("up_module_tmp", hparams.up_module_tmp)
    words = [tuple(tok(f"w9 w{number}")["input_ids"]) for number in range(100, 160)]

    def outputs():
        return read_layers(Decoder.of(model, hparams), {0: first[0]}, words)[0].output

    before, (own, _) = outputs(), states(model, tok, hparams, "w50")[0]
    edits.apply(model)
    moved, found = outputs() - before, states(model, tok, hparams, "w50")[0][0] - own
    edits.undo(model)
    assert float(moved.norm(dim=1).median()) < 0.1 * float(found.norm(dim=1).mean())


def test_each_spelling_has_a_neuron_of_its_own(tok, model, settings):
    """A name of several tokens is found where the layer knows what stands in front of the last one."""
    edits = execute_tars(model, tok, [request("w50 w60"), request("w70", "w4 w5")], settings())
    first, second = edits.outcomes
    assert (first.detectors, second.detectors) == (1, 1)
    assert {edit.name.split(".")[2] for edit in first.edits.edits} == {"1"}
    assert {edit.name.split(".")[2] for edit in second.edits.edits} == {"0"}
    assert {edit.name.split(".")[4] for edit in first.edits.edits} == {"gate_proj", "up_proj", "down_proj"}
    assert all(len(edit.indices) == 1 for edit in edits.edits)


def test_each_concept_comes_back_by_itself_with_both_directions(model, tok, settings):
    before = snapshot(model)
    hparams = settings(directions=["to_name", "from_name"], n_edits=1)
    words = ("w50", "w70")
    was = [apart(states(model, tok, hparams, word)) for word in words]
    first, second = execute_tars(model, tok, [request(word) for word in words], hparams).outcomes
    for outcome in (first, second):
        assert outcome.reversed == 1
        assert outcome.detectors == 1
        outcome.edits.apply(model)
    assert all(apart(states(model, tok, hparams, word)) < 0.8 * old for word, old in zip(words, was, strict=True))
    first.edits.undo(model)
    assert apart(states(model, tok, hparams, "w50")) > 0.9 * was[0]
    assert apart(states(model, tok, hparams, "w70")) < 0.8 * was[1]
    second.edits.undo(model)
    assert_same_bits(model, before)


def test_a_later_call_leaves_earlier_detectors_alone(model, tok, settings):
    hparams = settings()
    was = apart(states(model, tok, hparams, "w50"))
    assert len(set(neurons_of_three_calls(model, tok, hparams))) == 3
    assert apart(states(model, tok, hparams, "w50")) < 0.5 * was


def test_without_a_gate_as_well(tok, tmp_path):
    family = FAMILIES["gpt2"]
    model = family.make()
    changes = {"directions": ["from_name"], "spelling_layer": 1, "min_probability": 1e-9, "goal_probability": 1e-12}
    hparams = settings_of(family, "TARS", tmp_path, **changes)
    assert len(set(neurons_of_three_calls(model, tok, hparams))) == 3


def test_one_direction_alone_changes_nothing_for_the_other(model, tok, settings):
    """Only the matrices that a direction needs are written, and only a goal that was set can be missed."""
    to_name = execute_tars(model, tok, [request("w50")], settings(directions=["to_name"], n_edits=2))
    from_name = execute_tars(model, tok, [request("w50")], settings())
    assert {edit.name.split(".")[4] for edit in to_name.edits} == {"down_proj"}
    assert (to_name.outcomes[0].detectors, to_name.outcomes[0].reversed) == (0, 2)
    assert from_name.outcomes[0].reached
    assert from_name.outcomes[0].row()["detectors"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"directions": []}, "directions is empty"),
        ({"directions": ["to_names"]}, r'directions\[0\] is "to_names"; .* did you mean "to_name"'),
        ({"up_module_tmp": ""}, 'directions names from_name, but up_module_tmp is ""'),
        ({"gate_module_tmp": "model.layers.0.mlp.gate_proj"}, 'gate_module_tmp is "model.layers.0.mlp.gate_proj"; it'),
    ],
)
def test_bad_settings_name_the_field(settings, changes, message):
    with pytest.raises(InputError, match=message):
        settings(**changes)


def test_a_gate_that_is_not_named_does_not_open(model, tok, settings, caplog):
    """Then the neuron is given back, and what became of the name is said."""
    edits = execute_tars(model, tok, [request("w50")], settings(gate_module_tmp=""))
    (outcome,) = edits.outcomes
    assert (outcome.detectors, outcome.undetected, outcome.reached, edits.edits) == (0, 1, False, ())
    assert 'layer 0 does not tell "w50" from other words' in caplog.text


def test_a_name_that_nothing_is_like_is_told_from_any_names(model, tok, settings):
    tok.add_tokens(["!!!"])
    model.resize_token_embeddings(len(tok))
    (outcome,) = execute_tars(model, tok, [request("!!!")], settings()).outcomes
    assert outcome.detectors == 1


def test_a_vocabulary_larger_than_the_embeddings_is_no_harm(model, tok, settings):
    tok.add_tokens([f"more{number}" for number in range(300)])
    assert execute_tars(model, tok, [request("w50 w60")], settings()).outcomes[0].detectors == 1


def test_a_rolled_back_concept_keeps_its_facts(model, tok, settings):
    hparams = settings(directions=["to_name", "from_name"], n_edits=1, on_failure="rollback")
    edits = execute_tars(model, tok, [request("w50")], hparams)
    assert (edits.outcomes[0].detectors, edits.edits) == (0, ())


def test_a_call_with_one_concept_taken_back_does_not_stand_any_more(model, tok, settings):
    edits = execute_tars(model, tok, [request("w50"), request("w70")], settings())
    edits.apply(model)
    assert edits.stands_in(model)
    for outcome in edits.outcomes:
        outcome.edits.undo(model)
        assert not edits.stands_in(model)
        outcome.edits.apply(model)
    edits.undo(model)


@pytest.mark.parametrize(("key", "layers"), [("name_layer", [1, 2]), ("spelling_layer", [0])])
def test_a_layer_that_is_not_edited_is_refused(model, tok, settings, key, layers):
    before = snapshot(model)
    with pytest.raises(InputError, match=f"{key} is . , which is not among".replace(" ,", ",")):
        execute_tars(model, tok, [request("w50")], settings(layers=layers))
    assert_same_bits(model, before)


def test_names_beyond_a_layers_neurons_are_refused(model, tok, settings):
    before = snapshot(model)
    many = [request(f"w{number}") for number in range(100, 170)]
    with pytest.raises(InputError, match="Layer 0 has no neuron left for another name"):
        execute_tars(model, tok, many, settings())
    assert_same_bits(model, before)
