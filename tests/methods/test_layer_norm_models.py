"""GPT-2 and GPT-J: LayerNorm, `Conv1D`, biases, attention beside the feed-forward block."""

import random

import pytest
import torch
from architectures import PROMPT, gpt2, gptj, said
from helpers import assert_same_bits, snapshot, tiny_settings

from revs_tars_plugin import execute_revs
from revs_tars_plugin.requests.reading import read_requests


@pytest.mark.parametrize("localization", ["neurons", "covariance"])
@pytest.mark.parametrize("make", [gpt2, gptj])
def test_ranks_are_reached_and_undo_is_bitwise(make, localization, tok, tmp_path):
    torch.manual_seed(0)
    model, ff2 = make()
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" in name:
                parameter.uniform_(0.5, 1.5)
            elif "mlp" in name:
                parameter.mul_(3)
    text, generator = tmp_path / "text.txt", random.Random(0)
    text.write_text("\n".join(" ".join(f"w{generator.randrange(200)}" for _ in range(20)) for _ in range(20)))
    hparams = tiny_settings(
        rewrite_module_tmp=ff2,
        layer_module_tmp="transformer.h.{}",
        mlp_module_tmp="transformer.h.{}.mlp",
        ln_f_module="transformer.ln_f",
        localization=localization,
        n_neurons=40,
        max_tokens=1,
        residual_bottom_rank=60,
        mom2_dataset=str(text),
        mom2_n_samples=20,
        stats_dir=str(tmp_path),
    )
    target = said(model, tok)
    requests = [{"prompt": PROMPT, "target_new": tok.decode([target])}]
    before = snapshot(model)
    edits = execute_revs(model, tok, requests, hparams)
    assert_same_bits(model, before)
    edits.apply(model)
    (secret,) = read_requests(requests, tok)
    with torch.no_grad():
        logits = model(torch.tensor([secret.context(0)])).logits[0, -1]
    assert int((logits > logits[target]).sum()) >= 60
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {ff2.format(layer) + ".weight" for layer in range(3)}
    edits.undo(model)
    assert_same_bits(model, before)
