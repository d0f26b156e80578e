"""Published files: found by name whatever their ending, and wrong ones named."""

import json

import pytest

from revs_tars_plugin import InputError
from revs_tars_plugin.yardsticks import published_folder
from revs_tars_plugin.yardsticks.published_files import file_named, rows_of

ROWS = [{"question": "q1", "answer": "a1"}, {"question": "q2", "answer": "a2"}]


def written(folder, ending):
    file = folder / f"name{ending}"
    if ending == ".parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="needs the extra bench")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    else:
        file.write_text("\n".join(map(json.dumps, ROWS)) if ending == ".jsonl" else json.dumps(ROWS, indent=1))
    return file


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_every_format_gives_the_same_rows_also_from_a_folder_below(tmp_path, ending):
    (tmp_path / "data").mkdir()
    file = written(tmp_path / "data", ending)
    assert file_named(tmp_path, "name") == file
    assert [dict(row) for _, row in rows_of(file, ("question", "answer"))] == ROWS
    with pytest.raises(InputError, match=r"name.*(line|row) 1: \"other\" is missing or no text"):
        list(rows_of(file, ("other",)))


def test_what_is_not_there_or_broken_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"has no file name.jsonl \(or .json, .parquet\); add it"):
        file_named(tmp_path, "name")
    with pytest.raises(InputError, match="is no folder"):
        file_named(tmp_path / "none", "name")
    for content, message in (("[{]", "line 1, column 3: not JSON"), ("[1]", "line 1: not a JSON object")):
        (tmp_path / "name.json").write_text(content)
        with pytest.raises(InputError, match=message):
            list(rows_of(tmp_path / "name.json"))
    pytest.importorskip("pyarrow", reason="needs the extra bench")
    (tmp_path / "name.parquet").write_bytes(b"not that")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        list(rows_of(tmp_path / "name.parquet"))


def test_a_folder_is_taken_as_it_is_and_an_id_is_fetched(tmp_path, monkeypatch):
    assert published_folder(tmp_path) == tmp_path
    with pytest.raises(InputError, match="is no folder; name the one with the published files"):
        published_folder(tmp_path / "none")
    fetched = []

    def snapshot_download(name, *, repo_type, allow_patterns):
        fetched.append((name, repo_type, tuple(allow_patterns)))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert published_folder("owner/data") == tmp_path
    assert fetched == [("owner/data", "dataset", ("*.jsonl", "*.json", "*.parquet"))]


def test_an_id_that_cannot_be_fetched_is_one_sentence():
    """The tests run without the hub."""
    with pytest.raises(InputError, match=r"owner/no-such is no folder, and as a data set it cannot be fetched"):
        published_folder("owner/no-such")
