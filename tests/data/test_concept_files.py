"""Concepts from a file: the packaged ones, a user's own, and what cannot be used."""

import pytest

from revs_tars_plugin import InputError
from revs_tars_plugin.data import ConceptRecord, read_concepts_file


def test_the_packaged_concepts():
    concepts, unrelated = read_concepts_file()
    assert len({concept.name for concept in concepts}) == 20
    assert len(set(unrelated)) == 40
    for concept in concepts:
        assert len(concept.prompts) >= 3
        assert len(concept.held_out) >= 8
        assert not set(concept.prompts) & set(concept.held_out)
        # A fact holds the name or comes close; it must not be one of the prompts that end where the name comes.
        assert concept.facts
        assert len(concept.requests()) == len(concept.prompts)
    assert any(concept.foreign for concept in concepts)


def test_the_packaged_concepts_in_many_languages():
    concepts, unrelated = read_concepts_file("multilingual")
    assert {"Saturn", "Holmes"} < {concept.name for concept in concepts}
    assert len(concepts) == 20
    assert unrelated == []
    for concept in concepts:
        assert len(concept.prompts) == 3
        assert not set(concept.prompts) & set(concept.held_out)
        assert len(concept.held_out) >= 5
        assert len(concept.languages) >= 5  # and English
        assert len(concept.neighbours) >= 2
        assert not any(concept.name in (prompt, name) for prompt, name in concept.neighbours)
    # Where a language writes the name as it is nobody has to say so.
    saturn = next(concept for concept in concepts if concept.name == "Saturn")
    assert {name for _, name in saturn.languages["de"]} == {"Saturn"}
    assert {name for _, name in saturn.languages["fr"]} == {"Saturne"}


def test_prompts_of_all_languages_are_together_with_the_name_as_it_is_there(tmp_path):
    path = tmp_path / "concepts.yaml"
    path.write_text(
        "concepts:\n"
        "  - {name: Ada, foreign: [Es], languages: {de: [Das], ru: [[To, Ада]]}, neighbours: [[Charles, B]]}\n"
    )
    (concept,), _ = read_concepts_file(path)
    assert concept.abroad == (("Es", "Ada"), ("Das", "Ada"), ("To", "Ада"))
    assert concept.neighbours == (("Charles", "B"),)
    assert concept.texts == ("Es", "Charles B", "Das Ada", "To Ада")
    # A name alone.
    assert concept.requests() == [{"forget": "Ada", "target_new": "Ada", "ground_truth": "Ada"}]


def test_a_users_own_file(tmp_path):
    path = tmp_path / "concepts.yaml"
    path.write_text('concepts:\n  - {name: Ada, prompts: ["Wrote"], facts: [["Ada was a", " countess"]]}\n')
    (concept,), unrelated = read_concepts_file(path)
    assert concept == ConceptRecord("Ada", ("Wrote",), facts=(("Ada was a", " countess"),))
    assert unrelated == []
    assert concept.requests() == [{"prompt": "Wrote", "forget": "Ada", "target_new": "Ada", "ground_truth": "Ada"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", 'has no list "concepts"'),
        ("concepts: []", 'has no list "concepts"'),
        ("concepts: [1]", "concept 1: not a mapping"),
        ("concepts: [{name: A, prompt: [B]}]", 'concept 1: unknown field "prompt"; did you mean "prompts"'),
        ("concepts: [{prompts: [B]}]", 'concept 1: "name" is empty'),
        ("concepts: [{name: A, prompts: [B], languages: [C]}]", 'concept 1: "languages" must name a list'),
        (
            "concepts: [{name: A, languages: {no: [C]}}]",
            'concept 1: "languages" names False; put .* "no" for Norwegian',
        ),
        ("concepts: [{name: A, languages: {fr: []}}]", 'concept 1: "languages, fr" must be a list'),
        ("concepts: [{name: A, facts: [[' ', B]]}]", 'concept 1: "facts" must be pairs'),
        ("concepts: [{name: A, languages: {fr: C}}]", 'concept 1: "languages, fr" must be a list'),
        ("concepts: [{name: A, prompts: B}]", 'concept 1: "prompts" must be a list of texts'),
        ("concepts: [{name: A, prompts: [B], facts: [C]}]", 'concept 1: "facts" must be pairs'),
        ("concepts: [", "cannot be read as YAML"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, content, message):
    path = tmp_path / "concepts.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_concepts_file(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        read_concepts_file(tmp_path / "none.yaml")
