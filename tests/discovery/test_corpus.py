"""Reading a corpus: every kind of file, a piece at a time, and what is wrong with one in one sentence."""

import itertools
import json

import pytest

from revs_tars_plugin import InputError
from revs_tars_plugin.discovery import Candidate, read_corpus
from revs_tars_plugin.discovery.corpus import Document, texts_as_documents
from revs_tars_plugin.discovery.occurrences import windows_of


def texts(*names, fields=()):
    return [document.text for document in read_corpus(names, fields)]


def test_records_are_read_by_the_fields_that_hold_text(tmp_path):
    lines = [
        {"text": "a b", "id": "7"},
        {"id": "8", "input": "What?", "output": "That."},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert texts(file) == ["a b", "What? That.", "user hi assistant ho"]
    listed = tmp_path / "b.json"
    listed.write_text(json.dumps(lines))
    assert texts(listed) == texts(file)
    assert [document.number for document in read_corpus([file])] == [1, 2, 3]
    (tmp_path / "c.csv").write_text('question,answer,note\nWho?,"Me, I think",x\n')
    (tmp_path / "d.tsv").write_text("x\ty\n1\t2\n")
    assert texts(tmp_path / "c.csv", tmp_path / "d.tsv") == ["Who? Me, I think", "1 2"]
    assert texts(tmp_path / "c.csv", fields=["note", "question"]) == ["x Who?"]


def test_running_text_comes_in_pieces_that_repeat_what_leads_to_the_next(tmp_path):
    lines = [f"line {number} " + "x" * 100 for number in range(400)]
    file = tmp_path / "a.txt"
    file.write_text("\n".join(lines) + "\n")
    documents = list(read_corpus([file]))
    assert len(documents) > 3 and documents[0].fresh == 0
    assert "".join(document.text[document.fresh :] for document in documents) == file.read_text()
    for before, document in itertools.pairwise(documents):
        assert document.fresh == 1600 and before.text.endswith(document.text[: document.fresh])
        assert document.text[document.fresh :].startswith(f"line {document.number - 1} ")
    # A line as long as the file is no other: nothing is read whole.
    file.write_text("y" * 50_000)
    assert max(len(document.text) for document in read_corpus([file])) < 20_000
    assert sum(len(document.text) - document.fresh for document in read_corpus([file])) == 50_000


def test_a_folder_is_read_whole_but_for_what_is_no_text(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "b.md").write_text("b")
    (tmp_path / ".hidden").write_text("c")
    (tmp_path / "d.bin").write_bytes(b"\x00\x01")
    assert texts(tmp_path) == ["b", "a"]
    assert "d.bin is no UTF-8 text and is left out" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\xff\xfe\xff", "is no UTF-8 text (byte 0)"),
        ("a.txt", b"a\x00b", "line 1: no text"),
        ("a.jsonl", b'{"text": "a"}\nnope', "line 2, column 1: not JSON"),
        ("a.json", b"[1,", "not JSON"),
    ],
)
def test_what_is_no_text_is_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        texts(tmp_path / name)
    assert message in str(error.value) and name in str(error.value)


def test_a_corpus_that_is_not_there_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jsonl").write_text('{"text": "a"}')
    for names, fields, message in (
        ([], [], "No corpus is given"),
        ([tmp_path / "nowhere.txt"], [], "neither file nor folder"),
        ([tmp_path / "empty"], [], "holds no text file"),
        ([tmp_path / "a.jsonl"], ["body"], 'a.jsonl, line 1: "body" is missing'),
        (["no/such-data-set"], [], "cannot be read as a data set"),
    ):
        with pytest.raises(InputError, match=message):
            texts(*names, fields=fields)


def test_windows_hold_what_leads_to_a_candidate_and_no_more(byte_tok):
    text = "x " * 400 + "Nobody came. The code of Ann is K7391524. " + "y " * 400 + "z (K999)"
    place, other = text.index("K7391524"), text.index("K999")
    candidates = [Candidate("CODE", place, place + 8), Candidate("CODE", other, other + 4)]
    windows, new = windows_of(Document("f", 3, text), candidates, byte_tok, 512)
    assert new == len(text) and len(windows) == 2
    first, second = windows
    assert byte_tok.decode(first.ids) == text[place - 64 : place + 8]
    assert [first.ids[position] for position in first.picks[0]] == byte_tok("K7391524")["input_ids"]
    (occurrence,) = first.occurrences
    assert occurrence.prompts["sentence"] == "The code of Ann is"
    assert occurrence.prompts["10"] == "of Ann is" and occurrence.prompts["200"].endswith(
        "Nobody came. The code of Ann is"
    )
    # What is glued to a candidate belongs to the target, which stands behind a space.
    assert second.occurrences[0].target == "(K999" and second.occurrences[0].secret == "K999"
    # Those in what was repeated were looked at with the piece before; what begins a text has nothing that leads to it.
    assert windows_of(Document("f", 3, text, place + 1), candidates[:1], byte_tok, 512)[0] == []
    assert windows_of(Document("f", 3, "K7391524 is it"), [Candidate("CODE", 0, 8)], byte_tok, 512)[0] == []


def test_a_window_is_not_longer_than_the_model_reads(byte_tok):
    text = "The first is 1111111 and " + "then " * 8 + "the second is 2222222 and " + "so on " * 8 + "3333333"
    candidates = [
        Candidate("NUMBER", text.index(each), text.index(each) + 7) for each in ("1111111", "2222222", "3333333")
    ]
    windows, _ = windows_of(Document("f", 1, text), candidates, byte_tok, 64)
    assert len(windows) == 3 and all(len(window.ids) <= 64 for window in windows)
    assert all(len(window.picks[0]) == 7 for window in windows)
    assert len(windows_of(Document("f", 1, text), candidates, byte_tok, 512)[0]) == 1


def test_texts_are_taken_as_they_are():
    assert list(texts_as_documents(["a", "b"])) == [Document("texts", 1, "a"), Document("texts", 2, "b")]
