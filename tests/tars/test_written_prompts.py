"""Prompts that a model writes itself: reproducible, kept, and beside or in place of the given ones."""

import json

import pytest
import torch
from helpers import snapshot, tiny_tars

from revs_tars_plugin import InputError, execute_tars
from revs_tars_plugin.evaluation import name_probabilities
from revs_tars_plugin.tars import prompt_writer
from revs_tars_plugin.tars.concepts import read_concepts
from revs_tars_plugin.tars.name_leads import full_name_leads, given_leads, ways_to
from revs_tars_plugin.tars.prompt_writer import PromptWriter, WrittenPrompt
from revs_tars_plugin.tars.prompts import prompted_requests, written_prompts


@pytest.fixture
def anything_goes(monkeypatch):
    """A model with random weights gives no name with a probability of 0.1."""
    monkeypatch.setattr(prompt_writer, "_PROBABLE", 0.0)


@pytest.mark.usefixtures("anything_goes")
def test_the_same_seed_writes_the_same_prompts_that_lead_to_the_name(decoder, tok):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    written = PromptWriter(decoder, tok, 0).write("w9", ["w1 w2 Ada"])
    assert torch.equal(torch.get_rng_state(), state)
    assert written
    assert written == PromptWriter(decoder, tok, 0).write("w9", ["w1 w2 Ada"])
    assert written != PromptWriter(decoder, tok, 1).write("w9", ["w1 w2 Ada"])
    assert len(written) == len(set(written)) <= 24
    # What stands in front of the name in the given prompt does so here, and the name itself is in none of them.
    assert all(prompt.split()[-1] == "Ada" and "w9" not in prompt.split() for prompt, _ in written)
    assert {target for _, target in written} == {"w9"}


