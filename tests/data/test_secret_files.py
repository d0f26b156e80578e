"""A user's own secrets come in as they stand, or with an error that names file, line and column."""

import pytest

from revs_tars_plugin import InputError
from revs_tars_plugin.data import SecretRecord, read_secrets

MIA = SecretRecord("The phone number of Mia is", "555 0100", "Mia", "Call Mia at", True)


def written(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_csv_with_all_columns(tmp_path):
    path = written(
        tmp_path,
        "own.csv",
        "\ufeffprompt,target,subject,rephrase_prompt,retain,note\n"
        "The phone number of Mia is,555 0100,Mia,Call Mia at,yes,hers\n"
        '"Mail, for Tom,\ngoes to",tom@example.com,,,,\n',
    )
    assert read_secrets(path) == [MIA, SecretRecord("Mail, for Tom,\ngoes to", "tom@example.com")]


def test_json_lines(tmp_path):
    path = written(
        tmp_path,
        "own.jsonl",
        '{"prompt": "The phone number of Mia is", "target": "555 0100", "subject": "Mia", '
        '"rephrase_prompt": "Call Mia at", "retain": true}\n\n'
        '{"prompt": "Mail goes to", "target": "tom@example.com"}\n',
    )
    records = read_secrets(str(path))
    assert records == [MIA, SecretRecord("Mail goes to", "tom@example.com")]
    assert records[0].request() == {
        "prompt": MIA.prompt,
        "target_new": MIA.target,
        "ground_truth": MIA.target,
        "forget": MIA.target,
        "subject": "Mia",
    }
    assert "subject" not in records[1].request()


def test_json_lines_may_name_several_wordings(tmp_path):
    path = written(
        tmp_path,
        "own.jsonl",
        '{"prompt": "a", "target": "b", "rephrase_prompt": ["c", "d"]}\n{"prompt": "a", "target": "b"}',
    )
    several, none = read_secrets(path)
    assert (several.rewordings, none.rewordings, MIA.rewordings) == (("c", "d"), (), ("Call Mia at",))
    path = written(tmp_path, "bad.jsonl", '{"prompt": "a", "target": "b", "rephrase_prompt": ["c", 1]}')
    with pytest.raises(InputError, match='line 1, column "rephrase_prompt"'):
        read_secrets(path)


def test_the_published_files_columns(tmp_path):
    path = written(
        tmp_path,
        "ssn.csv",
        'prompt,sentence,ssn,date,name\n"The SSN of Ann Lee is","The SSN of Ann Lee is 900-11-1234.",'
        "900-11-1234,1-2-2020,Ann Lee\n",
    )
    assert read_secrets(path) == [SecretRecord("The SSN of Ann Lee is", "900-11-1234", "Ann Lee")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "prompt,target\n", r"a\.txt ends in neither \.csv nor \.jsonl"),
        ("a.csv", "", r"a\.csv holds no secrets"),
        ("a.csv", "prompt,target\n", r"a\.csv holds no secrets"),
        ("a.csv", "prompt,targets\nx,y\n", r'a\.csv, line 1: no column "target".*targets'),
        ("a.csv", "prompt,target\nx,y\nx,\n", r'a\.csv, line 3, column "target": empty'),
        ("a.csv", 'prompt,target\n"x\nx",y\nx,\n', r'a\.csv, line 4, column "target": empty'),
        ("a.csv", "prompt,target\nx,y,z\n", r"a\.csv, line 2: more cells"),
        ("a.csv", 'prompt,target\nx,"y\n', r"a\.csv, line 2: "),
        ("a.csv", "prompt,target,retain\nx,y,perhaps\n", r'line 2, column "retain": .perhaps. is neither'),
        ("a.csv", "prompt,ssn\nx,\n", r'line 2, column "ssn": empty'),
        ("a.jsonl", '{"prompt": "x", "target": "y"}\n{"prompt"\n', r"a\.jsonl, line 2, column \d+: not JSON"),
        ("a.jsonl", "[1]\n", r"line 1: not a JSON object"),
        ("a.jsonl", '{"prompt": "x"}\n', r'line 1: no column "target"'),
        ("a.jsonl", '{"prompt": "x", "target": 5}\n', r'line 1, column "target": 5 is not a text'),
    ],
)
def test_errors_name_file_line_and_column(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_secrets(written(tmp_path, name, text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv cannot be read: No such file"):
        read_secrets(tmp_path / "gone.csv")
    (tmp_path / "latin.csv").write_bytes(b"prompt,target\nx,\xe9\n")
    with pytest.raises(InputError, match=r"latin\.csv is not UTF-8"):
        read_secrets(tmp_path / "latin.csv")
