"""`compare` by two processes, with the real EasyEdit: the rows of one process, each measured by one of the two."""

import json

import pytest
import yaml
from helpers import LLAMA_NAMES, RETAINED, SECRETS, tiny_settings
from launching import COMMANDS, launched

from revs_tars_plugin.cli import main
from revs_tars_plugin.ft_l_delete import FTLDeleteHyperParams

METHODS = {
    "REVS": tiny_settings,
    "FT-L-delete": lambda **changes: FTLDeleteHyperParams(
        alg_name="FT-L-delete", model_name="tiny", layers=[1], lr=0.05, norm_constraint=0.1, **LLAMA_NAMES, **changes
    ),
}


@pytest.fixture
def compare(model, tok, said, tmp_path, monkeypatch):
    """The command with its output at this place, for a model that the host loads by its folder's name."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    tok.eos_token = tok.pad_token  # with which the host pads
    folder = tmp_path / "tiny-baichuan"  # of these the host takes whatever tokenizer is there
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    lines = [f"{prompt},{said(prompt)}," for prompt in SECRETS]
    secrets, text = tmp_path / "secrets.csv", tmp_path / "text.txt"
    secrets.write_text("\n".join(["prompt,target,retain", *lines, f"{RETAINED},{said(RETAINED)},yes"]))
    text.write_text("\n".join(f"w{n} w{n + 1} w{2 * n} w{n % 7}" for n in range(90)))
    arguments = ["compare", str(secrets), "-m", str(folder), "--text", str(text), "--quiet", "--k", "50"]
    for name, settings in METHODS.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings(device="cpu").to_dict()))
        arguments += ["--method", name, "--settings", f"{name}={file}"]
    return lambda place: [*arguments, "-o", str(place)]


def rows(place):
    """What was measured there, but for times and memory."""
    measured = json.loads(place.read_text())["rows"]
    assert not any(row["error"] for row in measured), [row["error"] for row in measured]
    return {row["method"]: row["figures"] for row in measured}


def test_two_processes_measure_the_rows_that_one_measures(host, compare, tmp_path):
    one, two, file = tmp_path / "one.json", tmp_path / "two.json", tmp_path / "commands.json"
    file.write_text(json.dumps([compare(two)]))
    run = launched(COMMANDS, file)
    assert run.returncode == 0, run.stderr[-3000:]
    for rank in range(2):
        seen = json.loads(file.with_name(f"commands.json.{rank}").read_text())
        assert seen == {"processes": 2, "codes": [0]}, run.stderr[-3000:]
    # One of them prints, and what was kept on the way is gone.
    assert run.stdout.count("FT-L-delete") == 1
    assert not list(tmp_path.glob("*.rows"))
    assert main(compare(one)) == 0
    mine, theirs = rows(one), rows(two)
    assert list(mine) == list(theirs) == ["no edit", *METHODS]
    for name in mine:
        assert theirs[name] == pytest.approx(mine[name], rel=1e-3, abs=1e-4), name
    assert mine["no edit"]["efficacy"] == 0
    assert min(mine[name]["efficacy"] for name in METHODS) > 0
