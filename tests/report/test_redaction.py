"""Secrets and parts of them are masked in any text, and nothing else is."""

import pytest

from revs_tars_plugin.data import SecretRecord
from revs_tars_plugin.report.redaction import Redactor, redactor_of


def test_the_whole_and_parts_are_masked_whatever_the_case():
    redact = Redactor(["jane.roe@example.org"])
    assert redact("Write to JANE.ROE@example.org now") == "Write to •••••••••••••••••••• now"
    assert redact("Write to jane.ro, or to roe@exa.com") == "Write to •••••••, or to •••••••.com"
    assert redact("Jane wrote an example") == "Jane wrote an •••••••"
    assert redact("Jane wrote to Roe") == "Jane wrote to Roe"


def test_of_numbers_the_last_four_digits_are_masked():
    redact = Redactor(["123-45-6789"])
    assert redact("It ends in 6789, not in 6798, nor 12") == "It ends in ••••, not in 6798, nor 12"


def test_short_secrets_are_masked_whole():
    redact = Redactor(["Au", "42"])
    assert redact("Au is 42, not 4") == "•• is ••, not 4"


def test_persons_are_replaced_as_words():
    redact = redactor_of([SecretRecord("Ann Lee is at", "555-0100", "Ann Lee"), SecretRecord("Ann is at", "x", "Ann")])
    assert redact("Ann Lee met Ann and Annabel at 555-0100") == "[name] met [name] and Annabel at ••••••••"


def test_nothing_is_masked_where_secrets_are_shown():
    assert Redactor(["secret"], ["Ann"], show=True)("Ann's secret") == "Ann's secret"
    assert Redactor()("Ann's secret") == "Ann's secret"


@pytest.mark.parametrize("text", ["", "İstanbul İ secret", "ß secret"])
def test_letters_whose_case_changes_their_length_do_no_harm(text):
    assert Redactor(["secret"])(text) == text.replace("secret", "••••••")


def test_white_space_alone_is_no_secret():
    assert Redactor(["a    b", " "])("c     d") == "c     d"
