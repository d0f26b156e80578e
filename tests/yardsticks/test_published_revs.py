"""The published REVS code as a row: its own code where a checkout is named."""

import os
import sys
from pathlib import Path

import pytest
from helpers import copy_of, snapshot, tiny_settings

from revs_tars_plugin import InputError
from revs_tars_plugin.cli import main
from revs_tars_plugin.yardsticks import PublishedRevs

CHECKOUT = os.environ.get("REVS_REFERENCE", "")


def test_what_is_no_checkout_is_one_sentence(tok, tmp_path, capsys, monkeypatch):
    with pytest.raises(InputError, match=r"is no checkout of the published REVS code: it has no revs/revs\.py"):
        PublishedRevs(tmp_path, tok, [], tiny_settings())
    monkeypatch.delenv("REVS_REFERENCE", raising=False)
    assert main(["bench", "secrets", "--method", "published-REVS"]) == 2
    assert "name its folder in REVS_REFERENCE" in capsys.readouterr().err


@pytest.mark.skipif(not CHECKOUT, reason="needs a checkout of the published REVS code")
def test_the_published_code_edits_neurons_and_leaves_no_module_behind(model, tok, requests_):
    edited = copy_of(model)
    before, modules = snapshot(model), set(sys.modules)
    settings = tiny_settings(neuron_bottom_rank=0.5, neuron_top_rank=0.9, n_neurons=5, act_filter="top_10")
    published = PublishedRevs(Path(CHECKOUT).expanduser(), tok, requests_, settings)
    published(edited)
    changed = {name for name, value in edited.state_dict().items() if not value.equal(before[name])}
    assert changed and all("down_proj" in name for name in changed)
    reached, asked = published.reached(edited)
    assert 0 < reached <= asked and published.reached(model)[0] < reached
    assert not {name for name in set(sys.modules) - modules if name.split(".")[0] in ("revs", "utils")}
