"""Every command, run as a user runs it, on a tiny model in a folder."""

import io
import json
from pathlib import Path

import torch
import yaml
from helpers import RETAINED, SECRETS, assert_same_bits, snapshot, tiny_tars
from transformers import AutoModelForCausalLM

from revs_tars_plugin import EditSet
from revs_tars_plugin.data import SecretRecord, read_secrets


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


def test_secrets_at_chance_need_no_edit(run, folder, secrets, tmp_path, monkeypatch):
    monkeypatch.setattr("revs_tars_plugin.revs.revs_main.targets_above_chance", lambda *_: [])
    code, out, err = run("edit", secrets, "-m", folder, "-o", tmp_path / "e.safetensors", "--require", "reached>=1")
    assert code == 0, err
    assert "Nothing had to be changed" in out
    assert not (tmp_path / "e.safetensors").exists()


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


def test_a_secret_is_brought_to_chance_by_two_settings(run, folder, secrets, tmp_path):
    edit = tmp_path / "e.safetensors"
    changes = ("--set", "aim=chance", "--set", "schedule=support_vectors")
    code, out, err = run("edit", secrets, "-m", folder, "-o", edit, *changes, "--json")
    assert code == 0, err
    saved = EditSet.load(edit).settings
    assert (saved["aim"], saved["schedule"], saved["localization"]) == ("chance", "support_vectors", "covariance")
    rows = json.loads(out)["outcomes"]
    assert rows and all(row["probability asked"] < row["probability before"] for row in rows)
    assert "probability asked" in run("edit", secrets, "-m", folder, "-o", tmp_path / "f.safetensors", *changes)[1]


def test_device_and_dtype_are_the_model_s(run, folder, secrets, settings, tmp_path):
    arguments = ("-m", folder, "-s", settings, "-o", tmp_path / "e.safetensors", "--merged", tmp_path / "half")
    code, _, err = run("edit", secrets, *arguments, "--dtype", "bfloat16", "--device", "cpu")
    assert code == 0, err
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert model.dtype == torch.bfloat16
    assert {edit.after.dtype for edit in EditSet.load(tmp_path / "e.safetensors").edits} == {torch.bfloat16}
    assert run("evaluate", secrets, "-m", folder, "--device", "auto", "--k", 20, "--attack", "logit lens")[0] == 0


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


def test_a_model_that_never_learned_the_secrets_is_measured_beside(run, folder, secrets, edited):
    arguments = ("evaluate", secrets, "-m", folder, "--attack", "exposure", "--k", 20)
    code, out, err = run(*arguments, "--never-learned", folder, "--json")
    assert code == 0, err
    after = json.loads(out)["after"]
    assert after["controls"]["never learned"]["exposure, top"] == after["summary"]["exposure, top"]
    assert "never learned" in run(*arguments, "--never-learned", folder)[1]
    assert "never learned" not in run(*arguments)[1]
    goal = ("--require", "exposure, top, over never learned<=0")
    assert run(*arguments, "--never-learned", folder, *goal)[0] == 0
    assert run(*arguments, *goal)[0] == 2


def test_an_attack_that_needs_more_than_it_was_given_says_so(run, folder, tmp_path):
    alone = tmp_path / "alone.csv"
    alone.write_text("prompt,target\nw1 w2 w3,w5\n")
    model = "--never-learned MODEL"
    for attack, needed in {"guidance": model, "merging": model, "in-context": "lines with retain"}.items():
        code, _, err = run("evaluate", alone, "-m", folder, "--attack", attack)
        assert (code, err.splitlines()[-1]) == (2, f"error: --attack {attack} needs {needed}.")


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
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        code, _, err = run("edit", "-", "-m", folder, "-s", settings, "-o", tmp_path / f"{index}.safetensors")
        assert code == 0, err


def test_stats_are_measured_once(run, folder, tmp_path):
    code, out, err = run("stats", "-m", folder, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found["files"]) == ["model.layers.2.mlp.down_proj.weight"]
    written = Path(next(iter(found["files"].values()))).stat().st_mtime_ns
    assert "second moments" in err
    assert "second moments" not in run("stats", "-m", folder)[2]
    assert Path(next(iter(found["files"].values()))).stat().st_mtime_ns == written


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


def test_records_survive_the_way_through_the_file(secrets):
    assert [record.retain for record in read_secrets(secrets)] == [False, False, True]
    assert isinstance(read_secrets(secrets)[0], SecretRecord)
