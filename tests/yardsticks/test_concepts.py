"""Concepts side by side: a model that knows them by itself, so that nobody learned all else."""

import json

import pytest
from helpers import copy_of

from revs_tars_plugin import InputError
from revs_tars_plugin.cli import main
from revs_tars_plugin.data import ConceptRecord
from revs_tars_plugin.yardsticks import UNEDITED, Concepts, Record, learn

PROMPTS = ("w1 w2 w3", "w4 w5 w6", "w7 w8")
CONCEPT = ConceptRecord("w9", PROMPTS, ("w1 w5 w3",), (("w9 w11", "w12"),))


@pytest.fixture
def knowing(model, tok):
    taught = copy_of(model)
    learn(taught, tok, [Record(prompt, "a", "prompt", "", prompt, "w9") for prompt in PROMPTS], learning_rate=3e-3)
    return taught


def test_what_is_unrelated_counts_as_kept_until_it_changes(knowing, tok):
    unrelated = ("w20 w21", "w22 w23", "w24 w25")
    near = ConceptRecord("w50", ("w51 w52",), ("w53",), (("w50 w54", "w55"),))
    found = Concepts.of(knowing, tok, [CONCEPT], unrelated, ["w30 w31 w32 w33", "w34"], neighbours=[near])
    assert found.near == ("w51 w52", "w53", "w50 w54")
    assert [record.answer for record in found.split.forget] == ["w9"] * 3
    # Half of each text is to follow the other half; one word cannot be halved.
    assert [(record.prompt, record.answer) for record in found.split.retain] == [("w30 w31", "w32 w33")]
    before = found.scores(knowing, tok)
    assert before["unrelated, kept"][0] == before["neighbours, kept"][0] == 1
    assert before["concept"][0] > 0.5
    changed = copy_of(knowing)
    told = [Record(each, "u", "prompt", "", each, "w40 w41") for each in (unrelated[0], "w50 w54")]
    learn(changed, tok, told, learning_rate=3e-3)
    after = found.scores(changed, tok)
    assert after["unrelated, kept"][1]["0"]["score"] == 0
    assert after["neighbours, kept"][1]["2"]["score"] == 0
    assert max(after["unrelated, kept"][0], after["neighbours, kept"][0]) < 1
    assert found.against(after, before) == {}
    with pytest.raises(InputError, match="no concepts to forget"):
        Concepts.of(knowing, tok, [], unrelated, [])


def test_the_command_runs_whole(knowing, tok, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPEN_UNLEARNING", raising=False)
    place = tmp_path / "tiny"
    knowing.save_pretrained(place)
    tok.save_pretrained(place)
    concepts = {"name": "w9", "prompts": list(PROMPTS), "held_out": ["w1 w5 w3"]}
    file = tmp_path / "concepts.yaml"
    neighbour = {"name": "w70", "prompts": ["w71 w72"]}
    file.write_text(json.dumps({"concepts": [concepts, neighbour], "unrelated": ["w20 w21"]}))
    text = tmp_path / "text.txt"
    text.write_text("w60 w61 w62 w63 w64 w65\n" * 40)
    command = ["bench", "concepts", str(file), "--model", str(place), "--quiet", "--json", "--method", "TARS"]
    command += ["--count", "1", "--set", f"mom2_dataset={text}", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == [UNEDITED, "TARS"]
    assert rows["TARS"]["concept"] < rows[UNEDITED]["concept"]
    assert rows[UNEDITED]["neighbours, kept"] == 1
    assert "distance" not in rows["TARS"] and rows["TARS"]["seconds"] > 0
    assert (tmp_path / "out" / "TARS" / "Concepts_SUMMARY.json").is_file()
