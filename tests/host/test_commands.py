"""The commands that go through EasyEdit, run with the real one and the real SmolLM2."""

import json

import pytest

from revs_tars_plugin.cli import main
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.host import comparison

SCRIPT = """
import sys
from easyeditor import BaseEditor, REVSHyperParams
from easyeditor.util.alg_dict import ALG_DICT
from helper_beside import PROMPT

assert __name__ == "__main__" and sys.argv[1:] == ["--name", "x"], sys.argv
assert "REVS" in ALG_DICT and "TARS" in ALG_DICT
hparams = REVSHyperParams.from_hparams("smollm2-135m-paper")
editor = BaseEditor.from_hparams(hparams)
metrics, model, _ = editor.edit(
    prompts=[PROMPT], target_new=["iceberg"], sequential_edit=True, keep_original_weight=False, verbose=False
)
print("accuracy", metrics[0]["pre"]["rewrite_acc"], metrics[0]["post"]["rewrite_acc"])
sys.exit(int(metrics[0]["post"]["rewrite_acc"][0]))
"""


def test_the_demo_forgets(host, capfd):
    assert main(["demo", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert len(found["facts"]) == 4
    for fact in found["facts"]:
        before, after = fact["its probability"]
        assert after < 0.01
        assert before > 0.9
        (top, top_after), (bottom, bottom_after) = fact["exposed, bits\nfrom the top"], fact["from the\nbottom"]
        assert (top, bottom) == (6, 0)
        assert top_after < 4.5
        assert 0 < bottom_after < 4.5
        assert fact["host's\nrewrite_acc"] == 0
    for row in found["concept"]:
        before, after = row["probability of the name"]
        assert after < 0.005 < before
    assert all(row["same first token"] == "yes" for row in found["unrelated"])
    assert main(["demo", "--jsn"]) == 2


def test_run_registers_and_runs_a_script_as_python_does(host, tmp_path, capfd):
    (tmp_path / "helper_beside.py").write_text('PROMPT = "The Titanic sank after hitting an"')
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    assert main(["run", str(script), "--name", "x"]) == 0, capfd.readouterr().err
    assert "accuracy [1.0] [0.0]" in capfd.readouterr().out.replace("np.float64(", "").replace(")", "")
    script.write_text("raise SystemExit(3)")
    assert main(["run", str(script)]) == 3


def test_compare_prints_a_row_for_each_and_goes_on_where_it_was_stopped(
    host, ordinary_text, tmp_path, capsys, monkeypatch
):
    secrets, result = tmp_path / "secrets.csv", tmp_path / "comparison.json"
    secrets.write_text(
        "prompt,target,subject,retain\n"
        "The Titanic sank after hitting an,iceberg,Titanic,\n"
        "The capital of Japan is,Tokyo,Japan,yes\n"
    )
    methods = [argument for name in ("REVS", "FT-L-delete") for argument in ("--method", name)]
    text = ["--text", ordinary_text["mom2_dataset"]]  # the model would need a minute or two to write its own
    arguments = ["compare", str(secrets), "-m", str(demo_model()), *methods, *text, "-o", str(result), "--quiet"]
    arguments += ["--attack", "exposure"]
    measured, whole = [], comparison._row

    def row_of(editor, *others):
        measured.append(editor.alg_name)
        if measured == ["REVS", "FT-L-delete"]:
            raise KeyboardInterrupt
        return whole(editor, *others)

    monkeypatch.setattr(comparison, "_row", row_of)
    assert main(arguments) == 130
    assert not result.exists()
    # What is there is not measured again, and when all is there the rows go.
    assert main([*arguments, "--json", "--require", "REVS.efficacy>=0.99"]) == 0
    assert measured == ["REVS", "FT-L-delete", "FT-L-delete"]
    assert not list(tmp_path.glob("*.rows"))
    rows = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["error"]) for row in rows] == [("no edit", None), ("REVS", None), ("FT-L-delete", None)]
    assert rows[0]["figures"]["efficacy"] == 0
    assert rows[1]["figures"]["efficacy"] > 0.99
    assert rows[1]["figures"].keys() >= {"exposure, top"}
    assert "resistance_score" not in rows[1]["figures"]
    assert main(["report", str(result), "-o", str(tmp_path / "report.html")]) == 0
    assert main(["compare", str(secrets), "-m", str(demo_model()), "--method", "ROMA"]) == 2
    assert 'did you mean "ROME"?' in capsys.readouterr().err
    for changed, said in {
        ("exposition",): '--attack is "exposition"',
        ("in-context", "--attack", "exposure", "--require", "REVS.paraphrase<=0"): 'without --attack "paraphrase"',
    }.items():
        assert main([*arguments[:-1], *changed, "--overwrite"]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["compare", "-m", "x"], ["run", "none.py"]])
def test_bad_input_is_exit_code_2(host, arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")
