"""What commands refuse and how they say it, and what they never show."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import SECRETS, tiny_tars


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
    # Persons are masked as well.
    named = tmp_path / "named.csv"
    named.write_text(f"prompt,target,subject\n{SECRETS[0]},{targets[0]},w2\n")
    run(
        "evaluate",
        named,
        "-m",
        folder,
        "--k",
        20,
        "--attack",
        "logit lens",
        "--show-secrets",
        "-o",
        shown,
        "--overwrite",
    )
    run("report", shown, "-o", page, "--overwrite")
    assert "w1 [name] w3" in page.read_text()
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
        (["edit", "secrets.csv", "-m", "model", "-o", "tiny.yaml"], "tiny.yaml is there already"),
        (["edit", "secrets.csv", "-m", "model", "-o", "secrets.csv", "--overwrite"], "cannot be the output"),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--merged", "model", "--overwrite"], "cannot be the output"),
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
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--seed", "-1"], "'--seed'"),
        (["edit", "secrets.csv", "-m", "model", "-o", "e", "--text", "none.txt"], "none.txt cannot be read"),
        (
            ["edit", "secrets.csv", "-m", "model", "-o", "e", "--text", "no/such"],
            'The data set "no/such" cannot be read',
        ),
        (["evaluate", "secrets.csv", "-m", "model", "--attack", "lens"], "--attack is"),
        (["evaluate", "secrets.csv", "-m", "model", "--k", "1000"], "k is 1000"),
        (["evaluate", "secrets.csv", "-m", "model", "--tokens", "some"], 'positions is "some"'),
        (["evaluate", "secrets.csv", "-m", "model", "-e", "tiny.yaml"], "is no whole safetensors file"),
        (["evaluate", "secrets.csv", "-m", "model", "-e", "x", "--base", "y"], "leave one out"),
        (["evaluate", "secrets.csv", "-m", "model", "--attack", "delta", "--require", "efficac>=1"], "did you mean"),
        (["undo", "none.safetensors", "-m", "model", "-o", "x"], "There is no file none.safetensors"),
        (["report", "tiny.yaml", "-o", "x.html"], "tiny.yaml is no JSON"),
        (["report", "model/config.json", "-o", "x.html"], "is no result of evaluate, compare or bench"),
        (["export", "peft", "none.safetensors", "-o", "x"], "There is no file none.safetensors"),
        (["compare", "--device", "cuda:0"], "EasyEdit takes cpu or the number of a CUDA device"),
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


def test_what_is_missing_is_named(run, folder, secrets, settings, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    arguments = ("-m", folder, "-o", tmp_path / "e.safetensors", "-q")
    code, _, err = run("edit", secrets, *arguments, "--text", "wikitext")
    assert (code, "needs the package datasets: pip install datasets" in err) == (2, True)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"prompt,target\n\xff,b"), encoding="utf-8"))
    code, _, err = run("edit", "-", *arguments)
    assert (code, "Standard input is not UTF-8 (byte 14)" in err) == (2, True)


def test_debug_shows_where(run, tmp_path):
    _, _, err = run("report", tmp_path / "none.json", "-o", tmp_path / "x.html", "--debug")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_an_error_of_our_own_making_says_so(run, monkeypatch, tmp_path):
    monkeypatch.setattr("revs_tars_plugin.report.results.read_result", lambda _path: 1 / 0)
    code, _, err = run("report", tmp_path / "x.json", "-o", tmp_path / "x.html")
    assert (code, err) == (70, "error: unexpected ZeroDivisionError: division by zero; --debug shows where\n")


def test_an_interrupt_is_said(run, monkeypatch, tmp_path):
    def interrupted(_path):
        raise KeyboardInterrupt

    monkeypatch.setattr("revs_tars_plugin.report.results.read_result", interrupted)
    code, _, err = run("report", tmp_path / "x.json", "-o", tmp_path / "x.html")
    assert (code, err) == (130, "error: interrupted; files are whole or not there\n")


def test_the_shell_completes(folder):
    """As the shell asks: what was typed so far in the environment."""
    command = [sys.executable, "-m", "revs_tars_plugin"]
    for words, expected in (("revs-tars ev", ["evaluate"]), ("revs-tars edit --me", ["--merged", "--method"])):
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_REVS_TARS_COMPLETE": "complete_bash"}
        done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
        assert sorted(done.stdout.split()) == expected


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
