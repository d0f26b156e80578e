"""The concept vector: a state of the model, at the layer and position that are named."""

import pytest
import torch

from revs_tars_plugin import InputError
from revs_tars_plugin.tars.concept_vector import concept_states

PROMPTS = [(1, 2, 3), (4, 5, 6, 7, 8)]


@pytest.mark.parametrize(("layer", "position"), [(-1, -1), (1, 0), (0, -2)])
def test_the_concept_vector_is_the_mean_of_the_prompts_states(model, decoder, layer, position):
    states = concept_states(decoder, PROMPTS, layer, position)
    expected = []
    for prompt in PROMPTS:
        seen = []
        handle = model.model.layers[layer].register_forward_hook(lambda _m, _a, output, seen=seen: seen.append(output))
        with torch.no_grad():
            model(torch.tensor([prompt]))
        handle.remove()
        output = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        expected.append(output[0, position] if output.dim() == 3 else output[position])
    torch.testing.assert_close(states.vector, torch.stack(expected).mean(0), rtol=1e-4, atol=1e-4)
    assert states.activations.keys() == {0, 2}
    assert states.activations[2].shape == (2, 64)


def test_layers_and_positions_that_do_not_exist_are_named(decoder):
    with pytest.raises(InputError, match="concept_layer is 3, but the model has layers 0 to 2"):
        concept_states(decoder, PROMPTS, 3, -1)
    with pytest.raises(InputError, match="concept_position is -4, but a concept prompt has only 3 tokens"):
        concept_states(decoder, PROMPTS, -1, -4)
