"""Text that a model made once is the same for the model after an edit."""

import pytest
import torch

from revs_tars_plugin import InputError
from revs_tars_plugin.moments.kept_text import kept_sequences
from revs_tars_plugin.moments.ordinary_text import TextSource, sequences_of


def test_a_changed_model_has_the_text_that_it_made_before(model, tok, tmp_path):
    source = TextSource("sampled", 3, max_tokens=8)
    before = [list(ids) for ids in sequences_of(model, tok, source)]
    kept = [list(ids) for ids in kept_sequences(model, tok, source, stats_dir=tmp_path)]
    assert kept == before
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    assert [list(ids) for ids in sequences_of(model, tok, source)] != before
    assert [list(ids) for ids in kept_sequences(model, tok, source, stats_dir=tmp_path)] == before
    model.resize_token_embeddings(210)
    kept_sequences(model, tok, source, stats_dir=tmp_path)
    assert len(list(tmp_path.rglob("text_*.npy"))) == 2  # another model of this name has its own
    other = TextSource("sampled", 3, max_tokens=8, seed=1)
    assert [list(ids) for ids in kept_sequences(model, tok, other, stats_dir=tmp_path)] != before


def test_a_broken_file_is_named(model, tok, tmp_path):
    source = TextSource("sampled", 3, max_tokens=8)
    list(kept_sequences(model, tok, source, stats_dir=tmp_path))
    (file,) = tmp_path.rglob("text_*.npy")
    file.write_bytes(b"no array")
    with pytest.raises(InputError, match=f"{file.name} is no file of token ids"):
        kept_sequences(model, tok, source, stats_dir=tmp_path)
