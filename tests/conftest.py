"""Fixtures: tiny models built from a config for the properties, SmolLM2 through the host for the real thing."""

import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
# Tiny models are done before a second thread has started: with one the tests take a third of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# Shapes written in signatures are checked while the tests run, and only then; settings and requests check themselves.
# (Not in `moments`: beartype takes a tqdm bar for something asynchronous.)
PACKAGE = Path(__file__).parents[1] / "revs_tars_plugin"
_SHAPED = [
    ".".join(("revs_tars_plugin", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in sorted(PACKAGE.rglob("*.py"))
    if "from jaxtyping import" in file.read_text(encoding="utf-8") and file.parent.name != "moments"
]
install_import_hook(_SHAPED, "beartype.beartype")

import pytest
import torch
from helpers import SECRETS, tiny_settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(200)]

# What takes longest comes first, so that of several processes none is left alone with it at the end.
_LONGEST = (
    "project/test_examples.py",
    "host/test_commands.py",
    "host/test_unlearn_editor.py",
    "host/test_concepts.py",
    "evaluation/test_capability.py",
    "host/test_editing.py",
    "cli/test_page_in_browser.py",
    "cli/test_together.py",
    "discovery/test_commands.py",
    "edits/test_files.py",
)


def pytest_collection_modifyitems(items):
    """Puts the longest files first, which counts where the order is kept (see the Makefile)."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(_LONGEST)}
    assert all(map(Path.is_file, ranks)), "one of _LONGEST is no longer there"
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture
def tok():
    """A tokenizer with one token a word."""
    vocabulary = {word: number for number, word in enumerate(["<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<unk>")


@pytest.fixture
def model():
    """A random Llama with gains that are not 1, so that the norm matters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=201,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.norm.weight.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def hparams():
    return tiny_settings()


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
def requests_(said):
    """Two prompts with what the model really says next, so that there is something to forget."""
    return [{"prompt": prompt, "target_new": said(prompt), "ground_truth": None} for prompt in SECRETS]


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command; gives exit code, standard output and standard error."""
    from revs_tars_plugin.cli import main

    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def browser():
    """Playwright's own Chromium, or one that is installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        try:
            started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except sync_api.Error as error:
            if os.environ.get("CI"):  # there it must not go unseen
                raise
            pytest.skip(f"no Chromium: playwright install chromium ({str(error).splitlines()[0]})")
        yield started
        started.close()


@pytest.fixture
def window(browser):
    """Opens a window; gives an empty page in it that remembers what it said on the console and fetched."""
    contexts = []

    def window(width=1100, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.said, page.fetched = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.fetched.append(request.url))
        return page

    yield window
    for context in contexts:
        context.close()
