"""Reading a corpus: every kind of file, a piece at a time, and what is wrong with one in one sentence."""

import itertools
import json

import pytest
from characters import character_tokenizer
from tokenizers.processors import TemplateProcessing

from revs_tars_plugin import InputError
from revs_tars_plugin.discovery import Candidate, read_corpus
from revs_tars_plugin.discovery.corpus import Document, files_of, texts_as_documents
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
    lines = [f"line {number} " + "x" * 100 for number in range(1, 401)]
    file = tmp_path / "a.txt"
    file.write_text("\n".join(lines) + "\n")
    documents = list(read_corpus([file]))
    assert len(documents) > 3 and documents[0].fresh == 0
    assert "".join(document.text[document.fresh :] for document in documents) == file.read_text()
    for before, document in itertools.pairwise(documents):
        assert document.fresh == 1600 and before.text.endswith(document.text[: document.fresh])
        assert document.text[document.fresh :].startswith(f"line {document.number} ")


@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
def test_a_text_without_line_breaks_is_cut_between_words(tmp_path, ending):
    """Not in a secret that stands where a piece ends."""
    words = "y" * 8180 + " code K7391524 and " + "z " * 20_000
    file = tmp_path / f"a{ending}"
    file.write_text(words if ending == ".txt" else json.dumps({"text": words}))
    documents = list(read_corpus([file]))
    assert max(len(document.text) for document in documents) < 12_000
    assert "".join(document.text[document.fresh :] for document in documents) == words
    assert sum("K7391524" in document.text[document.fresh :] for document in documents) == 1
    # One word as long as the file is cut all the same.
    (tmp_path / "b.txt").write_text("y" * 50_000)
    pieces = list(read_corpus([tmp_path / "b.txt"]))
    assert len(pieces) > 3 and sum(len(piece.text) - piece.fresh for piece in pieces) == 50_000


def test_what_is_unusual_in_records_is_read(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps({"text": "a b"}, indent=2))
    (tmp_path / "c.csv").write_text('a,b\n1,2,3\n"x\ny",z\n')
    (tmp_path / "half.jsonl").write_text('{"text": "a\\ud83d b"}')
    assert texts(tmp_path / "one.json") == ["a b"]
    assert [(each.number, each.text) for each in read_corpus([tmp_path / "c.csv"])] == [(2, "1 2 3"), (3, "x\ny z")]
    assert texts(tmp_path / "half.jsonl") == ["a? b"]


def test_a_folder_is_read_whole_but_for_what_is_no_text(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "b.md").write_text("b")
    (tmp_path / ".hidden").write_text("c")
    (tmp_path / "d.bin").write_bytes(b"\x00\x01")
    (tmp_path / "e.json").write_text("{no")
    assert texts(tmp_path) == ["b", "a"]
    assert "d.bin, line 1: no text" in caplog.text and "e.json, line 1, column 2: not JSON" in caplog.text
    assert [file.name for file in files_of([tmp_path])] == ["b.md", "d.bin", "e.json", "a.txt"]


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
        (["hf://no/such-data-set"], [], "cannot be read as a data set"),
        (["notes/emails"], [], "neither file nor folder"),
    ):
        with pytest.raises(InputError, match=message):
            texts(*names, fields=fields)


def test_windows_hold_what_leads_to_a_candidate_and_no_more(byte_tok):
    text = "x " * 400 + "Nobody came. The code of Ann is K7391524. " + "y " * 400 + "z (K999"
    place, other = text.index("K7391524"), text.index("K999")
    candidates = [Candidate("CODE", place, place + 8), Candidate("CODE", other, other + 4)]
    part = windows_of(Document("f", 3, text), candidates, byte_tok, 512)
    assert part.new == len(text) and len(part.windows) == 2 and part.untested == ()
    first, second = part.windows
    assert byte_tok.decode(first.ids) == text[place - 64 : place + 8]
    assert [first.ids[position] for position in first.picks[0]] == byte_tok("K7391524")["input_ids"]
    (occurrence,) = first.occurrences
    assert occurrence.prompts["sentence"] == "The code of Ann is "
    assert occurrence.prompts["10"] == "of Ann is " and occurrence.prompts["200"].endswith("came. The code of Ann is ")
    assert second.occurrences[0].prompts["10"].endswith("y z (") and second.occurrences[0].secret == "K999"
    # Those in what was repeated were looked at with the piece before.
    assert windows_of(Document("f", 3, text, place + 1), candidates[:1], byte_tok, 512).windows == ()


def test_what_begins_a_text_is_tested_where_a_token_stands_in_front(byte_tok):
    candidate, text = [Candidate("CODE", 0, 8)], "K7391524 is it"
    assert windows_of(Document("f", 1, text), candidate, byte_tok, 512).untested == ("CODE",)
    two = windows_of(Document("f", 1, "; K7391524"), [Candidate("CODE", 2, 10)], byte_tok, 512)
    assert len(two.windows) == 1


def test_windows_begin_as_texts_of_the_tokenizer_do():
    tok = character_tokenizer(bos_token="@")
    tok._tokenizer.post_processor = TemplateProcessing(single="@ $A", special_tokens=[("@", tok.bos_token_id)])
    text = "the code is 7391524"
    candidate = Candidate("NUMBER", 12, 19)
    for longest in (64, 12):
        (window,) = windows_of(Document("f", 1, text), [candidate], tok, longest).windows
        assert window.ids[0] == tok.bos_token_id and len(window.ids) <= longest
        assert tok.decode([window.ids[place] for place in window.picks[0]]) == "7391524"
    assert windows_of(Document("f", 1, text), [candidate], tok, 7).untested == ("NUMBER",)


@pytest.mark.parametrize(("running", "line"), [(True, 5), (False, 3)])
def test_lines_are_those_of_the_file(byte_tok, running, line):
    """Line breaks in a record's text are none of its file."""
    text = "one\ntwo\nthe code is K7391524"
    place = text.index("K7391524")
    document = Document("f", 3, text, running=running)
    (window,) = windows_of(document, [Candidate("CODE", place, place + 8)], byte_tok, 512).windows
    assert window.occurrences[0].line == line


def test_a_window_is_not_longer_than_the_model_reads(byte_tok):
    text = "The first is 1111111 and " + "then " * 8 + "the second is 2222222 and " + "so on " * 8 + "3333333"
    candidates = [
        Candidate("NUMBER", text.index(each), text.index(each) + 7) for each in ("1111111", "2222222", "3333333")
    ]
    windows = windows_of(Document("f", 1, text), candidates, byte_tok, 64).windows
    assert len(windows) == 3 and all(len(window.ids) <= 64 for window in windows)
    assert all(len(window.picks[0]) == 7 for window in windows)
    assert len(windows_of(Document("f", 1, text), candidates, byte_tok, 512).windows) == 1


def test_texts_are_taken_as_they_are():
    assert list(texts_as_documents(["a", "b"])) == [Document("texts", 1, "a"), Document("texts", 2, "b")]
