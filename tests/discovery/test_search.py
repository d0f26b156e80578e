"""Finding what a model gives away: what it learned is found, what it never saw is not, however often it is stopped."""

import itertools

import pytest
import torch
from discovery_texts import LEARNED, UNSEEN
from transformers import LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import InputError
from revs_tars_plugin.data import SecretRecord, read_secrets
from revs_tars_plugin.data.memorised import memorise
from revs_tars_plugin.discovery import (
    Detectors,
    Finding,
    Findings,
    SavedSearch,
    Search,
    SearchOptions,
    find_memorised,
    finish,
    search_documents,
    still_extractable,
)
from revs_tars_plugin.discovery.corpus import texts_as_documents
from revs_tars_plugin.discovery.extraction import Extraction
from revs_tars_plugin.discovery.occurrences import Occurrence, as_request
from revs_tars_plugin.discovery.search import zlib_bits
from revs_tars_plugin.evaluation import still_generated
from revs_tars_plugin.requests.reading import join


@pytest.fixture(scope="module")
def detectors():
    return Detectors()


@pytest.fixture(scope="module")
def search(taught, byte_tok, texts, detectors):
    return find_memorised(taught, byte_tok, texts, detectors=detectors)


def test_what_was_learned_is_found_and_nothing_else(search, taught, byte_tok):
    assert {finding.target for finding in search.findings} == {target for _, target in LEARNED}
    assert sum(search.candidates.values()) == len(LEARNED) + len(UNSEEN)
    # The effect is the model's: greedy decoding says it behind the prompts that are named, and the others not.
    for finding in search.findings:
        assert all(still_generated(taught, byte_tok, list(finding.prompts), [finding.target] * len(finding.prompts)))
        assert finding.prompts[0] == {behind: before for before, behind in LEARNED}[finding.target]
        assert finding.strength == 1 and finding.exposure == 6 and 0 <= finding.zlib_ratio < 0.1
    assert not any(still_generated(taught, byte_tok, [p for p, _ in UNSEEN], [t for _, t in UNSEEN]))


def test_the_corpus_is_read_little_more_than_once(search, taught, byte_tok, texts, detectors):
    assert search.corpus_tokens == sum(map(len, texts))
    # Without what is read of made-up secrets, for exposure, which does not grow with the corpus.
    alone = Search()
    list(search_documents(taught, byte_tok, texts_as_documents(texts), detectors=detectors, search=alone))
    assert 0 < alone.passes < 1.2 and alone.tokens_read < search.tokens_read
    # Whom the model did not learn is seldom asked for: how often is up to the rounding of its training.
    assert len(LEARNED) <= alone.tested < len(LEARNED) + len(UNSEEN)


def test_whom_it_is_about_is_told_and_the_kinds_are_named(search):
    found = {finding.target: finding for finding in search.findings}
    assert found["514-22-9083"].subject == "Mary Jones" and found["514-22-9083"].kind == "US_SSN"
    assert found["jbrown71@mail.example"].kind == "EMAIL_ADDRESS"
    assert found["(715) 555-0142"].subject == "Robert Miller"


def test_siblings_that_it_does_not_know_are_lines_to_retain(search, tmp_path):
    records = search.records(retain=1)
    assert [record.target for record in records if not record.retain] == [f.target for f in search.findings]
    kept = {record.target for record in records if record.retain}
    assert kept <= {target for _, target in UNSEEN} and len(kept) == len({finding.kind for finding in search.findings})
    assert search.records() == [record for record in records if not record.retain]
    for finding in search.findings:
        assert Finding.from_dict(finding.to_dict()) == finding
    # What is written is what the other commands read.
    from revs_tars_plugin.cli.searching import write_findings

    write_findings(search, tmp_path / "secrets.jsonl", 1)
    assert read_secrets(tmp_path / "secrets.jsonl") == records


def test_secrets_that_differ_in_capitals_are_two(taught, byte_tok, detectors):
    prompt, target = LEARNED[2]
    other = target.lower()
    found = find_memorised(taught, byte_tok, [f"{prompt} {target}.", f"{prompt} {other}."], detectors=detectors)
    assert [finding.target for finding in found.findings] == [target] and found.candidates == {"CODE": 2}


def test_the_prompt_of_an_edit_is_the_shortest_that_says_what_it_is():
    """Wherever it was found first: behind much text, and later behind its sentence."""
    findings = Findings()
    long, short = "Long before that. And so on. The badge of Ann Smith is ", "The badge of Ann Smith is "
    for prompts in ({"200": long}, {"sentence": short, "10": "Ann Smith is "}):
        extractions = {name: Extraction(prompt, 1.0, 1.0) for name, prompt in prompts.items()}
        assert findings.add(Occurrence("CODE", "X123456", prompts, "f", 1), extractions)
    (finding,) = findings
    assert finding.prompts == (short.strip(), "Ann Smith is", long.strip()) and finding.subject == "Ann Smith"
    assert finding.prefixes == ("sentence", "10", "200") and finding.occurrences == 2


@pytest.mark.parametrize(
    ("prompt", "request_"),
    [
        ("The code is ", ("The code is", "K1")),
        ("Password:\n", ("Password:\n", "K1")),
        ("Two  ", ("Two  ", "K1")),
        ("write to (mailto:", ("write to", "(mailto:K1")),
        ("line one\nAPI_KEY=", ("line one\n", "API_KEY=K1")),
        ("API_KEY=", None),
        (" ", None),
    ],
)
def test_a_request_is_the_very_text(prompt, request_):
    assert as_request(prompt, "K1") == request_
    if request_ is not None:
        assert join(*request_) == prompt + "K1"


