"""How a name may stand in a text."""

from helpers import tiny_tars

from revs_tars_plugin.tars.concepts import read_concepts
from revs_tars_plugin.tars.spellings import spellings_of


def concept_of(tok, name, prompt="w1 w2"):
    (concept,) = read_concepts([{"prompt": prompt, "ground_truth": name}], tok, tiny_tars())
    return concept


def test_every_beginning_ends_with_the_name_and_has_made_up_ones_beside_it(tok):
    (spelling,) = spellings_of(concept_of(tok, "w8 w9"), tok)
    ids = tuple(tok("w8 w9")["input_ids"])
    assert spelling.tokens == ids
    assert len(spelling.named) == len(set(spelling.named)) == len(spelling.made_up) > 3
    for named, made_up in zip(spelling.named, spelling.made_up, strict=True):
        assert named[-2:] == ids
        assert len(made_up) == 12
        assert all(other[: len(named) - 2] == named[:-2] and other[-2:] != ids for other in made_up)
    # The words that stand in front of the name in the request stand in front of it here.
    assert tuple(tok("w1 w2 w8 w9")["input_ids"]) in spelling.named


def test_a_capital_is_another_spelling_unless_variants_are_off(tok):
    tok.add_tokens(["Name", "name"])
    concept = concept_of(tok, "name")
    assert {tok.decode(list(each.tokens)) for each in spellings_of(concept, tok)} == {"Name", "name"}
    assert [tok.decode(list(each.tokens)) for each in spellings_of(concept, tok, variants=False)] == ["name"]
