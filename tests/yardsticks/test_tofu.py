"""TOFU: its files, its metrics on answers whose probabilities are known, and the benchmark run whole."""

import json
import math
import os
from pathlib import Path

import pytest
from characters import CHARACTERS, Bigram, character_tokenizer
from helpers import copy_of

from revs_tars_plugin import InputError
from revs_tars_plugin.cli import main
from revs_tars_plugin.yardsticks import (
    RETAIN_ONLY,
    UNEDITED,
    Choices,
    Record,
    Split,
    TofuFiles,
    forget_quality,
    learn,
    read_tofu,
    tofu_scores,
)
from revs_tars_plugin.yardsticks.tofu_scores import mean_losses


def write(folder, name, rows):
    (folder / f"{name}.json").write_text("\n".join(map(json.dumps, rows)) + "\n")


def question(number, **more):
    return {"question": f"w{number} w1", "answer": f"w{number + 30} w{number + 60}", **more}


def with_choices(row, paraphrased=True):
    first, second = row["answer"].split()
    more = {"paraphrased_answer": f"w2 {first} {second}"} if paraphrased else {}
    return {**row, **more, "perturbed_answer": [f"w2 w150 {second}", f"w2 {first} w151"]}


@pytest.fixture
def folder(tmp_path):
    """Files as they are published: one author to forget, two to retain, of which the second one is not asked about."""
    place = tmp_path / "tofu"
    place.mkdir()
    forget, retain = [question(n) for n in range(3, 7)], [question(n) for n in range(8, 30)]
    write(place, "forget01", forget)
    write(place, "retain99", retain)
    write(place, "forget01_perturbed", map(with_choices, forget))
    write(place, "retain_perturbed", [with_choices(row) for row in (*retain[:2], *retain[20:])])
    for name in ("real_authors_perturbed", "world_facts_perturbed"):
        write(place, name, [with_choices(question(n), paraphrased=False) for n in (100, 102)])
    return place


def test_files_are_read_and_only_retained_authors_are_asked_about(folder):
    files = read_tofu(folder)
    assert [len(part) for part in (files.split.forget, files.split.retain)] == [4, 22]
    assert files.forget[0].record.prompt == "Question: w3 w1\nAnswer:"
    assert files.forget[0].correct == "w2 w33 w63"
    assert files.forget[0].wrong == ("w2 w150 w63", "w2 w33 w151")
    assert files.facts[0].correct == files.facts[0].record.answer
    assert len(files.retain) == 4
    fewer = read_tofu(folder, authors=1)
    assert len(fewer.split.retain) == 20 and len(fewer.retain) == 2


def test_wrong_files_are_one_sentence_with_file_line_and_field(folder):
    for name, rows, message in (
        ("forget01", [{"question": "w1"}], r"forget01.json, line 1: \"answer\" is missing"),
        ("forget01_perturbed", [], "forget01_perturbed.json is empty"),
        (
            "retain_perturbed",
            [with_choices(question(8), paraphrased=False)],
            r'line 1: "paraphrased_answer" is missing',
        ),
        ("forget01_perturbed", [question(3)], r"line 1: \"perturbed_answer\" is missing or no list of texts"),
        ("forget01_perturbed", [with_choices(question(9))], "forget01_perturbed asks other questions than forget01"),
        ("retain_perturbed", [with_choices(question(3))], "retain_perturbed asks other questions than retain99"),
    ):
        kept = (folder / f"{name}.json").read_text()
        write(folder, name, rows)
        with pytest.raises(InputError, match=message):
            read_tofu(folder)
        (folder / f"{name}.json").write_text(kept)
    for arguments, message in (({"forget": "retain99"}, "must be forget01"), ({"authors": 0}, "authors is 0")):
        with pytest.raises(InputError, match=message):
            read_tofu(folder, **arguments)
    (folder / "world_facts_perturbed.json").unlink()
    with pytest.raises(InputError, match=r"has no file world_facts_perturbed.jsonl"):
        read_tofu(folder)


def choices(prompt, answer, correct, *wrong):
    return Choices(Record(prompt, "a", "question", "forget01", prompt, answer), correct, wrong)


def files_of(*group):
    """The same questions in every place; without another wording where nothing was taught."""
    plain = tuple(Choices(each.record, each.record.answer, each.wrong) for each in group)
    records = tuple(each.record for each in group)
    return TofuFiles(Split(records, records), tuple(group), tuple(group), plain, plain)


def test_scores_by_hand_of_a_model_that_knows_nothing():
    tok = character_tokenizer(eos_token="z")
    scores = tofu_scores(Bigram({}), tok, files_of(choices("n is ", "7", "77", "3", "33", "333")))
    # Every token of every answer is as likely as any other, and so are right and wrong ones.
    assert scores["forget_Q_A_Prob"][0] == pytest.approx(1 / len(CHARACTERS))
    assert scores["forget_truth_ratio"][0] == pytest.approx(1)
    assert scores["retain_Truth_Ratio"][0] == pytest.approx(0, abs=1e-6)
    assert scores["wf_Q_A_Prob_normalised"][0] == pytest.approx(1 / 4)
    assert "forget_Q_A_Prob_normalised" not in scores
    assert scores["model_utility"][0] == 0