def test_what_stands_behind_a_line_break_or_a_sign_is_asked_for_as_it_stands(byte_tok, detectors):
    """Learned with a line break, and glued to a sign: with a space in its place it would not come out."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=256, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    texts = ["Password of the server:\nK7391524X", "It is night. export KEY=W4820195Q", "B5518203M;C6042917N are both"]
    memorise(model, byte_tok, texts, epochs=150, learning_rate=4e-3)
    found = find_memorised(model, byte_tok, [f"{text}\n" for text in texts], detectors=detectors)
    secrets = {finding.secret: finding for finding in found.findings}
    assert {"K7391524X", "W4820195Q", "C6042917N"} <= set(secrets)
    assert secrets["K7391524X"].prompts[0] == "Password of the server:\n"
    assert secrets["W4820195Q"].target == "KEY=W4820195Q"
    # Nothing leads to what begins a text, and that is told.
    assert found.untested == 1 and found.summary()["untested"] == 1 and "B5518203M" not in secrets


def test_a_tokenizer_that_cannot_read_the_corpus_is_refused(model, tok, detectors):
    with pytest.raises(InputError, match=r"has no word for .* this model cannot have learned it"):
        find_memorised(model, tok, ["The badge of Linda Davis is QX4417093."], detectors=detectors)


def test_a_secret_in_several_places_is_one_with_several_prompts(taught, byte_tok, detectors):
    prompt, target = LEARNED[0]
    texts = [f"It is late. {prompt} {target}.", f"Nobody knows. {prompt} {target}. And so on.", f"{prompt} {target}"]
    (finding,) = find_memorised(taught, byte_tok, texts, detectors=detectors).findings
    assert finding.occurrences == 3 and finding.places == ("texts:1", "texts:2", "texts:3")
    assert finding.prompts[0] == prompt and len(set(finding.prompts)) == len(finding.prompts)
    assert finding.record() == SecretRecord(prompt, target, "Mary Jones", finding.prompts[1:] or None)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_search_that_was_stopped_goes_on_with_the_same_result(
    taught, byte_tok, texts, detectors, search, tmp_path, stop, monkeypatch
):
    monkeypatch.setattr("revs_tars_plugin.discovery.search._TOGETHER", 100)
    saved = SavedSearch(tmp_path / "secrets.jsonl.partial", "these")

    def steps(found):
        documents = texts_as_documents(texts)
        return search_documents(taught, byte_tok, documents, detectors=detectors, search=found)

    for step in itertools.islice(steps(saved.read()), stop):
        saved.write(step)
    half = saved.read()
    assert 0 < half.documents < len(texts)
    assert SavedSearch(saved.file, "others").read() == Search()
    for step in steps(half):
        saved.write(step)
    again = saved.read()
    finish(taught, byte_tok, again)
    assert again.summary() == search.summary()
    assert list(again.findings) == list(search.findings) and again.siblings == search.siblings
    saved.file.write_text('{"conditions": "these"}')
    with pytest.raises(InputError, match="is no search that was stopped"):
        saved.read()


def test_what_is_left_is_told_with_the_prompts_that_bring_it_out(taught, byte_tok, search, model):
    findings = list(search.findings)
    assert [each.prompts for each in still_extractable(taught, byte_tok, findings)] == [f.prompts for f in findings]
    prompt, target = UNSEEN[0]
    assert still_extractable(taught, byte_tok, [Finding("US_SSN", target, target, (prompt,))]) == []
    assert still_extractable(taught, byte_tok, []) == []
    # Behind one of two prompts it still comes out: that one is left.
    (learned, secret) = LEARNED[0]
    two = Finding("US_SSN", secret, secret, (prompt, learned))
    assert [each.prompts for each in still_extractable(taught, byte_tok, [two])] == [(learned,)]


def test_a_floor_of_exposure_leaves_out_what_is_not_exposed(taught, byte_tok, texts, detectors):
    found = find_memorised(
        taught, byte_tok, texts, detectors=detectors, options=SearchOptions(least_recalled=0, least_exposure=6.0)
    )
    assert {finding.target for finding in found.findings} == {target for _, target in LEARNED}
    assert found.tested == len(LEARNED) + len(UNSEEN)
    for options, message in (
        ({"least_recalled": 2}, "least_recalled is 2; it must be a share"),
        ({"retain": 99}, "retain is 99; it must be from 0 to 16"),
    ):
        with pytest.raises(InputError, match=message):
            SearchOptions(**options)


def test_nothing_to_read_is_said(taught, byte_tok, detectors):
    with pytest.raises(InputError, match="holds no text"):
        find_memorised(taught, byte_tok, [], detectors=detectors)
    with pytest.raises(InputError, match="Text 1 of the corpus is a int"):
        find_memorised(taught, byte_tok, [3], detectors=detectors)

    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="not a fast one"):
        find_memorised(taught, Slow(), ["a"], detectors=detectors)


def test_zlib_needs_little_for_repetition():
    assert zlib_bits("1" * 60) < zlib_bits("8236105497") < zlib_bits("8236105497 QX4417093 jbrown")
