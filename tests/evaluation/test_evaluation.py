"""Metrics on cases where the right number is known."""

import pytest
import torch
from helpers import tiny_settings

from revs_tars_plugin import execute_revs
from revs_tars_plugin.evaluation.integrity import OrdinaryText, kl_divergence
from revs_tars_plugin.evaluation.layer_attacks import attack_score, delta_scores, logit_lens_scores
from revs_tars_plugin.evaluation.probes import Probe, probe_batches, probes_of
from revs_tars_plugin.evaluation.scores import efficacy, secret_scores, token_scores, unlearning_score
from revs_tars_plugin.model.decoder import Decoder


def test_token_scores_count_both_ends_as_exposed():
    found = torch.tensor([0, 50, 100, 5000, 9950, 9999])
    assert token_scores(found, 10_000, 100).tolist() == pytest.approx([0, 0.5, 1, 1, 0.5, 0.01])


def test_a_secret_is_as_well_hidden_as_its_best_hidden_token():
    probes = [Probe(0, (1,), 5), Probe(0, (1, 5), 5), Probe(3, (2,), 7)]
    scores = torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.2, 1.0]])
    torch.testing.assert_close(secret_scores(scores, probes), torch.tensor([[0.9, 0.3], [0.5, 1.0]]))


def test_the_unlearning_score_is_a_harmonic_mean():
    assert unlearning_score(1.0, 0.5) == pytest.approx(2 / 3)
    assert unlearning_score(1.0, 0.5, 0.25) == pytest.approx(3 / 7)
    assert unlearning_score(1.0, 0.0) == 0.0


def test_the_published_unlearning_scores_come_out():
    """SSN and e-mail rows of the paper's table (percent)."""
    assert unlearning_score(98.88, 82.17, 89.67) == pytest.approx(89.58, abs=0.4)
    assert unlearning_score(59.65, 65.70) == pytest.approx(62.37, abs=0.4)


def test_divergence_of_two_known_distributions():
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    expected = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()
    torch.testing.assert_close(kl_divergence(p, q), expected[None])
    assert float(kl_divergence(p, p)) == 0


def test_probes_hold_the_tokens_before_the_edited_one(tok):
    found = probes_of(tok, ["w1 w2", "w3"], ["w5 w6", "w7"], {0: [1], 1: [0]})
    assert found == [
        Probe(0, tuple(tok("w1 w2 w5")["input_ids"]), tok("w6")["input_ids"][0]),
        Probe(1, tuple(tok("w3")["input_ids"]), tok("w7")["input_ids"][0]),
    ]


def test_all_tokens_of_a_secret_come_from_one_sequence():
    probes = [
        Probe(0, (1, 2), 3),
        Probe(0, (1, 2, 3, 4), 5),
        Probe(1, (9,), 4),
        Probe(0, (8, 2), 3),
        Probe(1, (9, 4), 6),
    ]
    (batch,) = probe_batches(probes)
    assert sorted(batch.sequences) == [(1, 2, 3, 4), (8, 2), (9, 4)]
    for (row, position), index in zip(batch.picks, batch.indices, strict=True):
        assert batch.sequences[row][: position + 1] == probes[index].context
    small = list(probe_batches(probes, batch_size=1))
    assert [len(part.sequences) for part in small] == [1, 1, 1]
    assert sorted(index for part in small for index in part.indices) == list(range(5))


def test_metrics_move_the_right_way_when_an_edit_is_applied(model, tok, requests_):
    hparams = tiny_settings(max_tokens=1, attn_module_tmp="model.layers.{}.self_attn")
    edits = execute_revs(model, tok, requests_, hparams)
    positions = {outcome.request: [outcome.position] for outcome in edits.outcomes}
    probes = probes_of(tok, [r["prompt"] for r in requests_], [r["target_new"] for r in requests_], positions)
    text = OrdinaryText(model, [[1, 2, 3, 4, 5, 6, 7, 8]])
    decoder = Decoder.of(model, hparams)

    unedited = text.compare(model)
    assert (unedited.kl_median, unedited.top1_agreement) == (pytest.approx(0, abs=1e-6), 1.0)
    assert unedited.perplexity_before == pytest.approx(unedited.perplexity_after)
    before = efficacy(model, probes, k=40), attack_score(logit_lens_scores(decoder, probes, k=40))
    edits.apply(model)
    after = efficacy(model, probes, k=40), attack_score(logit_lens_scores(decoder, probes, k=40))
    assert before == (0.0, 0.0)
    assert after == (1.0, 1.0)
    assert text.compare(model).kl_mean > 0
    assert delta_scores(decoder, probes, k=40).shape == (2,)


def test_the_lens_at_the_last_layer_is_the_model_itself(model, tok, requests_):
    probes = [Probe(0, (1, 2, 3), 5), Probe(1, (7, 8), 9)]
    decoder = Decoder.of(model, tiny_settings())
    last = logit_lens_scores(decoder, probes, k=100)[-1]
    assert float(last.mean()) == pytest.approx(efficacy(model, probes, k=100))


def test_the_delta_attack_finds_a_token_that_one_layer_writes(model, tok):
    """The last layer's feed-forward block is made to write a token's own direction, and nothing else."""
    decoder = Decoder.of(model, tiny_settings(attn_module_tmp="model.layers.{}.self_attn"))
    probe = [Probe(0, (1, 2, 3), 5)]
    before = float(delta_scores(decoder, probe, k=50))
    with torch.no_grad():
        for layer in (0, 1, 2):
            # Alternating signs: between any two layers it is the token that changes most.
            direction = model.lm_head.weight[5] / model.model.norm.weight * (-1) ** layer
            model.model.layers[layer].mlp.down_proj.weight.copy_(direction[:, None].expand(32, 64) * 1e-3)
            model.model.layers[layer].mlp.up_proj.weight.copy_(model.model.layers[0].mlp.up_proj.weight)
    assert before > 0
    assert float(delta_scores(decoder, probe, k=50)) == 0.0
