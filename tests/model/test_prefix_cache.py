"""The prefix cache: running the last tokens alone gives what running everything gives."""

import pytest
import torch
from architectures import gpt2, gptj
from helpers import tiny_settings
from transformers import MambaConfig, MambaForCausalLM

from revs_tars_plugin import execute_revs
from revs_tars_plugin.model.prefix_cache import PrefixCache

CONTEXTS = [(1, 2, 3, 4), (5, 6), (7, 8, 9, 10, 11, 12, 13), (7, 8, 9)]


def norm_outputs(module, run):
    """The final norm's output, for every sequence's last token where they are not padded."""
    seen = []
    handle = module.register_forward_hook(lambda _module, _args, output: seen.append(output))
    run()
    handle.remove()
    return seen


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gptj"])
def test_last_tokens_see_their_prefixes(kind, model):
    if kind != "llama":
        torch.manual_seed(0)
        model = {"gpt2": gpt2, "gptj": gptj}[kind]()[0].eval()
    norm = model.model.norm if kind == "llama" else model.transformer.ln_f
    prefixes = PrefixCache.read(model, CONTEXTS)
    for _ in range(2):  # running leaves the prefixes as they were
        (together,) = norm_outputs(norm, lambda: prefixes.run(model))
        assert together.shape[:2] == (4, 1)
        for row, context in enumerate(CONTEXTS):
            (alone,) = norm_outputs(norm, lambda context=context: model(torch.tensor([context])))
            torch.testing.assert_close(together[row, 0], alone[0, -1], rtol=1e-4, atol=1e-4)


def test_changed_weights_reach_the_last_tokens_only(model):
    """Why the ranks are measured afterwards: what an edit does to the prefix itself is not seen here."""
    prefixes = PrefixCache.read(model, CONTEXTS)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(1.1)
    (together,) = norm_outputs(model.model.norm, lambda: prefixes.run(model))
    again = PrefixCache.read(model, CONTEXTS)
    (fresh,) = norm_outputs(model.model.norm, lambda: again.run(model))
    assert not torch.allclose(together, fresh, atol=1e-3)


def test_models_and_contexts_without_a_prefix_are_told_apart(model):
    assert PrefixCache.read(model, [(1, 2), (3,)]) is None
    torch.manual_seed(0)
    mamba = MambaForCausalLM(MambaConfig(vocab_size=201, hidden_size=32, num_hidden_layers=2, state_size=4)).eval()
    assert PrefixCache.read(mamba, CONTEXTS) is None


def test_the_edit_is_the_same_where_no_prefix_can_be_kept(model, tok, requests_, monkeypatch, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"w{i} w{i + 1} w{i + 2}" for i in range(100)))
    hparams = tiny_settings(
        localization="covariance",
        mom2_dataset=str(tmp_path / "text.txt"),
        stats_dir=str(tmp_path),
        max_tokens=1,
        siblings=0,
        perturbed_contexts=0,
    )
    with_prefixes = execute_revs(model, tok, requests_, hparams)
    monkeypatch.setattr(PrefixCache, "read", classmethod(lambda *_: None))
    without = execute_revs(model, tok, requests_, hparams)
    for outcome in (*with_prefixes.outcomes, *without.outcomes):
        assert outcome.rank_before == 0
        assert outcome.reached
