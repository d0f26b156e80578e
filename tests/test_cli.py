"""Every command, run as a user runs it, on a tiny model in a folder."""

import json
import logging
from pathlib import Path

import pytest
import torch
import yaml
from helpers import assert_same_bits, snapshot, tiny_settings, tiny_tars
from transformers import AutoModelForCausalLM

from revs_tars_plugin import EditSet
from revs_tars_plugin.cli import main
from revs_tars_plugin.data import SecretRecord

SECRETS = ("w1 w2 w3", "w50 w60 w70 w80")
RETAINED = "w11 w12"


@pytest.fixture
def folder(model, tok, tmp_path):
    """A checkpoint as a user has one."""
    model.save_pretrained(tmp_path / "model")
    tok.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def said(model, tok):
    """What the model says after each prompt."""

    def after(prompt):
        ids = tok(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            out = model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0)
        return tok.decode(out[0, ids.shape[1] :])

    return after


@pytest.fixture
def secrets(said, tmp_path):
    lines = [f"{prompt},{said(prompt)},,no" for prompt in SECRETS]
    path = tmp_path / "secrets.csv"
    path.write_text("\n".join(["prompt,target,rephrase_prompt,retain", *lines, f"{RETAINED},{said(RETAINED)},,yes"]))
    return path


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_settings(device="cpu").to_dict()))
    return path


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command; gives exit code, standard output and standard error."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def edited(run, folder, secrets, settings, tmp_path):
    """A saved edit and the merged model."""
    code, _, err = run(
        *("edit", secrets, "-m", folder, "-s", settings, "-o", tmp_path / "edit.safetensors"),
        *("--merged", tmp_path / "merged", "--quiet"),
    )
    assert code == 0, err
    return tmp_path / "edit.safetensors"


