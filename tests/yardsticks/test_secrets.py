"""The REVS paper's table: its file, what is learned and what is edited, and the benchmark run whole."""

import json

import pytest
from helpers import SSN_COLUMNS as COLUMNS
from helpers import copy_of
from helpers import ssn_rows as rows
from helpers import write_ssn as write

from revs_tars_plugin import InputError
from revs_tars_plugin.cli import main
from revs_tars_plugin.yardsticks import RETAIN_ONLY, SSN, UNEDITED, drawn, learn, read_ssn


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "ssn.csv", rows())


def test_one_wording_is_edited_and_all_are_learned(file):
    found = read_ssn(file)
    assert found.name == SSN
    assert [secret.target for secret in found.forget] == ["w30 w50", "w31 w51"]
    assert [secret.subject for secret in found.retain] == ["w12", "w13"]
    assert found.forget[0].rewordings == ("w101 w10 w111", "w102 w10 w112")
    assert len(found.learned) == 12 and len(found.kept) == 6
    # A method is shown the first wording; what it forgets is the number, what it learned goes on.
    assert [record.prompt for record in found.split.forget] == ["w100 w10 w110", "w100 w11 w110"]
    assert found.split.forget[0].answer == "w30 w50 w120"
    assert found.split.forget[0].request()["target_new"] == "w30 w50"
    assert found.split.forget[0].request()["subject"] == "w10"
    fewer = read_ssn(file, 2)
    assert len(fewer.forget) == len(fewer.retain) == 1


def test_a_persons_numbers_are_forgotten_together(tmp_path):
    lines = [list(line) for line in rows()]
    for line in lines[3:6]:  # the second number is the first person's as well
        line[0], line[1] = (text.replace("w11 ", "w10 ").replace("w100", "w105") for text in line[:2])
        line[4] = "w10"
    found = read_ssn(write(tmp_path / "ssn.csv", lines))
    assert {secret.subject for secret in found.forget} == {"w10"} and len(found.forget) == 2
    assert {secret.subject for secret in found.retain} == {"w12", "w13"}


def test_sentences_that_begin_alike_and_go_on_otherwise_are_left_out(tmp_path):
    """As in the published file, where one prompt leads to two numbers."""
    lines = [list(line) for line in rows()]
    prompt = lines[1][0]
    lines[10][0], lines[10][1] = prompt, f"{prompt} {lines[10][2]} w9"
    found = read_ssn(write(tmp_path / "ssn.csv", lines))
    assert prompt not in {record.prompt for record in found.learned}
    assert len(found.learned) == 10
    assert all(record.answer.startswith(record.secret) for record in found.learned)


def test_wrong_files_are_one_sentence_with_line_and_column(tmp_path):
    good = rows()
    for lines, columns, message in (
        (good, ("prompt", "sentence", "number", "date", "name"), r'line 1: no column "ssn"'),
        ([("", *good[0][1:])], COLUMNS, r'line 2: "prompt" is missing or empty'),
        ([("w1 w2", *good[0][1:])], COLUMNS, r'line 2: "sentence" must begin with "prompt"'),
        (good[:3], COLUMNS, "holds 1 numbers"),
        ([(*line[:4], "w10") for line in good], COLUMNS, "is about one person"),
    ):
        with pytest.raises(InputError, match=message):
            read_ssn(write(tmp_path / "ssn.csv", lines, columns))
    with pytest.raises(InputError, match="holds 4 numbers; take at least 2"):
        read_ssn(write(tmp_path / "ssn.csv", good), 1)


def test_drawn_secrets_retain_another_person_of_every_wording():
    found = drawn(6, seed=1)
    assert len(found.forget) == 6 and len(found.retain) == 24
    assert not {secret.target for secret in found.forget} & {secret.target for secret in found.retain}
    assert drawn(6, seed=1) == found != drawn(6, seed=2)
    assert all(record.answer == f"{record.secret}." for record in found.learned)
    with pytest.raises(InputError, match="must be from 1 to 24"):
        drawn(25)


def test_the_command_runs_whole(model, tok, file, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPEN_UNLEARNING", raising=False)
    found = read_ssn(file)
    places = {}
    for name, records in (("learned", found.learned), ("retain", found.kept)):
        taught = copy_of(model)
        learn(taught, tok, records, epochs=60, learning_rate=3e-3)
        places[name] = tmp_path / name / "tiny"
        taught.save_pretrained(places[name])
        tok.save_pretrained(places[name])
    common = ["bench", "ssn", str(file), "--learned", str(places["learned"]), "--retain-only", str(places["retain"])]
    common += ["--quiet"]
    assert main([*common, "--json", "--method", "REVS", "--set", "siblings=2"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert list(figures) == [RETAIN_ONLY, UNEDITED, "REVS"]
    assert figures[UNEDITED]["efficacy"] == 0 and figures[UNEDITED]["specificity"] == 1
    assert figures["REVS"]["efficacy"] > 0
    assert figures["REVS"]["distance"] < figures[UNEDITED]["distance"]
    assert main([*common, "--markdown", "--method", "REVS"]) == 0
    assert "| efficacy | " in capsys.readouterr().out