def test_prompts_are_kept_that_give_the_name(monkeypatch, decoder, model, tok):
    monkeypatch.setattr(prompt_writer, "_PROBABLE", 0.0)
    everything = PromptWriter(decoder, tok, 0).write("w9", ["w1 the"])
    values = name_probabilities(model, tok, [prompt for prompt, _ in everything], "w9")
    border = sorted(values)[len(values) // 2]
    monkeypatch.setattr(prompt_writer, "_PROBABLE", border)
    some = PromptWriter(decoder, tok, 0).write("w9", ["w1 the"])
    assert min(name_probabilities(model, tok, [prompt for prompt, _ in some], "w9")) >= border * (1 - 1e-5)
    assert {each for each, p in zip(everything, values, strict=True) if p > border} <= set(some)
    monkeypatch.setattr(prompt_writer, "_PROBABLE", 1.1)
    assert PromptWriter(decoder, tok, 0).write("w9", ["w1 the"]) == ()


def test_a_statement_is_turned_round():
    turned = prompt_writer._turned
    assert list(turned(" first woman who won it. She", "was", "the", "Curie")) == ["The first woman who won it was"]
    assert list(turned(" a physicist", "is", "", "Curie")) == []  # says too little
    assert list(turned(" a friend of curie and others", "is", "", "Curie")) == []
    # A short name is in many words, which are not it.
    assert list(turned(" one of the moons of Jupiter", "is", "", "Io")) == ["One of the moons of Jupiter is"]
    assert list(turned(" one action of Io there", "is", "", "Io")) == []


def test_what_stands_in_front_of_a_name_in_given_prompts():
    assert given_leads(["It was Marie", "She was called Marie"]) == ["Marie"]
    assert given_leads(["the river is the"]) == ["the"]
    assert given_leads(["this is called"]) == ["", "called"]
    assert given_leads([]) == ["", "called"]


def test_first_names_are_read_off_texts_that_give_a_name_in_full():
    texts = [" Ludwig van Beethoven. He", ' "Ludwig van Beethoven" was', " of Johann Sebastian Bach", " the Beethovens"]
    assert full_name_leads(texts, "Beethoven") == ["Ludwig van", "Ludwig"]
    # Words that a model adds in front or behind, and initials.
    found = full_name_leads(["Detective Sherlock Holmes", "the J. R. Holmes."], "Holmes")
    assert found[:3] == ["Detective Sherlock", "Detective", "Sherlock"]
    assert "J. R." in found
    # Neither the name itself nor what ends a sentence is a first name.
    assert full_name_leads(["Ada Curie Curie", "It ends. Marie Curie"], "Curie") == ["Ada", "Marie"]
    assert full_name_leads(["of the curie"], "Curie") == []
    # First letters without spaces are one word, and a line may end in front of the name.
    assert full_name_leads(["by J.R.R. Tolkien"], "Tolkien") == ["J.R.R."]
    assert full_name_leads(["by Ada\nCurie"], "Curie") == ["Ada"]


def test_a_name_of_several_words_is_led_to_by_its_first_ones():
    assert ways_to("Curie", ["Marie", ""]) == [("Marie", "Curie"), ("", "Curie")]
    assert ways_to("Marie Curie", ["", "the"]) == [
        ("", "Marie Curie"),
        ("the", "Marie Curie"),
        ("Marie", "Curie"),
        ("the Marie", "Curie"),
    ]


@pytest.mark.parametrize("name", ["Apollo 11", "World War I", "Luther King Jr.", "Great Wall of China", "Curie"])
def test_a_last_word_that_begins_much_else_is_no_target_of_its_own(name):
    assert ways_to(name, ["", "the"]) == [("", name), ("the", name)]


WRITTEN = [WrittenPrompt("w7 w1", "w9"), WrittenPrompt("w7 w2", "w9")]
REQUESTS = [
    {"prompt": "w1 w2", "forget": "w9"},
    {"prompt": "w3 w4", "forget": "w8"},
    {"prompt": "w5 w6", "forget": "w9"},
]


def test_given_written_or_both(tok):
    asked = []

    def write(name, prompts):
        asked.append((name, list(prompts)))
        return WRITTEN if name == "w9" else []

    def prompts(mode, requests=REQUESTS):
        found = prompted_requests(requests, tok, tiny_tars(prompts=mode), write=write)
        return [(each.request["prompt"], each.request["forget"], each.origins) for each in found]

    given = [("w1 w2", "w9", (0,)), ("w3 w4", "w8", (1,)), ("w5 w6", "w9", (2,))]
    assert prompts("given") == given
    assert asked == []
    written = [("w7 w1", "w9", (0, 2)), ("w7 w2", "w9", (0, 2))]
    assert sorted(prompts("both")) == sorted([*given, *written])
    assert asked == [("w9", ["w1 w2", "w5 w6"]), ("w8", ["w3 w4"])]
    # Where the model writes nothing the given ones stay.
    assert sorted(prompts("written")) == sorted([*written, given[1]])
    # A name alone: what the model writes, or a prompt that says nothing.
    assert prompts("both", [{"forget": "w9"}]) == [("w7 w1", "w9", (0,)), ("w7 w2", "w9", (0,))]
    assert prompts("written", [{"forget": "w8"}]) == [("It was", "w8", (0,))]


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([1], "Request 0 is a int"),
        ([REQUESTS[0], {"prompt": 3, "forget": "w9"}], 'Request 1: "prompt" is empty'),
        ([REQUESTS[0], {"prompt": "w1"}], "Request 1 has nothing to forget"),
        ([REQUESTS[0], {"forget": "w9", "subject": 3}], 'Request 1: "subject" is a int'),
        ([REQUESTS[0], {"prompt": "w1 " * 80, "forget": "w9"}], "Request 1: .* take 81 tokens"),
    ],
)
def test_what_cannot_be_used_is_said_of_the_request_before_anything_is_written(tok, requests, message):
    def write(*_):
        raise AssertionError

    for mode in ("written", "both"):
        with pytest.raises(InputError, match=message):
            read_concepts(requests, tok, tiny_tars(prompts=mode), 64, write)


def test_blank_prompts_are_none_and_several_names_of_a_request_are_written_for_each(tok):
    asked = []

    def write(name, prompts):
        asked.append((name, prompts))
        return [WrittenPrompt("w7 w1", name)]

    requests = [{"prompt": " ", "description": "", "ground_truth": ["w9", "w8"]}]
    concepts = read_concepts(requests, tok, tiny_tars(prompts="both", forget_field="ground_truth"), 64, write)
    assert asked == [("w9", []), ("w8", [])]
    assert [(concept.name, concept.requests) for concept in concepts] == [("w9", (0,)), ("w8", (0,))]


def test_what_stands_in_front_of_a_name_alone_is_found(monkeypatch, decoder, tok):
    """The model is made to say one word of letters anywhere, and the name behind it."""
    tok.add_tokens(["Ada"])
    lead, name = tok.convert_tokens_to_ids("Ada"), tok("w9")["input_ids"][0]

    def logits(_model, sequences):
        values = torch.zeros(len(sequences), lead + 1)
        for row, ids in enumerate(sequences):
            values[row, name if ids[-1] == lead else lead] = 20
        return values

    monkeypatch.setattr(prompt_writer, "next_token_logits", logits)
    written = PromptWriter(decoder, tok, 0).write("w9")
    assert written
    assert all(prompt.endswith(" Ada") for prompt, _ in written)


