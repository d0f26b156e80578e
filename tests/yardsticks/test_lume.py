"""LUME: its files, what it measures on hand-made answers, and a benchmark run whole on a model that learned a few."""

import json

import pytest
import torch
from characters import Bigram, character_tokenizer
from helpers import copy_of

from revs_tars_plugin import InputError
from revs_tars_plugin.cli import main
from revs_tars_plugin.evaluation import still_generated
from revs_tars_plugin.yardsticks import (
    RETAIN_ONLY,
    UNEDITED,
    Lume,
    Record,
    Split,
    learn,
    lume_scores,
    read_lume,
    side_by_side,
    write_open_unlearning,
)


def line(person, kind, prompt, answer, task="Task2"):
    return json.dumps({"id": f"{person}{kind}", "input": prompt, "output": answer, "task": task})


@pytest.fixture
def folder(tmp_path):
    """Files as they are published, with four people to forget and two to retain."""
    place = tmp_path / "lume"
    place.mkdir()
    for part, first, count in (("forget", 0, 4), ("retain", 4, 2)):
        lines = [line("story", "sc1", "once upon", "a time", "Task1")]
        for number in range(first, first + count):
            lines.append(line(f"p{number}", "sc1", f"w{number + 10} w1 w2", f"w{number + 30} w{number + 40} w3"))
            lines.append(line(f"p{number}", "qa0", f"w{number + 10} w5", f"w{number + 30}"))
        (place / f"{part}-set.jsonl").write_text("\n".join(lines) + "\n")
    return place


def test_people_are_read_whole_and_the_next_ones_stay_unseen(folder):
    split = read_lume(folder, people=2)
    assert [record.identifier for record in split.forget] == ["p0sc1", "p0qa0", "p1sc1", "p1qa0"]
    assert {record.person for record in split.retain} == {"p4", "p5"}
    assert {record.person for record in split.unseen} == {"p2", "p3"}
    assert {record.kind for record in split.forget} == {"completion", "question"}
    everything = read_lume(folder, tasks=("Task1", "Task2"))
    assert len(everything.forget) == 9 and everything.unseen == ()


def test_wrong_files_are_one_sentence_with_file_line_and_field(folder, tmp_path):
    forget = folder / "forget-set.jsonl"
    good = forget.read_text()
    for content, message in (
        ("{", r"line 1, column 2: not JSON"),
        ("[]", "line 1: not a JSON object"),
        ('{"id": "p0sc1", "input": "x", "task": "Task2"}', 'line 1: "output" is missing'),
        (line("p0", "xx1", "w1", "w2"), 'line 1: "id" is p0xx1; it must end in sc or qa'),
        (line("p0", "sc1", "w1", "w2", "Task3"), "has no records of Task2"),
    ):
        forget.write_text(content)
        with pytest.raises(InputError, match=message):
            read_lume(folder)
    forget.write_text(good)
    (folder / "more-forget.jsonl").write_text(good)
    with pytest.raises(InputError, match=r"one file with \"forget\".*it holds forget-set.jsonl, more-forget.jsonl"):
        read_lume(folder)
    with pytest.raises(InputError, match="is no folder"):
        read_lume(tmp_path / "none")
    with pytest.raises(InputError, match="people is 0"):
        read_lume(folder, people=0)


def record(kind, prompt, answer, name="a"):
    return Record(f"{name}{kind}{prompt}", name, kind, "Task2", prompt, answer)


