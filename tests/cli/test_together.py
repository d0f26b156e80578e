"""Commands under `accelerate launch`: two processes give what one gives, one writes, and a lost one is noticed."""

import json

import numpy as np
import pytest
import torch
import yaml
from helpers import covariance_settings, ssn_rows, tiny_tars, write_ssn
from launching import COMMANDS, launched
from safetensors.torch import load_file

from revs_tars_plugin.cli import main
from revs_tars_plugin.cli.loading import load_model
from revs_tars_plugin.cli.requests_file import read_requests_file
from revs_tars_plugin.cli.session import Session
from revs_tars_plugin.cli.together import check_shares
from revs_tars_plugin.errors import InputError
from revs_tars_plugin.model.processes import agreed, shared, shared_in_turn, writer_first, writes


@pytest.fixture
def commands(folder, secrets, settings, tmp_path, monkeypatch):
    """Every command that shares its work, with outputs in a folder of this name."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPEN_UNLEARNING", raising=False)
    numbers = write_ssn(tmp_path / "ssn.csv", ssn_rows())
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"w{n} w{n + 1} w{2 * n} w{n % 7}" for n in range(90)))
    # The model writes prompts behind which it says w94.
    concepts = tmp_path / "concepts.yaml"
    concepts.write_text("concepts:\n  - name: w94\n    prompts: [w1 w2 the]\n")

    def into(name):
        place = tmp_path / name
        place.mkdir()
        file = place / "tiny.yaml"
        hparams = covariance_settings(place, siblings=3, mom2_dataset=str(text), mom2_n_samples=90, device="cpu")
        file.write_text(yaml.safe_dump(hparams.to_dict()))
        concept_file = place / "tars.yaml"
        concept_file.write_text(yaml.safe_dump(tiny_tars(prompts="both", stats_dir=str(place), device="cpu").to_dict()))
        edit = str(place / "edit.safetensors")
        of_model = ["-m", str(folder), "--quiet"]
        with_file, on = ["-s", str(file)], ["--text", str(text)]
        bench = ["bench", "ssn", str(numbers), "--learned", str(folder), "--retain-only", str(folder)]
        attacks = ("exposure", "sampling", "logit lens", "enumeration", "form")
        evaluate = ["evaluate", str(secrets), *of_model, "--edit", edit, "-o", str(place / "result.json")]
        evaluate += ["--samples", "3", *on, *(word for attack in attacks for word in ("--attack", attack))]
        methods = ["--method", f"REVS:{settings}", "--method", "FT-L-delete"]
        return [
            ["stats", *of_model, *with_file],
            ["edit", str(secrets), *of_model, *with_file, "-o", edit, "--merged", str(place / "merged")],
            evaluate,
            [*bench, "--quiet", *methods, *on, "-o", str(place / "bench")],
            ["edit", str(concepts), *of_model, "-s", str(concept_file), "-o", str(place / "concept.safetensors")],
        ]

    return into


def figures(place):
    """All that was measured there, but for times and memory."""
    reports = json.loads((place / "result.json").read_text())
    rows = json.loads((place / "bench" / "benchmark.json").read_text())["rows"]
    timed = ("seconds", "peak_mib")
    found = {
        f"{moment} {name}": value
        for moment in ("before", "after")
        for name, value in reports[moment]["summary"].items()
    }
    return found | {f"{row} {name}": v for row, of in rows.items() for name, v in of.items() if name not in timed}


def test_two_processes_give_what_one_gives(commands, tmp_path):
    """Sums differ by rounding alone; everything is written once."""
    file = tmp_path / "commands.json"
    file.write_text(json.dumps(commands("two")))
    run = launched(COMMANDS, file)
    assert run.returncode == 0, run.stderr[-3000:]
    for rank in range(2):
        seen = json.loads(file.with_name(f"commands.json.{rank}").read_text())
        assert seen == {"processes": 2, "codes": [0, 0, 0, 0, 0]}, run.stderr[-3000:]
    # One of them speaks.
    assert run.stdout.count("Second moments of 3 matrices") == 1
    assert [main(command) for command in commands("one")] == [0, 0, 0, 0, 0]
    one, two = tmp_path / "one", tmp_path / "two"
    listed = [sorted(str(path.relative_to(place)) for path in place.rglob("*")) for place in (one, two)]
    assert listed[0] == listed[1]
    for path in one.rglob("*.npz"):
        mine, theirs = np.load(path), np.load(two / path.relative_to(one))
        assert int(mine["mom2.count"]) == int(theirs["mom2.count"]) == 360
        np.testing.assert_allclose(mine["mom2.mom2"], theirs["mom2.mom2"], rtol=1e-5, atol=1e-5)
    (prompts,) = (one / "written_prompts").glob("*.json")
    assert len(json.loads(prompts.read_text())) > 1
    assert (two / prompts.relative_to(one)).read_bytes() == prompts.read_bytes()
    for name in ("edit.safetensors", "merged/model.safetensors", "concept.safetensors"):
        mine, theirs = load_file(one / name), load_file(two / name)
        assert mine.keys() == theirs.keys() != set()
        for key, value in mine.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-4, atol=1e-5)
    mine, theirs = figures(one), figures(two)
    assert theirs == pytest.approx(mine, rel=1e-3, abs=1e-4)
    assert mine["after efficacy"] > mine["before efficacy"] == 0


LOST = """
import os, signal, sys
from revs_tars_plugin.cli import main
from revs_tars_plugin.model import processes
import revs_tars_plugin.evaluation.likelihood as likelihood

whole = likelihood.likelihoods
def dying(*arguments, **keywords):
    if os.environ["RANK"] == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **keywords)
likelihood.likelihoods = dying
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_run_with_one_sentence_and_no_half_file(rank, folder, secrets, tmp_path):
    script = tmp_path / "lost.py"
    script.write_text(LOST)
    arguments = ["evaluate", secrets, "-m", folder, "-o", tmp_path / "result.json", "--attack", "exposure", "--quiet"]
    run = launched(script, rank, *arguments)
    assert run.returncode != 0
    said = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, run.stderr[-3000:]
    assert "ended before the others" in said[0]
    assert not [path.name for path in tmp_path.iterdir() if "result" in path.name]


def test_one_process_shares_with_nobody():
    with writer_first():
        assert writes() and agreed(True) and not agreed(False)
    assert shared(str, [3, 1, 2]) == list(shared_in_turn(str, [3, 1, 2])) == ["3", "1", "2"]


def test_what_cannot_be_shared_is_refused(monkeypatch):
    check_shares("find")
    monkeypatch.setenv("WORLD_SIZE", "2")  # as a batch system may set it for what it starts once
    check_shares("find")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="find does not share its work"):
        check_shares("find")
    check_shares("edit")
    with pytest.raises(InputError, match="under a launcher leave it out"):
        load_model("demo", "cuda:1", "auto")
    with pytest.raises(InputError, match="standard input reaches one process"):
        read_requests_file("-", Session())