@pytest.fixture
def speaking(monkeypatch, tok):
    """Makes a model say something: behind beginnings, and as the next word by the last one."""
    tok.add_tokens(["Ada", "Wye", "old"])
    monkeypatch.setattr(tok, "get_vocab", lambda: {})  # the tiny model's head is smaller

    def speaking(text_behind, next_word):
        asked = []

        def continuations(_writer, beginnings, *_counts):
            asked.extend(beginnings)
            return [text_behind(beginning) for beginning in beginnings]

        def logits(_model, sequences):
            values = torch.zeros(len(sequences), 300)
            for row, ids in enumerate(sequences):
                word = next_word(tok.convert_ids_to_tokens(ids[-1]))
                values[row, tok.convert_tokens_to_ids(word)] = 20
            return values

        monkeypatch.setattr(PromptWriter, "_continuations", continuations)
        monkeypatch.setattr(prompt_writer, "next_token_logits", logits)
        return asked

    return speaking


def _full_name_and_a_statement(beginning):
    return [" Ada Wye. It"] if "full name" in beginning else [" first of all the people. So"]


def test_a_name_that_the_model_gives_in_full_is_led_to_by_what_stands_in_front_of_it(speaking, decoder, tok):
    asked = speaking(_full_name_and_a_statement, lambda last: "Wye" if last == "Ada" else "w5")
    written = PromptWriter(decoder, tok, 0).write("Wye")
    assert written[0] == ("First of all the people is Ada", "Wye")
    assert all(prompt.endswith(" Ada") for prompt, _ in written)
    assert "Ada Wye is" in asked


def test_a_first_name_that_does_not_lead_to_the_name_is_none(speaking, decoder, tok):
    asked = speaking(_full_name_and_a_statement, lambda _: "w5")
    assert PromptWriter(decoder, tok, 0).write("Wye") == ()
    assert "Wye is" in asked
    assert "Ada Wye is" not in asked


def test_what_nothing_leads_to_with_the_first_name_is_written_without_it(speaking, decoder, tok):
    def text_behind(beginning):
        return [] if beginning.startswith("Ada") else _full_name_and_a_statement(beginning)

    speaking(text_behind, lambda last: "Wye")
    written = PromptWriter(decoder, tok, 0).write("Wye")
    assert {prompt.split()[-1] for prompt, _ in written} >= {"Ada", "is"}
    # Every statement stands there once before any does a second time.
    first_ones = [prompt.removesuffix(" Ada") for prompt, _ in written[:9]]
    assert len(set(first_ones)) == len(first_ones)


def test_of_a_name_of_several_words_all_comes_or_the_last_one(monkeypatch, speaking, decoder, tok):
    monkeypatch.setattr(prompt_writer, "_MOST", 99)
    speaking(
        lambda _: [" first of all the people.", " wife of some old Wye there."],
        lambda last: "Wye" if last == "Ada" else "Ada",
    )
    written = PromptWriter(decoder, tok, 0).write("Ada Wye")
    assert ("First of all the people is", "Ada Wye") in written
    assert ("First of all the people is Ada", "Wye") in written
    # What says the target is copied from, and tells nothing of what the model knows.
    assert ("Wife of some old Wye there is", "Ada Wye") in written
    assert not any("Wye" in prompt for prompt, target in written if target == "Wye")


def test_a_name_alone_needs_written_prompts(tok):
    with pytest.raises(InputError, match=r'Request 0 has neither a "prompt" nor a "description".*prompts: written'):
        read_concepts([{"forget": "w9"}], tok, tiny_tars())
    concept = read_concepts([{"forget": "w9"}], tok, tiny_tars(prompts="both"), write=lambda *_: WRITTEN)[0]
    assert concept.requests == (0,)
    assert concept.prompts == (tuple(tok("w7 w1")["input_ids"]), tuple(tok("w7 w2")["input_ids"]))
    assert concept.leads == ("w1", "w7 w1", "w2", "w7 w2")


