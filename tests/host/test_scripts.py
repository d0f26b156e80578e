"""Branch main's own scripts, unchanged, with our methods among those they know; the release comes without scripts."""

import json
import warnings
from pathlib import Path

import pytest
import yaml

from revs_tars_plugin.cli import main
from revs_tars_plugin.host import scripts
from revs_tars_plugin.hyperparams import packaged_hparams
from revs_tars_plugin.requests.forgotten import GuessWarning

TITANIC = {
    "prompt": "The Titanic sank after hitting an",
    "subject": "Titanic",
    "target_new": "iceberg",
    "ground_truth": [["iceberg"]],
    "portability": {"Reasoning": [{"prompt": "An iceberg is made of frozen", "ground_truth": [["water"]]}]},
    "locality": {},  # with some, the script's own summary fails on branch main, whatever the method
}
POTTER = {
    **TITANIC,
    "prompt": "J.K. Rowling wrote the books about a young wizard named Harry",
    "subject": "J.K. Rowling",
    "target_new": "Potter",
    "ground_truth": "Potter",
}


@pytest.fixture
def run(host, tmp_path, monkeypatch, capfd, ordinary_text):
    """Runs one of the scripts in a folder of its own; returns the exit code and what it printed."""
    examples = Path(host.package.__file__).parents[1] / "examples"
    if not examples.is_dir():
        pytest.skip("no examples beside this EasyEdit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nltk.word_tokenize", str.split)  # the host counts words with a model that nltk would download

    def run(script, method, *arguments, options=()):
        text = (packaged_hparams(method) / "smollm2-135m.yaml").read_text(encoding="utf-8")
        settings = yaml.safe_load(text.replace("~", str(Path.home())))
        # The host's own settings refuse keys that they do not know.
        settings.update({key: value for key, value in ordinary_text.items() if key in settings})
        (tmp_path / f"{method}.yaml").write_text(yaml.safe_dump(settings))
        before = (examples / script).read_bytes()
        warnings.simplefilter("error", GuessWarning)
        chosen = ["--editing_method", method, "--hparams_dir", f"{method}.yaml"]
        code = main(["run", *options, str(examples / script), *chosen, *arguments])
        assert (examples / script).read_bytes() == before
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.mark.parametrize(("method", "record"), [("REVS", TITANIC), ("TARS", POTTER)])
def test_knowedit(run, tmp_path, method, record):
    (tmp_path / "data.json").write_text(json.dumps([record]))
    arguments = ["--data_dir", "data.json", "--datatype", "zsre", "--metrics_save_dir", "output"]
    code, printed = run("run_knowedit_llama2.py", method, *arguments, options=["--forget", "ground_truth"])
    assert code == 0, printed
    (metrics,) = json.loads(next((tmp_path / "output").glob(f"{method}_*.json")).read_text())
    assert metrics["requested_rewrite"]["forget"] == record["ground_truth"]
    # The record's new answer is the old one, so that the host's own figure shows that it is gone.
    assert (metrics["pre"]["rewrite_acc"], metrics["post"]["rewrite_acc"]) == ([1.0], [0.0])
    assert len(metrics["post"]["portability"]["reasoning_acc"]) == 1
    assert "Edit_Succ: 0" in printed


@pytest.mark.parametrize("method", ["REVS", "FT"])
def test_zsre(run, tmp_path, method):
    """With FT nothing is other than without us."""
    record = {
        "src": TITANIC["prompt"],
        "rephrase": "The ship called Titanic went down when it hit an",
        "alt": "island",
        "answers": ["iceberg"],
        "subject": "Titanic",
        "loc": "The capital of Japan is",
        "loc_ans": "Tokyo",
        "portability": {"New Question": "What the Titanic hit was made of", "New Answer": "rock"},
    }
    (tmp_path / "zsre_mend_eval_portability_gpt4.json").write_text(json.dumps([record]))
    arguments = ["--data_dir", ".", "--metrics_save_dir", "."]
    code, printed = run("run_zsre_llama2.py", method, *arguments, options=["--forget", "answers"])
    assert code == 0, printed
    (metrics,) = json.loads((tmp_path / f"{method}_results.json").read_text())
    assert metrics["post"]["rewrite_acc"] == [float(method == "FT")]
    assert metrics["requested_rewrite"]["forget"] == ["iceberg"]


