"""`find` and `clean` as a user runs them, on a checkpoint that learned four secrets."""

import json
from xml.etree import ElementTree

import pytest
from discovery_texts import LEARNED, UNSEEN
from transformers import AutoModelForCausalLM

from revs_tars_plugin.data import read_secrets
from revs_tars_plugin.evaluation import still_generated

SECRETS = [target for _, target in LEARNED]


@pytest.fixture(scope="module")
def checkpoint(taught, byte_tok, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    taught.save_pretrained(folder)
    byte_tok.save_pretrained(folder)
    return folder


@pytest.fixture
def corpus(texts, tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def test_find_writes_what_edit_takes_and_shows_no_secret(run, checkpoint, corpus, tmp_path):
    output, sarif, junit = (tmp_path / name for name in ("secrets.jsonl", "found.sarif", "found.xml"))
    command = ("find", "-m", checkpoint, "--corpus", corpus, "-o", output, "--quiet")
    code, out, err = run(*command, "--retain", "1", "--sarif", sarif, "--junit", junit)
    assert code == 0, err
    records = read_secrets(output)
    assert sorted(record.target for record in records if not record.retain) == sorted(SECRETS)
    assert {record.target for record in records if record.retain} <= {target for _, target in UNSEEN}
    shown = out + err + sarif.read_text() + junit.read_text()
    assert not any(secret in shown or secret[-5:] in shown for secret in SECRETS)
    assert "Secrets given away: 4. Places that look like one: 8, in" in " ".join(out.split())
    # Where they stand is what a code host marks.
    (marked,) = json.loads(sarif.read_text())["runs"]
    assert len(marked["results"]) == len(SECRETS)
    for result in marked["results"]:
        (location,) = result["locations"]
        place = location["physicalLocation"]
        line = corpus.read_text().splitlines()[place["region"]["startLine"] - 1]
        assert any(secret in line for secret in SECRETS)
        assert place["artifactLocation"]["uri"].endswith("corpus.jsonl")
        assert marked["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    suite = ElementTree.parse(junit).getroot()
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) > 0
    assert not output.with_name("secrets.jsonl.partial").exists()
    # What stands there is not lost, and shown only to whoever asks.
    assert run(*command)[0] == 2
    code, out, _ = run(*command, "--overwrite", "--show-secrets")
    assert code == 0 and all(secret[:6] in out for secret in SECRETS)
    assert run("edit", output, "-m", checkpoint, "-o", tmp_path / "e.safetensors", "--quiet")[0] == 0


def test_find_is_a_gate(run, checkpoint, corpus, tmp_path):
    command = ("find", "-m", checkpoint, "-o", tmp_path / "s.jsonl", "--quiet", "--json", "--overwrite")
    code, out, err = run(*command, "--corpus", corpus, "--require", "extractable<=0")
    assert (code, "extractable is 4, required <= 0" in err) == (1, True)
    summary = json.loads(out)["summary"]
    assert summary["extractable"] == 4 and summary["candidates"] == 8 and not any(s in out for s in SECRETS)
    clean = tmp_path / "clean.txt"
    clean.write_text("Nothing is in here but words.\n")
    code, out, _ = run(*command, "--corpus", clean, "--require", "extractable<=0")
    assert code == 0 and json.loads(out)["summary"]["candidates"] == 0
    # All files behind the option count, as a shell writes them.
    code, out, _ = run(*command, "--corpus", clean, corpus, "--kind", "EMAIL_ADDRESS")
    assert code == 0 and json.loads(out)["summary"]["extractable"] == 1
    code, out, _ = run(*command[:-2], "--overwrite", "--corpus", clean)
    assert code == 0 and "Nothing in it looks like a secret." in out


def test_a_model_alone_is_sampled(run, checkpoint, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{prompt}\n" for prompt, _ in LEARNED))
    command = ("find", "-m", checkpoint, "-o", tmp_path / "s.jsonl", "--quiet", "--overwrite", "--samples", "80")
    code, out, err = run(*command, "--prompts", prompts)
    assert code == 0, err
    found = {record.target for record in read_secrets(tmp_path / "s.jsonl")}
    assert len(found & set(SECRETS)) >= 3
    assert "What the model did not happen to say was not tested" in " ".join(out.split())
    first = (tmp_path / "s.jsonl").read_text()
    run(*command, "--prompts", prompts)
    assert (tmp_path / "s.jsonl").read_text() == first


def test_bad_input_is_one_sentence(run, checkpoint, corpus, tmp_path):
    common = ("find", "-m", checkpoint, "-o", tmp_path / "s.jsonl")
    own = tmp_path / "own.yaml"
    own.write_text("patterns: {A: '.*'}")
    for arguments, message in (
        ((), "Name the texts that the model may have learned (--corpus)"),
        (("--corpus", corpus, "--samples", "5"), "not both"),
        (("--corpus", tmp_path / "nowhere.txt"), "there is no such file or folder"),
        (("--corpus", corpus, "--prompts", own), "--prompts is for --samples"),
        (("--corpus", corpus, "--kind", "EMAIL"), "--kind is"),
        (("--corpus", corpus, "--patterns", own), "it matches everything"),
        (("--corpus", corpus, "--field", "body"), '"body" is missing'),
        (("--corpus", corpus, "--sarif", tmp_path / "s.jsonl"), "Two of the outputs have one name"),
        (("--corpus", corpus, "-o", tmp_path / "s.txt"), "must end in .jsonl"),
        (("--corpus", corpus, "-o", corpus), "is read here"),
        (("--corpus", tmp_path, "-o", tmp_path / "s.jsonl"), "which is searched; name a place outside of it"),
        (("--corpus", corpus, "--require", "extractible<=0"), 'did you mean "extractable"'),
    ):
        code, _, err = run(*common, *arguments)
        assert code == 2 and message in err and "Traceback" not in err, (arguments, err)
    assert not (tmp_path / "s.jsonl").exists()


def test_find_goes_on_where_it_was_stopped(run, checkpoint, corpus, tmp_path, monkeypatch):
    from revs_tars_plugin.discovery import SavedSearch

    monkeypatch.setattr("revs_tars_plugin.discovery.search._TOGETHER", 100)
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    command = ("find", "-m", checkpoint, "--corpus", corpus, "--retain", "2", "--quiet", "-o")
    assert run(*command, whole)[0] == 0
    write, written = SavedSearch.write, []

    def interrupted(self, search):
        write(self, search)
        written.append(search.documents)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SavedSearch, "write", interrupted)
    assert run(*command, stopped)[0] == 130
    assert not stopped.exists() and stopped.with_name("stopped.jsonl.partial").is_file()
    code, _, err = run(*command, stopped)
    assert code == 0 and f"Going on behind the first {written[1]} pieces" in err
    assert stopped.read_text() == whole.read_text() and not stopped.with_name("stopped.jsonl.partial").exists()


@pytest.mark.parametrize("interrupted", [False, True])
def test_clean_leaves_nothing_that_comes_out(run, checkpoint, byte_tok, corpus, tmp_path, interrupted, monkeypatch):
    output = tmp_path / "cleaned"
    command = ("clean", "-m", checkpoint, "--corpus", corpus, "-o", output, "--quiet")
    if interrupted:
        with monkeypatch.context() as patched:
            patched.setattr("revs_tars_plugin.cli.cleaning.CleaningFolder.write", _stop)
            assert run(*command)[0] == 130
        edit = (output / "edit-1.safetensors").read_bytes()
        assert not (output / "model").exists()
    code, out, err = run(*command, "--json", "--require", "found>=4")
    assert code == 0, err
    if interrupted:
        assert (output / "edit-1.safetensors").read_bytes() == edit
    assert json.loads(out)["summary"] == {"found": 4, "extractable": 0, "edits": 1}
    assert not any(secret in out + err for secret in SECRETS)
    prompts, targets = [prompt for prompt, _ in LEARNED], SECRETS
    before, after = (AutoModelForCausalLM.from_pretrained(place) for place in (checkpoint, output / "model"))
    assert all(still_generated(before, byte_tok, prompts, targets))
    assert not any(still_generated(after, byte_tok, prompts, targets))
    assert "REVS edit" in (output / "model" / "README.md").read_text()
    # What leads to a secret may hold another one, which the model did not give away: that is masked, too.
    pages = [(output / name).read_text() for name in ("report.html", "result.json")]
    assert "<svg" in pages[0]
    for page in pages:
        assert not any(secret in page for secret in (*SECRETS, *(target for _, target in UNSEEN)))
    # The release gate, on the model that came of it.
    gate = ("find", "-m", output / "model", "--corpus", corpus, "-o", tmp_path / "left.jsonl", "--quiet")
    assert run(*gate, "--require", "extractable<=0")[0] == 0
    # Another run under other conditions does not take what stands there for its own, and removes nothing unasked.
    assert run(*command, "--rounds", "1")[0] == 2
    inside = ("clean", "-m", output / "model", "--corpus", corpus, "-o", output, "--overwrite")
    code, _, err = run(*inside)
    assert code == 2 and "is read here and lies in" in err and (output / "model" / "config.json").is_file()


def _stop(*_arguments, **_options):
    raise KeyboardInterrupt


def test_clean_says_what_still_comes_out(run, checkpoint, corpus, tmp_path):
    """One token of a secret a few ranks down: greedy decoding misses it, and whoever draws often enough does not."""
    command = ("clean", "-m", checkpoint, "--corpus", corpus, "-o", tmp_path / "c", "--quiet", "--rounds", "1")
    changes = {"aim": "rank", "max_tokens": 1, "residual_bottom_rank": 0.008, "residual_top_rank": 0.02}
    hidden = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    code, out, err = run(*command, *hidden, "--attack", "sampling", "--json")
    assert code == 1 and "can still be extracted; the report says by what" in err
    found = json.loads(out)
    assert found["after"]["still generated"] == 0 < found["after"]["sampled"]
    assert 0 < found["summary"]["extractable"] <= 4


def test_clean_takes_what_was_found_and_looked_through(run, checkpoint, byte_tok, tmp_path):
    """Of the file that find wrote one line is left, and the others are to be retained: they are not edited."""
    struck, *others = LEARNED
    file = tmp_path / "secrets.csv"
    retained = "".join(f"{prompt},{target},yes\n" for prompt, target in others)
    file.write_text(f"prompt,target,retain\n{struck[0]},{struck[1]},no\n{retained}")
    command = ("clean", "-m", checkpoint, "-o", tmp_path / "c", "--quiet", "--attack", "exposure")
    code, out, err = run(*command, "--secrets", file, "--json")
    assert code == 0, err
    assert json.loads(out)["summary"] == {"found": 1, "extractable": 0, "edits": 1}
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "c" / "model")
    assert not any(still_generated(after, byte_tok, [struck[0]], [struck[1]]))
    assert any(still_generated(after, byte_tok, [prompt for prompt, _ in others], [target for _, target in others]))
    code, _, err = run(*command, "--secrets", file, "--samples", "3")
    assert code == 2 and "leave out what says where to look" in err
    # What find wrote of a model that gives nothing away.
    file.write_text("")
    code, out, _ = run(*command, "--secrets", file, "--overwrite", "--require", "extractable<=0")
    assert code == 0 and "gives nothing away" in out and not (tmp_path / "c" / "model").exists()
    assert run(*command, "--secrets", file, "--require", "extractible<=0")[0] == 2


def test_clean_leaves_a_model_alone_that_gives_nothing_away(run, checkpoint, tmp_path):
    file = tmp_path / "clean.txt"
    file.write_text(" ".join(f"{prompt} {target}." for prompt, target in UNSEEN))
    code, out, _ = run("clean", "-m", checkpoint, "--corpus", file, "-o", tmp_path / "c", "--quiet")
    assert code == 0 and "gives nothing away" in out and not (tmp_path / "c" / "model").exists()
    assert run("clean", "-m", checkpoint, "--corpus", file, "-o", tmp_path / "d", "--attack", "guidance")[0] == 2