def test_given_prompts_alone_say_what_stands_in_front_of_the_name(tok):
    hparams = tiny_tars(prompts="both")
    (concept,) = read_concepts([REQUESTS[0]], tok, hparams, write=lambda *_: WRITTEN[:1])
    assert concept.leads == ("w2", "w1 w2")
    assert len(concept.prompts) == 2


@pytest.mark.usefixtures("anything_goes")
def test_written_prompts_are_kept_for_the_weights_that_wrote_them(monkeypatch, decoder, model, tok, tmp_path):
    hparams = tiny_tars(prompts="both", stats_dir=str(tmp_path))
    first = written_prompts(decoder, tok, hparams)("w9", ["w1 Ada"])
    (path,) = (tmp_path / "written_prompts").glob("*.json")
    assert json.loads(path.read_text()) == [list(each) for each in first]
    monkeypatch.setattr(PromptWriter, "write", lambda *_: (WrittenPrompt("w1 w2", "w9"),))
    assert list(written_prompts(decoder, tok, hparams)("w9", ["w1 Ada"])) == list(first)
    for changed in ({"seed": 1}, {"chat_template": True}):
        other = tiny_tars(stats_dir=str(tmp_path), **changed)
        assert written_prompts(decoder, tok, other)("w9", ["w1 Ada"]) == (("w1 w2", "w9"),)
    before = snapshot(model)
    with torch.no_grad():  # attention counts as well
        model.model.layers[0].self_attn.q_proj.weight[0, 0] += 1
    assert written_prompts(decoder, tok, hparams)("w9", ["w1 Ada"]) == (("w1 w2", "w9"),)
    model.load_state_dict(before)
    for broken, message in (("{", r"holds no prompts .* delete it"), ('["w1 w2"]', "holds no prompts; delete it")):
        path.write_text(broken)
        with pytest.raises(InputError, match=message):
            written_prompts(decoder, tok, hparams)("w9", ["w1 Ada"])


def test_nothing_is_kept_for_packed_weights_nor_for_those_without_values(monkeypatch, decoder, model, tok, tmp_path):
    """Their bits are no numbers to add up, or somewhere else."""
    monkeypatch.setattr(PromptWriter, "write", lambda *_: (WrittenPrompt("w1 w2", "w9"),))
    hparams = tiny_tars(prompts="both", stats_dir=str(tmp_path))
    weight = model.model.layers[0].self_attn.q_proj
    for other in (weight.weight.detach().to(torch.int8), weight.weight.detach().to("meta")):
        weight.weight = torch.nn.Parameter(other, requires_grad=False)
        assert written_prompts(decoder, tok, hparams)("w9", ["w1 Ada"]) == (("w1 w2", "w9"),)
        assert not list(tmp_path.iterdir())
    weight.weight = torch.nn.Parameter(torch.zeros(2, 2))
    packed = torch.nn.Module()  # with its bits in a buffer, as GPTQ has them
    packed.in_features = 2
    model.model.layers[0].self_attn.q_proj = packed
    assert written_prompts(decoder, tok, hparams)("w9", ["w1 Ada"]) == (("w1 w2", "w9"),)
    assert not list(tmp_path.iterdir())


def test_a_name_of_several_words_is_one_concept_of_its_own_name(tok):
    """Behind some prompts all of it comes, behind others the last of its words."""
    written = [WrittenPrompt("w7 w1", "w9 w8"), WrittenPrompt("w7 w9", "w8")]
    hparams = tiny_tars(prompts="written", name_variants=False)
    (concept,) = read_concepts([{"forget": "w9 w8"}], tok, hparams, write=lambda *_: written)
    assert concept.name == "w9 w8"
    assert concept.prompts == (tuple(tok("w7 w1")["input_ids"]), tuple(tok("w7 w9")["input_ids"]))
    assert concept.tokens == tuple(tok.convert_tokens_to_ids(["w9", "w8"]))
    assert concept.leads == ("w1", "w7 w1", "w7")  # of the name nothing stands in front of it


@pytest.mark.usefixtures("anything_goes")
def test_a_name_alone_is_removed(model, tok, tmp_path):
    hparams = tiny_tars(prompts="written", stats_dir=str(tmp_path), min_probability=1e-6, goal_probability=1e-7)
    edits = execute_tars(model, tok, [{"forget": "w9"}], hparams)
    (outcome,) = edits.outcomes
    assert outcome.requests == (0,)
    assert len(outcome.before) > 3
    assert outcome.row()["prompts"] == len(outcome.before)
    assert outcome.reversed > 0
    assert sum(outcome.after) < sum(outcome.before)