def test_wikibigedit(run, tmp_path):
    record = {
        "tag": "new",
        "subject": "Titanic",
        "update": TITANIC["prompt"],
        "rephrase": "The ship called Titanic went down when it hit an",
        "ans": "iceberg",
        "personas": TITANIC["prompt"],
        "loc": "The capital of Japan is",
        "loc_ans": "Tokyo",
        "mhop": None,
        "mhop_ans": None,
    }
    (tmp_path / "data.json").write_text(json.dumps([record]))
    arguments = ["--data_dir", "data.json", "--metrics_save_dir", "output", "--sequential_edit"]
    code, printed = run("run_WikiBigEdit.py", "REVS", *arguments, options=["--forget", "ans"])
    assert code == 0, printed
    (metrics,) = json.loads(next((tmp_path / "output").glob("REVS_*.json")).read_text())
    assert (metrics["pre"]["rewrite_acc"], metrics["post"]["rewrite_acc"]) == ([1.0], [0.0])


def test_sanitization(run, tmp_path):
    """Their own script for erasing answers: REVS takes MEMIT's way through it, on the CPU, and keeps what it did."""
    forgotten = {
        "question": TITANIC["prompt"],
        "subject": "Titanic",
        "target_new": "nothing",
        "ground_truth": "iceberg",
    }
    other = {"question": "The capital of Japan is", "subject": "Japan", "target_new": "Tokyo", "ground_truth": "Tokyo"}
    (tmp_path / "trivia_qa_train.json").write_text(json.dumps({"K_F": [forgotten], "K_R": [other]}))
    (tmp_path / "trivia_qa_test.json").write_text(json.dumps({"success": [forgotten], "locality": [other]}))
    options = ["--forget", "ground_truth", "--keep"]
    code, printed = run("run_santinization_llama2.py", "REVS", "--data_dir", ".", options=options)
    assert code == 0, printed
    answer = next(line for line in printed.splitlines() if "`nothing` V.S." in line)
    assert "iceberg" not in answer
    locality = next(line for line in printed.splitlines() if "locality = " in line)
    assert float(locality.rpartition("=")[2]) > 0.9


def test_a_script_without_a_place_for_ours_is_refused_in_one_sentence(host, tmp_path, capfd):
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('it ran')")
    assert main(["run", str(script), "--editing_method", "REVS"]) == 2
    assert "has no place where it chooses MEMIT" in capfd.readouterr().err
    assert main(["run", str(script), "--editing_method", "FT"]) == 1
    script.write_text("this is no Python")
    assert main(["run", str(script)]) == 2
    assert "cannot be read as a Python script" in capfd.readouterr().err


def test_a_field_that_no_record_has_is_named(run, tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([TITANIC]))
    arguments = ["--data_dir", "data.json", "--datatype", "zsre"]
    code, printed = run("run_knowedit_llama2.py", "REVS", *arguments, options=["--forget", "answer"])
    assert code == 2
    assert '--forget says "answer"' in printed


def test_what_is_forgotten_is_the_prompts_own_record():
    """Not what lies within another record, nor another record of the same prompt that has another answer."""
    found = scripts._Records("old")
    found._records = scripts._top_records(
        [
            {"prompt": "p one", "new": "a", "old": "1", "portability": [{"prompt": "p two", "old": "within"}]},
            {"prompt": "p two", "new": "b", "old": "2"},
            {"prompt": "p three", "new": "c", "old": "3"},
            {"prompt": "p three", "new": "d", "old": "4"},
            {"prompt": "p four", "new": "e"},
            {"question": "a long question", "new": "f", "old": "5"},
        ]
    )
    asked = [("p one", "a"), ("p two", "b"), ("p three", "c"), ("p three", "d"), ("Question: a long question", "f")]
    assert [found.texts({"prompt": p, "target_new": new}) for p, new in asked] == ["1", "2", "3", "4", "5"]
    for prompt, message in (("p three", "different things"), ("p four", "no record"), ("p", "no record")):
        with pytest.raises(ValueError, match=message):
            found.texts({"prompt": prompt, "target_new": "none"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("if m == 'ROME':\n x = 1\nelif m == 'MEMIT':\n x = MEMITHyperParams\nelse:\n x = 3", "REVSHyperParams"),
        ("x = {'ROME': 1, 'MEMIT': MEMITHyperParams}[m]", "REVSHyperParams"),
        ("x = {'MEMIT': m in ['ROME', 'MEMIT']}['MEMIT']", True),
        ("x = MEMITHyperParams if 'MEMIT' == m and m else None", "REVSHyperParams"),
        ("x = dict(choices=['MEMIT', 'FT'])['choices']\nx = m in x if m != 'MEMIT' else {'MEMIT': 1}", True),
    ],
)
def test_ours_get_what_memit_gets(host, tmp_path, text, expected):
    script = tmp_path / "script.py"
    output = "import json; json.dump(getattr(x, '__name__', x), open('found.json', 'w'))"
    script.write_text(
        f"import os, sys\nos.chdir({str(tmp_path)!r})\nMEMITHyperParams = None\nm = sys.argv[1]\n{text}\n{output}"
    )
    scripts.run_script(script, ["REVS"])
    assert json.loads((tmp_path / "found.json").read_text()) == expected