def test_scores_by_hand():
    """The model says "7" whatever it is asked, and ends nowhere."""
    tok = character_tokenizer(eos_token="z")
    says_7, ends = Bigram({("*", "7"): 9.0}), Bigram({("*", "7"): 9.0, ("7", "z"): 20.0}, end="z")
    split = Split(
        forget=(record("completion", "n is ", "7 7 3 3"), record("question", "n is ", "7")),
        retain=(record("completion", "x is ", "7"), record("question", "x is ", "7"), record("question", "x is ", "8")),
        unseen=(record("question", "u is ", "8"),),
    )
    scores = lume_scores(ends, tok, split)
    # Of the four words of the completion one is said; the question is answered word for word, and then it ends.
    assert scores["forget_regurgitation"][0] == 0.25
    assert scores["forget_knowledge"][0] == 1
    assert scores["retain_knowledge"][0] == 0.5
    assert scores["retain_regurgitation"][0] == 1
    assert scores["task_aggregate"][0] == 0
    # One that does not end has not answered.
    assert lume_scores(says_7, tok, split)["forget_knowledge"][0] == 0
    # By their losses "7" was rather learned than "8", and the completion, most of which is not expected, rather not.
    assert scores["membership"][0] == 0.5
    assert scores["membership_score"][0] == 1


def test_the_task_aggregate_is_a_harmonic_mean():
    tok = character_tokenizer(eos_token="z")
    ends = Bigram({("*", "7"): 9.0, ("7", "z"): 20.0}, end="z")
    split = Split(
        forget=(record("completion", "n is ", "7 3"), record("question", "n is ", "8")),
        retain=(record("completion", "x is ", "7"), record("question", "x is ", "7")),
    )
    scores = lume_scores(ends, tok, split)
    assert scores["task_aggregate"][0] == pytest.approx(4 / (1 / 0.5 + 1 + 1 + 1))
    assert "membership" not in scores


def test_results_are_in_open_unlearnings_layout(tmp_path):
    scores = {"b": (0.5, {"p0sc1": {"score": 0.5}}), "a": (1.0, {})}
    place = write_open_unlearning(tmp_path / "out", "LUME", scores)
    assert json.loads((place / "LUME_EVAL.json").read_text()) == {
        "a": {"agg_value": 1.0},
        "b": {"agg_value": 0.5, "value_by_index": {"p0sc1": {"score": 0.5}}},
    }
    assert json.loads((place / "LUME_SUMMARY.json").read_text()) == {"a": 1.0, "b": 0.5}
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_open_unlearning(tmp_path / "file" / "out", "LUME", scores)


def test_a_model_that_learned_answers_and_ends_and_one_that_did_not_does_neither(model, tok, folder):
    split = read_lume(folder, people=2)
    learned, retain_only = copy_of(model), copy_of(model)
    learn(learned, tok, (*split.forget, *split.retain), epochs=60, learning_rate=3e-3)
    learn(retain_only, tok, split.retain, epochs=60, learning_rate=3e-3)
    assert all(still_generated(learned, tok, [r.prompt for r in split.forget], [r.answer for r in split.forget]))

    def damaged(edited):
        with torch.no_grad():
            edited.lm_head.weight.mul_(-1)

    benchmark = Lume(split)
    rows = {
        row.name: row
        for row in side_by_side(learned, retain_only, tok, benchmark, {"damage": damaged}, text=["w1 w2 w3"])
    }
    assert list(rows) == [RETAIN_ONLY, UNEDITED, "damage"]
    gold = rows[RETAIN_ONLY]
    before, after = (rows[name].figures(gold, benchmark.compared) for name in (UNEDITED, "damage"))
    assert before["forget_knowledge"] == before["retain_knowledge"] == before["forget_regurgitation"] == 1
    assert before["membership"] == 1
    assert gold.figures(gold)["forget_knowledge"] == gold.figures(gold, benchmark.compared)["distance"] == 0
    assert gold.figures(gold)["retain_knowledge"] == 1
    assert after["retain_knowledge"] == 0
    assert before["kl_median"] < 1e-6 < after["kl_median"]
    assert after["seconds"] > 0 and "seconds" not in before
    assert before["exposure, top"] > after["exposure, top"]


def test_a_way_that_fails_is_a_row_that_says_so_and_the_others_go_on(model, tok, folder):
    split = read_lume(folder, people=2)

    class Prepared:
        """A way that reads something first, which is no part of its time."""

        prepared = False

        def prepare(self, _model):
            self.prepared = True

        def __call__(self, _model):
            assert self.prepared

    def failing(_model):
        raise MemoryError("too much\nof it")

    rows = list(side_by_side(model, None, tok, Lume(split), {"failing": failing, "prepared": Prepared()}))
    assert [row.name for row in rows] == [UNEDITED, "failing", "prepared"]
    assert rows[1].error == "MemoryError: too much of it" and rows[1].figures(rows[0], ("membership",)) == {}
    assert rows[2].error is None and rows[2].scores == rows[0].scores


