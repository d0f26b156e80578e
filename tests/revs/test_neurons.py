"""`localization: neurons`: the pass that edits sees what the edited model does."""

import torch

from revs_tars_plugin.edits.trial import TrialEdits
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.forward import next_token_logits
from revs_tars_plugin.requests.reading import read_requests
from revs_tars_plugin.revs.neurons import NeuronLocalization
from revs_tars_plugin.revs.targets import Goal


def test_the_forward_pass_sees_the_edit_as_the_edited_model_does(model, tok, requests_, hparams):
    decoder = Decoder.of(model, hparams)
    secret = read_requests(requests_, tok)[0]
    margins = hparams.ranks(decoder.lens.size)
    assert decoder.after_ff2  # found in passes of its own
    seen = []
    handle = model.model.norm.register_forward_hook(lambda _module, _args, output: seen.append(output[0, -1]))
    with TrialEdits() as trial:
        goal = Goal(secret.target_ids[0], (secret.context(0),), margins.residual_bottom_rank)
        (parts,) = NeuronLocalization(decoder, margins, hparams, torch.Generator(), trial).demote([goal])
        assert parts.layers > 0
        next_token_logits(model, [secret.context(0)])
    handle.remove()
    next_token_logits(model, [secret.context(0)])
    in_the_pass, edited = seen
    torch.testing.assert_close(in_the_pass, edited, rtol=1e-4, atol=1e-4)