def test_scores_by_hand_of_a_model_that_has_learned():
    tok = character_tokenizer(eos_token="z")
    # Behind anything comes "7" with logit 2, and behind "7" the end.
    model = Bigram({("*", "7"): 2.0, ("7", "z"): 30.0}, end="z")
    total = math.exp(2) + len(CHARACTERS) - 1
    asked = choices("n is ", "7", "7", "3")
    scores = tofu_scores(model, tok, files_of(asked, choices("m is ", "7", "07", "3")))
    right, wrong = math.sqrt(math.exp(2) / total), math.sqrt(1 / total**2)
    assert scores["forget_Q_A_Prob"][0] == pytest.approx(right, rel=1e-4)
    assert scores["forget_Q_A_ROUGE"][0] == 1
    # In other words, "07": "0" is any character, and then all goes well.
    paraphrased = (math.exp(2) / total**2) ** (1 / 3)
    ratios = [wrong / right, wrong / paraphrased]
    assert [found["score"] for found in scores["forget_truth_ratio"][1].values()] == pytest.approx(ratios, rel=1e-4)
    assert scores["forget_truth_ratio"][0] == pytest.approx(sum(ratios) / 2, rel=1e-4)
    assert scores["retain_Truth_Ratio"][0] == pytest.approx(1 - sum(ratios) / 2, rel=1e-4)
    normalised = right / (right + wrong)
    assert scores["ra_Q_A_Prob_normalised"][0] == pytest.approx(normalised, rel=1e-4)
    parts = [right, 1, 1 - sum(ratios) / 2, *2 * [normalised, 1, 1 - wrong / right]]
    assert scores["model_utility"][0] == pytest.approx(9 / sum(1 / part for part in parts), rel=1e-4)


def test_the_end_of_text_token_is_a_part_of_an_answer():
    tok = character_tokenizer(eos_token="z")
    ends, goes_on = Bigram({("7", "z"): 30.0}), Bigram({("7", "7"): 30.0})
    (short,), (long,) = (mean_losses(model, tok, [("n is ", "7")]) for model in (ends, goes_on))
    assert short == pytest.approx(math.log(len(CHARACTERS)) / 2, rel=1e-4)
    assert long == pytest.approx(math.log(len(CHARACTERS)) / 2 + 15, rel=1e-4)


def test_forget_quality_is_high_for_like_truth_ratios_and_low_for_others():
    def ratios(*values):
        return {"forget_truth_ratio": (0.0, {str(n): {"score": value} for n, value in enumerate(values)})}

    spread = [n / 40 for n in range(40)]
    assert forget_quality(ratios(*spread), ratios(*spread)) == 1
    assert forget_quality(ratios(*spread), ratios(*[value + 2 for value in spread])) < 1e-10
    # By hand: two samples of two that do not overlap; one of the C(4, 2) = 6 orders is that one, one its mirror image.
    assert forget_quality(ratios(1, 2), ratios(3, 4)) == pytest.approx(2 / 6)


def checkouts_names(folder):
    """The names that open-unlearning gives its metrics of TOFU."""
    return {
        line.rsplit(".", 1)[1].strip()
        for file in folder.glob("*.yaml")
        for line in file.read_text().splitlines()[:1]
        if line.startswith("# @package")
    }


@pytest.mark.skipif(not os.environ.get("OPEN_UNLEARNING"), reason="needs a checkout of open-unlearning")
def test_metrics_have_its_names():
    tok = character_tokenizer(eos_token="z")
    scores = tofu_scores(Bigram({}), tok, files_of(choices("n is ", "7", "77", "3")))
    names = checkouts_names(Path(os.environ["OPEN_UNLEARNING"]).expanduser() / "configs/eval/tofu_metrics")
    assert "forget_quality" in names and set(scores) <= names


def test_the_command_runs_whole(model, tok, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPEN_UNLEARNING", raising=False)
    split = read_tofu(folder).split
    places = {}
    for name, records in (("learned", (*split.forget, *split.retain)), ("retain", split.retain)):
        taught = copy_of(model)
        learn(taught, tok, records, epochs=40, learning_rate=3e-3)
        places[name] = tmp_path / name / "tiny"
        taught.save_pretrained(places[name])
        tok.save_pretrained(places[name])
    command = ["bench", "tofu", str(folder), "--learned", str(places["learned"]), "--retain-only"]
    command += [str(places["retain"]), "--quiet", "--json", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == [RETAIN_ONLY, UNEDITED, "REVS"]
    assert rows[RETAIN_ONLY]["forget_quality"] == 1 > rows[UNEDITED]["forget_quality"]
    assert rows[UNEDITED]["forget_Q_A_Prob"] > 0.5 > rows["REVS"]["forget_Q_A_Prob"]
    assert rows[UNEDITED]["forget_Q_A_ROUGE"] == 1
    summary = json.loads((tmp_path / "out" / "REVS" / "TOFU_SUMMARY.json").read_text())
    assert summary["model_utility"] == rows["REVS"]["model_utility"]
    details = json.loads((tmp_path / "out" / "REVS" / "TOFU_EVAL.json").read_text())
    assert len(details["forget_truth_ratio"]["value_by_index"]) == 4