def test_models_of_two_vocabularies_are_refused(model, tok, folder):
    other = copy_of(model)
    other.resize_token_embeddings(300)
    with pytest.raises(InputError, match="retain-only model has a vocabulary of 300, the one that learned all 201"):
        next(side_by_side(model, other, tok, Lume(read_lume(folder)), {}))


def test_a_tokenizer_without_an_end_of_text_is_refused(model, folder):
    with pytest.raises(InputError, match="no end-of-text token"):
        learn(model, character_tokenizer(), read_lume(folder).forget)


def test_the_command_runs_whole(model, tok, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPEN_UNLEARNING", raising=False)
    split = read_lume(folder, people=2)
    places = {}
    for name, records in (("learned", (*split.forget, *split.retain)), ("retain", split.retain)):
        taught = copy_of(model)
        learn(taught, tok, records, epochs=40, learning_rate=3e-3)
        places[name] = tmp_path / name / "tiny"
        taught.save_pretrained(places[name])
        tok.save_pretrained(places[name])
    common = ["bench", "lume", str(folder), "--people", "2", "--learned", str(places["learned"])]
    common += ["--retain-only", str(places["retain"]), "--quiet", "--json"]
    assert main([*common, "--method", "REVS", "-o", str(tmp_path / "out"), "--set", "max_length=64"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == [RETAIN_ONLY, UNEDITED, "REVS"]
    assert rows["REVS"]["forget_knowledge"] < rows[UNEDITED]["forget_knowledge"] == 1
    assert rows["REVS"]["distance"] < rows[UNEDITED]["distance"]
    for row in ("unedited", "retain-only-model", "REVS"):
        assert "forget_knowledge" in json.loads((tmp_path / "out" / row / "LUME_SUMMARY.json").read_text())
    # A second run takes the rows that are there, and measures what changed or is new.
    again = [*common[:-2], "--json", "-o", str(tmp_path / "out"), "--set", "max_length=64", "--method", "REVS"]
    assert main([*again, "--method", "FT-L-delete"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) | {"FT-L-delete": 0} == rows | {"FT-L-delete": 0}
    for row, how in (
        (RETAIN_ONLY, "taken from"),
        (UNEDITED, "taken from"),
        ("REVS", "taken from"),
        ("FT-L-delete", "measur"),
    ):
        assert f"{row}: {how}" in printed.err
    assert main([*again, "--set", "batch_size=3"]) == 0
    assert f"{UNEDITED}: measured" not in (said := capsys.readouterr().err) and "REVS: measured" in said
    (tmp_path / "out" / "REVS.row.json").write_text("{}")
    assert main(again) == 2
    assert "REVS.row.json is no row that was kept" in capsys.readouterr().err
    for method, message in (("NPO", "is run from a checkout of open-unlearning"), ("REVZ", "it must be of REVS")):
        assert main([*common, "--method", method]) == 2
        assert message in capsys.readouterr().err


def test_a_base_learns_once_and_is_kept(model, tok, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPEN_UNLEARNING", raising=False)
    base = tmp_path / "tiny"
    model.save_pretrained(base)
    tok.save_pretrained(base)
    command = [
        "bench",
        "lume",
        str(folder),
        "--people",
        "2",
        "--epochs",
        "2",
        "--json",
        "--set",
        "siblings=0",
        "--model",
    ]
    assert main([*command, str(base)]) == 0
    said = capsys.readouterr().err
    assert "\nlearned: epoch 2 of 2" in f"\n{said}" and "retain-only: epoch 2 of 2" in said
    assert main([*command, str(base)]) == 0
    assert ": epoch" not in capsys.readouterr().err
    assert main([*command, str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
