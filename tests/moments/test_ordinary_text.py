"""Ordinary text: from files, or what the model itself says."""

import torch
from helpers import tiny_settings

from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.moments.ordinary_text import TextSource, sample_from_model
from revs_tars_plugin.moments.second_moments import second_moments


def test_text_sampled_from_the_model_is_the_same_for_the_same_seed(model, tok):
    def sample(seed):
        return list(sample_from_model(model, tok, 5, 12, seed=seed, batch_size=2))

    first = sample(0)
    assert len(first) == 5
    assert {len(sequence) for sequence in first} == {12}
    assert sample(0) == first != sample(1)


def test_sampled_text_is_likely_text(model, tok, tmp_path):
    """Tokens are drawn from the model's own distribution, so they are likelier than random ones."""
    sampled = torch.tensor(list(sample_from_model(model, tok, 40, 12, seed=0)))
    random_ids = torch.randint(0, 201, sampled.shape, generator=torch.Generator().manual_seed(0))

    def mean_log_probability(ids):
        with torch.no_grad():
            log_probabilities = model(ids).logits[:, :-1].log_softmax(-1)
        return float(log_probabilities.gather(2, ids[:, 1:, None]).mean())

    assert mean_log_probability(sampled) > mean_log_probability(random_ids) + 0.5
    decoder = Decoder.of(model, tiny_settings(layers=[1]))
    found = second_moments(decoder, tok, TextSource("sampled", 3, 8), stats_dir=tmp_path, progress=False)
    assert [moment.count for moment in found.values()] == [24]
