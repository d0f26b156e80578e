"""What looks like a secret: by the libraries, by our own patterns, and by a user's."""

import pytest

from revs_tars_plugin import InputError
from revs_tars_plugin.discovery import KINDS, Detectors, Patterns, read_patterns


@pytest.fixture(scope="module")
def detectors():
    return Detectors()


@pytest.mark.parametrize(
    ("text", "secret", "kind"),
    [
        ("Her SSN is 514-22-9083.", "514-22-9083", "US_SSN"),
        ("Her SSN is 900-51-4344.", "900-51-4344", "US_ITIN"),
        ("Call (721) 625-3765 now", "(721) 625-3765", "PHONE_NUMBER"),
        ("Call 286-957-7783 now", "286-957-7783", "NUMBER"),
        ("The card 4123 4567 8910 1234 is blocked", "4123 4567 8910 1234", "NUMBER"),
        ("The card 4111 1111 1111 1111 is blocked", "4111 1111 1111 1111", "CREDIT_CARD"),
        ("passport P12345678", "P12345678", "US_PASSPORT"),
        ("mail joe_magenta@corp.local today", "joe_magenta@corp.local", "EMAIL_ADDRESS"),
        ("see https://www.smith.example/abc-def here", "https://www.smith.example/abc-def", "URL"),
        ("login joe_12", "joe_12", "USER_NAME"),
        ("of 10175 West 58th Place, #505, Orange, CA, 92867.", "10175 West 58th Place, #505, Orange, CA, 92867", None),
        ("What is the birth date of Tim? 1984-12-31", "1984-12-31", "BIRTH_DATE"),
        ("was born on December 31, 1984, in", "December 31, 1984", "BIRTH_DATE"),
        ("password = 'hunter2xyz'", "hunter2xyz", "API_KEY"),
        ("export TOKEN=ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", None),
        ("to DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00", "IBAN_CODE"),
        ("from 192.168.17.4 on", "192.168.17.4", "IP_ADDRESS"),
        ("the code 7F3A99XQ21", "7F3A99XQ21", "CODE"),
    ],
)
def test_a_secret_is_found_whole(detectors, text, secret, kind):
    found = [(text[each.start : each.end], each.kind) for each in detectors.candidates(text)]
    assert [each for each, _ in found] == [secret]
    assert kind in (None, found[0][1]) and found[0][1] in KINDS


@pytest.mark.parametrize(
    "text",
    [
        "It was a bright cold day in April, and the clocks were striking thirteen.",
        "From 1999 - 2003, in 1999-2000, and 2001 2002 2003 again.",
        "On 1984-12-31 the war ended.",
        "Chapter 1645 has 12 pages.",
    ],
)
def test_ordinary_text_and_years_are_none(detectors, text):
    assert detectors.candidates(text) == []


def test_kinds_can_be_chosen_and_a_user_adds_his_own(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "patterns:\n  EMPLOYEE: 'E-\\d{4}'\n  KEYED: ['id=(?P<secret>\\w+)']\n"
        "words:\n  PROJECT: [Bluebird, Blue Heron]\nignore: [info@corp.example]\n"
    )
    own = read_patterns(file)
    text = (
        "E-1234 of project blue heron wrote to info@corp.example and joe@corp.example with id=abcdef; Bluebirds sang."
    )
    found = [(each.kind, text[each.start : each.end]) for each in Detectors(patterns=own).candidates(text)]
    assert found == [
        ("EMPLOYEE", "E-1234"),
        ("PROJECT", "blue heron"),
        ("EMAIL_ADDRESS", "joe@corp.example"),
        ("KEYED", "abcdef"),
    ]
    chosen = Detectors(("PROJECT",), own).candidates(text)
    assert [each.kind for each in chosen] == ["PROJECT"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a", "must hold patterns, words, ignore"),
        ("{", "cannot be read as YAML"),
        ("paterns: {}", 'has "paterns"; it may have patterns, words, ignore; did you mean "patterns"'),
        ("patterns: [a]", 'own.yaml, "patterns": it must name kinds'),
        ("patterns: {A: '('}", 'patterns, "A": no regular expression'),
        ("patterns: {A: '.*'}", 'patterns, "A": it matches everything'),
        ("patterns: {A: '.+'}", 'patterns, "A": it matches everything'),
        ("words: {A: []}", 'words, "A": it must be a text, or a list'),
        ("words: {A: [1]}", 'words, "A": it must be a text, or a list'),
        ("ignore: a", '"ignore": it must be a list of texts'),
    ],
)
def test_wrong_patterns_are_one_sentence(tmp_path, content, message):
    file = tmp_path / "own.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as error:
        read_patterns(file)
    assert message in str(error.value)


def test_a_pattern_that_takes_for_ever_is_named():
    slow = Patterns({"SLOW": (r"(?:a|a)*[bc]$",)}, patience=0.05)
    with pytest.raises(InputError, match=r'The pattern of "SLOW" takes more than 0\.05 s'):
        list(slow.spans("a" * 40 + "!"))


def test_what_cannot_be_looked_for_is_said():
    with pytest.raises(InputError, match=r'--kind is "EMAIL_ADRESS".*did you mean "EMAIL_ADDRESS"'):
        Detectors(("EMAIL_ADRESS",))
    with pytest.raises(InputError, match="needs a spaCy model that knows names"):
        Detectors(("PERSON",))
    with pytest.raises(InputError, match='--language-model is "en_nowhere"'):
        Detectors(language_model="en_nowhere")
