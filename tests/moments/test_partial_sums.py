"""Second moments that were stopped go on where they were, to the bit."""

import pytest
import torch
from helpers import tiny_settings

from revs_tars_plugin.errors import InputError
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.moments import partial_sums
from revs_tars_plugin.moments import second_moments as module
from revs_tars_plugin.moments.ordinary_text import TextSource
from revs_tars_plugin.moments.second_moments import second_moments


class Stopped(Exception):
    pass


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"w{n} w{n + 1} w{2 * n}" for n in range(60)))
    return path


@pytest.fixture
def moments(model, tok, text, tmp_path, monkeypatch):
    """Reads the text into a folder, ten lines a batch; gives the moments and how many batches went through."""
    monkeypatch.setattr(partial_sums, "_EVERY", -1.0)
    monkeypatch.setattr(partial_sums, "_AT_LEAST", -1.0)
    monkeypatch.setattr(module, "text_batches", lambda sequences, _: _tens(list(sequences)))
    decoder = Decoder.of(model, tiny_settings(layers=[0, 2]))

    def run(folder, stop_at=None):
        passes = []

        def watch(*_):
            if len(passes) == stop_at:
                raise Stopped
            passes.append(1)

        handle = model.register_forward_pre_hook(watch)
        try:
            found = second_moments(decoder, tok, TextSource(str(text), 60), stats_dir=tmp_path / folder, progress=False)
            return found, len(passes)
        except Stopped:
            return None, len(passes)
        finally:
            handle.remove()

    return run


def _tens(sequences):
    return [sequences[start : start + 10] for start in range(0, len(sequences), 10)]


def test_a_stopped_run_goes_on_and_gives_the_same_bits(moments, tmp_path):
    expected, passes = moments("whole")
    assert passes == 6
    assert moments("stopped", stop_at=3) == (None, 3)
    kept = list((tmp_path / "stopped").rglob(".*.sums.safetensors"))
    assert len(kept) == 1
    assert moments("stopped", stop_at=2) == (None, 2)
    found, passes = moments("stopped")
    assert passes == 1
    assert not list((tmp_path / "stopped").rglob(".*"))
    for name, moment in expected.items():
        assert torch.equal(found[name].total, moment.total)
        assert found[name].count == moment.count == 180


def test_sums_of_another_text_or_model_are_not_gone_on_with(moments, model, text, tmp_path):
    moments("stopped", stop_at=3)
    (kept,) = (tmp_path / "stopped").rglob(".*.sums.safetensors")
    good, lines = kept.read_bytes(), text.read_text()
    text.write_text(lines.replace("w5 ", "w6 "))
    with pytest.raises(InputError, match=r"holds sums over another text; delete it to begin anew"):
        moments("stopped")
    text.write_text("\n".join(lines.splitlines()[:20]))
    with pytest.raises(InputError, match=r"holds sums over a longer text"):
        moments("stopped")
    text.write_text(lines)
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.mul_(1.5)
    _, passes = moments("stopped")
    assert passes == 6
    for path in (tmp_path / "stopped").rglob("*.npz"):
        path.unlink()
    assert not kept.exists()
    kept.write_bytes(good[:100])
    with pytest.raises(InputError, match=r"holds no sums .*delete it to begin anew"):
        moments("stopped")