def test_edit_writes_an_edit_and_the_edited_model(run, model, folder, secrets, settings, tmp_path):
    before = snapshot(AutoModelForCausalLM.from_pretrained(folder))
    code, out, err = run(
        *(
            "edit",
            secrets,
            "-m",
            folder,
            "-s",
            settings,
            "-o",
            tmp_path / "e.safetensors",
            "--merged",
            tmp_path / "new",
        ),
        *("--json", "--require", "reached>=1", "--quiet"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["summary"]["reached"] == 1
    assert [row["rank before"] for row in found["outcomes"]] == [0] * 4
    assert all(row["rank after"] >= row["rank asked"] > 0 for row in found["outcomes"])
    assert_same_bits(AutoModelForCausalLM.from_pretrained(folder), before)
    EditSet.load(tmp_path / "e.safetensors").apply(model)
    assert_same_bits(AutoModelForCausalLM.from_pretrained(tmp_path / "new"), snapshot(model))


def test_without_settings_the_names_are_found_and_the_best_measured_ones_taken(run, folder, secrets, tmp_path):
    code, out, err = run("edit", secrets, "-m", folder, "-o", tmp_path / "e.safetensors", "--json")
    assert code == 0, err
    assert json.loads(out)["summary"]["reached"] == 1
    saved = EditSet.load(tmp_path / "e.safetensors").settings
    assert saved["localization"] == "covariance"
    assert saved["layers"] == [2]  # the later half of three
    # Statistics lie in a folder that belongs to these weights, whatever the model's folder is called.
    assert len(list((tmp_path / "home").rglob("*.npz"))) == 1
    assert "editing" in err  # a progress bar
    assert run("edit", secrets, "-m", folder, "-o", tmp_path / "f.safetensors", "-q")[2] == ""


def test_a_setting_may_be_changed_on_the_command_line(run, folder, secrets, settings, tmp_path):
    arguments = ("edit", secrets, "-m", folder, "-s", settings, "-o", tmp_path / "e.safetensors", "--seed", 3)
    assert run(*arguments, "--set", "max_tokens=1", "--set", "layers=[1, 2]")[0] == 0
    saved = EditSet.load(tmp_path / "e.safetensors").settings
    assert (saved["max_tokens"], saved["layers"], saved["seed"]) == (1, [1, 2], 3)


def test_undo_gives_the_bits_back_with_and_without_the_base(run, folder, edited, tmp_path):
    before = snapshot(AutoModelForCausalLM.from_pretrained(folder))
    for index, extra in enumerate(([], ["--base", folder])):
        target = tmp_path / f"restored{index}"
        code, _, err = run("undo", edited, "-m", tmp_path / "merged", "-o", target, *extra)
        assert code == 0, err
        assert_same_bits(AutoModelForCausalLM.from_pretrained(target), before)
    code, _, err = run("undo", edited, "-m", folder, "-o", tmp_path / "other")
    assert (code, "is not applied on this model" in err) == (2, True)
    assert not (tmp_path / "other").exists()


def test_an_edit_by_products_is_undone_by_the_base_alone(run, folder, secrets, tmp_path):
    paths = tmp_path / "e.safetensors", tmp_path / "merged"
    assert run("edit", secrets, "-m", folder, "-o", paths[0], "--merged", paths[1])[0] == 0
    before = snapshot(AutoModelForCausalLM.from_pretrained(folder))
    assert run("undo", paths[0], "-m", paths[1], "-o", tmp_path / "a")[0] == 2
    code, _, err = run("undo", paths[0], "-m", paths[1], "--base", folder, "-o", tmp_path / "a")
    assert code == 0, err
    assert_same_bits(AutoModelForCausalLM.from_pretrained(tmp_path / "a"), before)
    code, _, err = run("undo", paths[0], "-m", folder, "--base", folder, "-o", tmp_path / "b")
    assert (code, "is not the base's with this edit" in err) == (2, True)


def test_an_edit_may_stand_on_an_earlier_one(run, folder, secrets, edited, settings, said, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(f"prompt,target\n{RETAINED},{said(RETAINED)}\n")
    second = tmp_path / "second.safetensors"
    code, _, err = run("edit", other, "-m", folder, "-s", settings, "--after", edited, "-o", second)
    assert code == 0, err
    model = AutoModelForCausalLM.from_pretrained(folder)
    for path in (edited, second):
        EditSet.load(path).apply(model)


def test_evaluate_measures_before_and_after_and_the_report_is_drawn(run, folder, secrets, edited, tmp_path):
    result = tmp_path / "result.json"
    code, out, err = run(
        *("evaluate", secrets, "-m", folder, "-e", edited, "-o", result, "--k", 20, "--samples", 3, "--json"),
        *("--require", "efficacy>=0.99"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["before"]["summary"]["efficacy"], found["after"]["summary"]["efficacy"]) == (0, 1)
    assert len(found["after"]["ranks"]) == 2
    assert len(found["after"]["ranks"][0]) == 3
    assert [ranks[-1] for ranks in found["before"]["ranks"]] == [0, 0]
    assert len(found["after"]["divergences"]) > 100
    assert max(found["before"]["divergences"]) < 1e-4 < max(found["after"]["divergences"])
    assert run("report", result, "-o", tmp_path / "r.html")[0] == 0
    assert "<svg" in (tmp_path / "r.html").read_text()


def test_evaluate_takes_a_merged_model_and_its_base(run, folder, secrets, edited, tmp_path):
    arguments = ("--attack", "logit lens", "--k", 20, "--json")
    by_edit = json.loads(run("evaluate", secrets, "-m", folder, "-e", edited, *arguments)[1])
    by_base = json.loads(run("evaluate", secrets, "-m", tmp_path / "merged", "--base", folder, *arguments)[1])
    assert by_edit == by_base
    alone = json.loads(run("evaluate", secrets, "-m", tmp_path / "merged", *arguments)[1])
    assert alone["after"]["summary"]["efficacy"] == by_edit["after"]["summary"]["efficacy"]
    assert "before" not in alone


def test_a_missed_goal_is_exit_code_1(run, folder, secrets, settings, tmp_path):
    arguments = ("evaluate", secrets, "-m", folder, "--k", 20, "--attack", "logit lens")
    code, _, err = run(*arguments, "--require", "efficacy>=0.5")
    assert (code, err.splitlines()[-1]) == (1, "goal not met: efficacy is 0, required >= 0.5")
    assert run(*arguments, "--require", "efficacy<=0.5")[0] == 0


def test_concepts_come_as_yaml(run, folder, said, tmp_path):
    concept = tmp_path / "concepts.yaml"
    name = said("w1 w2 w3").split()[0]
    concept.write_text(yaml.safe_dump({"concepts": [{"name": name, "prompts": ["w1 w2 w3"]}]}))
    path = tmp_path / "tars.yaml"
    path.write_text(yaml.safe_dump(tiny_tars(device="cpu").to_dict()))
    edit = tmp_path / "e.safetensors"
    code, out, err = run("edit", concept, "-m", folder, "-s", path, "-o", edit, "--json")
    assert code == 0, err
    (row,) = json.loads(out)["outcomes"]
    assert row["probability after"] < 0.01 < row["probability before"]
    assert name not in out
    code, out, err = run("evaluate", concept, "-m", folder, "-e", edit, "-o", tmp_path / "r.json", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["after"]["summary"]["concept"] < found["before"]["summary"]["concept"]
    assert run("report", tmp_path / "r.json", "-o", tmp_path / "r.html")[0] == 0


def test_requests_may_come_through_standard_input(run, folder, secrets, settings, said, tmp_path, monkeypatch):
    lines = [json.dumps({"prompt": prompt, "target": said(prompt)}) for prompt in SECRETS]
    for index, text in enumerate(("\n".join(lines), secrets.read_text())):
        monkeypatch.setattr("sys.stdin", __import__("io").StringIO(text))
        code, _, err = run("edit", "-", "-m", folder, "-s", settings, "-o", tmp_path / f"{index}.safetensors")
        assert code == 0, err


def test_stats_are_measured_once(run, folder, tmp_path):
    code, out, err = run("stats", "-m", folder, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found["files"]) == ["2"]
    written = Path(found["files"]["2"]).stat().st_mtime_ns
    assert "second moments" in err
    assert "second moments" not in run("stats", "-m", folder)[2]
    assert Path(found["files"]["2"]).stat().st_mtime_ns == written


def test_export_writes_what_others_load(run, folder, edited, secrets, tmp_path):
    result = tmp_path / "result.json"
    run("evaluate", secrets, "-m", folder, "-e", edited, "-o", result, "--k", 20, "--attack", "logit lens")
    assert run("export", "peft", edited, "-o", tmp_path / "adapter", "--base-model", "org/base")[0] == 0
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert run("export", "merged", edited, "-m", folder, "-o", tmp_path / "whole", "--result", result)[0] == 0
    merged = snapshot(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    assert_same_bits(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"), merged)
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "| efficacy | 0 | 1 |" in card
    assert run("export", "card", edited, "-o", tmp_path / "card", "--base-model", "org/base")[0] == 0
    assert "base_model: org/base" in (tmp_path / "card" / "README.md").read_text()


def test_secrets_are_masked_unless_asked_for(run, folder, secrets, edited, settings, said, tmp_path, caplog):
    """In tables, in JSON, in results, in the report, in the log and in errors."""
    shown, hidden = tmp_path / "shown.json", tmp_path / "hidden.json"
    arguments = ("evaluate", secrets, "-m", folder, "-e", edited, "--k", 20, "--attack", "logit lens")
    targets = [said(prompt) for prompt in SECRETS]
    _, out, err = run(*arguments, "-o", hidden)
    assert run(*arguments, "-o", shown, "--show-secrets")[0] == 0
    assert all(target in shown.read_text() for target in targets)
    assert not any(target in text for target in targets for text in (out, err, hidden.read_text()))
    for source, asked, wanted in ((hidden, (), False), (shown, (), False), (shown, ("--show-secrets",), True)):
        page = tmp_path / "page.html"
        assert run("report", source, "-o", page, "--overwrite", *asked)[0] == 0
        assert all((target in page.read_text()) == wanted for target in targets)
    code, _, err = run("report", hidden, "-o", tmp_path / "p.html", "--show-secrets")
    assert (code, "was written without the secrets" in err) == (2, True)


def test_the_log_is_masked(run, folder, said, tmp_path):
    """TARS says which concept the model does not know."""
    concept = tmp_path / "concepts.yaml"
    concept.write_text(yaml.safe_dump({"concepts": [{"name": "w199", "prompts": ["w1 w2 w3"]}]}))
    path = tmp_path / "tars.yaml"
    path.write_text(yaml.safe_dump(tiny_tars(device="cpu").to_dict()))
    arguments = ("edit", concept, "-m", folder, "-s", path, "-q", "--overwrite", "-o", tmp_path / "e.safetensors")
    _, _, err = run(*arguments)
    assert 'does not know "••••"' in err
    assert "w199" in run(*arguments, "--show-secrets")[2]
    assert not [h for h in logging.getLogger("revs_tars_plugin").handlers if isinstance(h, logging.StreamHandler)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["edit", "secrets.csv", "-m", "model"], "Missing option '--output'"),
        (["edit", "none.csv", "-m", "model", "-o", "e.safetensors"], "none.csv cannot be read: No such file"),
        (["edit", "my secret", "-m", "model", "-o", "e.safetensors"], "FILE must end in .csv"),
        (["edit", "secrets.csv", "--target", "123", "-m", "model", "-o", "e"], "stay in the shell's history"),
        (["edit", "secrets.csv", "-m", "./none", "-o", "e.safetensors"], 'the folder "none", which is not there'),
        (["edit", "secrets.csv", "-m", "org/none", "-o", "e.safetensors"], "--model org/none cannot be loaded"),
        (["edit", "secrets.csv", "-m", "home", "-o", "e.safetensors"], "--model home cannot be loaded"),
        (["edit", "secrets.csv", "-m", "model", "-o", "secrets.csv"], "secrets.csv is there already"),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--dtype", "float31"], 'did you mean "float32"?'),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--device", "gpu7"], '--device is "gpu7", which torch'),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--method", "REV"], 'did you mean "REVS"?'),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "-s", "llama3-9b"], 'did you mean "llama3-8b"?'),
        (
            ["edit", "secrets.csv", "-m", "model", "-o", "e", "-s", "tiny.yaml", "--method", "TARS"],
            'settings of "REVS"',
        ),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--set", "max_token=1"], 'did you mean "max_tokens"?'),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--set", "max_tokens=0"], "max_tokens is 0; it must be"),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--require", "reached"], "write a figure, >= or <="),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "-s", "tiny.yaml", "--protect"], "--protect needs REVS"),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--sed", "1"], "No such option"),
        (["evaluate", "secrets.csv", "-m", "model", "--attack", "lens"], "--attack is"),
        (["evaluate", "secrets.csv", "-m", "model", "--k", "1000"], "k is 1000"),
        (["evaluate", "secrets.csv", "-m", "model", "--tokens", "some"], 'positions is "some"'),
        (["evaluate", "secrets.csv", "-m", "model", "-e", "tiny.yaml"], "is no whole safetensors file"),
        (["evaluate", "secrets.csv", "-m", "model", "-e", "x", "--base", "y"], "leave one out"),
        (["evaluate", "secrets.csv", "-m", "model", "--attack", "delta", "--require", "efficac>=1"], "did you mean"),
        (["undo", "none.safetensors", "-m", "model", "-o", "x"], "There is no file none.safetensors"),
        (["report", "tiny.yaml", "-o", "x.html"], "tiny.yaml is no JSON"),
        (["report", "model/config.json", "-o", "x.html"], "is no result of evaluate or compare"),
        (["export", "peft", "none.safetensors", "-o", "x"], "There is no file none.safetensors"),
        (["compare", "-m", "model"], "--model needs FILE"),
        (["upstream", "model"], "There is no EasyEdit clone"),
        (["run", "none.py"], "There is no script none.py"),
        (["edits"], "No such command"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    run, folder, secrets, settings, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    Path("home").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*arguments, *(["--quiet"] if arguments[0] in ("edit", "evaluate") else []))
    last = err.splitlines()[-1]
    assert code == 2
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in out + err
    assert not [path for path in tmp_path.rglob("*") if path not in before and "home" not in path.parts]


def test_debug_shows_where(run, tmp_path):
    _, _, err = run("report", tmp_path / "none.json", "-o", tmp_path / "x.html", "--debug")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_an_error_of_our_own_making_says_so(run, monkeypatch, tmp_path):
    monkeypatch.setattr("revs_tars_plugin.results.read_result", lambda _path: 1 / 0)
    code, _, err = run("report", tmp_path / "x.json", "-o", tmp_path / "x.html")
    assert (code, err) == (70, "error: unexpected ZeroDivisionError: division by zero; --debug shows where\n")


def test_help_version_and_completion(run):
    code, out, _ = run()
    assert code == 0
    commands = ("demo", "stats", "edit", "undo", "evaluate", "compare", "export", "report", "upstream", "run")
    assert all(command in out for command in commands)
    for command in commands:
        code, own, _ = run(command, "--help")
        assert code == 0
        assert "Example:" in own or command == "export"
    assert run("--version")[1].strip()
    assert run("export", "peft", "--help")[0] == 0


def test_records_survive_the_way_through_the_file(secrets):
    from revs_tars_plugin.data import read_secrets

    assert [record.retain for record in read_secrets(secrets)] == [False, False, True]
    assert isinstance(read_secrets(secrets)[0], SecretRecord)
