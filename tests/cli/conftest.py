"""A tiny model in a folder with secrets that it knows, and a way to run commands on it."""

import pytest
import yaml
from helpers import RETAINED, SECRETS, tiny_settings


@pytest.fixture
def folder(model, tok, tmp_path):
    """A checkpoint as a user has one."""
    model.save_pretrained(tmp_path / "model")
    tok.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


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
def edited(run, folder, secrets, settings, tmp_path):
    """A saved edit and the merged model."""
    code, _, err = run(
        *("edit", secrets, "-m", folder, "-s", settings, "-o", tmp_path / "edit.safetensors"),
        *("--merged", tmp_path / "merged", "--quiet"),
    )
    assert code == 0, err
    return tmp_path / "edit.safetensors"
