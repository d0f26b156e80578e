"""Second moments: the sum over real positions, in the host's files."""

import numpy as np
import pytest
import torch

from revs_tars_plugin.errors import InputError
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.moments.ordinary_text import TextSource
from revs_tars_plugin.moments.second_moments import collect, second_moments, temporary_moments

WEIGHT = "model.layers.{}.mlp.down_proj.weight"


@pytest.fixture
def decoder(model, hparams):
    return Decoder.of(model, hparams)


def slow_moments(model, sequences, layer):
    inputs = []
    handle = model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    with torch.no_grad():
        for sequence in sequences:
            model(torch.tensor([sequence]))
    handle.remove()
    rows = torch.cat([part[0] for part in inputs]).double()
    return rows.T @ rows, len(rows)


def test_padding_does_not_count(model, decoder):
    sequences = [[1, 2, 3, 4, 5, 6], [7, 8], [9]]
    found = temporary_moments(decoder, sequences)
    for layer in (0, 2):
        total, count = slow_moments(model, sequences, layer)
        assert found[WEIGHT.format(layer)].count == count == 9
        torch.testing.assert_close(found[WEIGHT.format(layer)].total.double(), total, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[WEIGHT.format(layer)].mean.double(), total / 9, rtol=1e-4, atol=1e-5)


def test_files_have_the_hosts_path_and_layout(tmp_path, model, tok, decoder):
    text = tmp_path / "news.txt"
    text.write_text("w1 w2 w3\n\nw4 w5\nw6\n")
    model.config._name_or_path = "somewhere/tiny"
    found = second_moments(decoder, tok, TextSource(str(text), 2), stats_dir=tmp_path, progress=False)
    assert found[WEIGHT.format(0)].count == 5  # two paragraphs, the empty line skipped
    path = tmp_path / "tiny" / "news_stats" / "model.layers.1.mlp.down_proj_float32_mom2_2.npz"
    state = np.load(path)
    assert set(state.files) == {"mom2.constructor", "mom2.count", "mom2.mom2", "sample_size"}
    assert int(state["sample_size"]) == 2
    text.unlink()
    again = second_moments(decoder, tok, TextSource(str(text), 2), stats_dir=tmp_path, progress=False)
    assert torch.equal(again[WEIGHT.format(1)].total, found[WEIGHT.format(1)].total)
    # The folder holds the three layers' files and nothing unfinished.
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".npz"] * 3


def test_sources_that_cannot_be_read_are_named(tmp_path, tok, decoder):
    def ask(source):
        second_moments(decoder, tok, TextSource(source, 2), stats_dir=tmp_path, progress=False)

    with pytest.raises(InputError, match=r"absent\.txt cannot be read"):
        ask(str(tmp_path / "absent.txt"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="no text"):
        ask(str(tmp_path / "empty.txt"))
    with pytest.raises(InputError, match='data set "wikipedia" cannot be read'):
        ask("wikipedia")


def test_layers_that_do_not_fit_together_take_several_passes(model, hparams):
    decoder = Decoder.of(model, hparams)
    sequences = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]
    runs = []
    handle = model.register_forward_hook(lambda *_: runs.append(1))
    together, apart = {}, {}
    collect(decoder, iter(sequences), together.__setitem__)
    one = len(runs)
    collect(decoder, iter(sequences), apart.__setitem__, most_bytes=4 * 64**2 * 2)
    handle.remove()
    assert (one, len(runs)) == (1, 3)  # three layers, two at a time
    assert list(together) == list(apart) == [WEIGHT.format(layer) for layer in range(3)]
    for name, moment in together.items():
        assert torch.equal(moment.total, apart[name].total)
        assert moment.count == apart[name].count == 9
