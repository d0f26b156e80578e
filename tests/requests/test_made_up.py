"""Made-up names and texts of a secret's form."""

import re

from faker import Faker

from revs_tars_plugin.requests.made_up import MadeUp


def test_the_form_is_kept():
    made_up = MadeUp(0)
    for text, form in (
        ("195-32-0266", r"\d{3}-\d{2}-\d{4}"),
        ("tammy76@yahoo.com", r"[a-z]{3,}\d\d@yahoo\.com"),
        ("https://www.Arnold-mann.net/go-now", r"https://www\.[A-Z][a-z]+-[a-z]+\.net/[a-z]{2,3}-[a-z]+"),
        ("sk-9fA", r"[a-z]{2}-\d[a-z]{2}"),
        ("10175 West 58th Place", r"\d{5} [A-Z][a-z]+ \d\dth [A-Z][a-z]+"),
    ):
        for other in made_up.several_like(text, 20):
            assert re.fullmatch(form, other), (text, other)
            assert other != text


def test_words_are_of_the_same_kind():
    fake = Faker("en_US")
    words = MadeUp(0).several_like("garden", 40)
    assert set(words) <= {word.lower() for word in fake.get_words_list()}
    surnames = {name.lower() for name in fake.provider("faker.providers.person").last_names}
    assert set(MadeUp(0).several_like("hernandez", 40)) <= surnames
    assert {len(word) for word in words} <= {5, 6, 7}


def test_the_same_seed_makes_the_same_and_another_one_others():
    texts = [MadeUp(seed).several_like("tammy76@yahoo.com", 10) for seed in (0, 0, 1, "0")]
    assert texts[0] == texts[1]
    assert not set(texts[0]) & set(texts[2]) & set(texts[3])
    assert len(set(texts[0])) == 10


def test_a_small_form_gives_what_it_has_and_one_without_anything_to_vary_nothing():
    made_up = MadeUp(0)
    assert sorted(made_up.several_like("7", 63)) == [str(digit) for digit in range(10) if digit != 7]
    assert made_up.several_like("--", 63) == []


def test_names_have_as_many_words_as_asked():
    made_up = MadeUp(0)
    assert [len(made_up.name(words).split()) for words in (1, 2, 3)] == [1, 2, 3]


def test_an_unknown_word_by_itself_is_no_user_name():
    made_up, fake = MadeUp(0), Faker("en_US")
    words = {word.lower() for word in fake.get_words_list()}
    names = set(fake.provider("faker.providers.person").last_names)
    assert set(made_up.several_like("iceberg", 20)) <= words
    assert set(made_up.several_like("(photosynthesis)", 20)) <= {f"({word})" for word in words}
    assert set(made_up.several_like("Einstein", 20)) <= names
    assert all(
        re.fullmatch(r"[A-Z][a-z]+ [a-z]{2} [A-Z][a-z]+", text) for text in made_up.several_like("Xaver vo Yz", 20)
    )
    # In an address or beside a number it is rather made of names.
    assert not set(made_up.several_like("zzkelly_07", 20)) & {f"{word}_07" for word in words}


def test_what_all_secrets_of_a_form_share_belongs_to_the_form():
    cards = ["4123 55", "4908 57", "4400 51", "4871 58"]
    made = MadeUp(0, cards).several_like(cards[0], 63)
    assert all(re.fullmatch(r"4\d{3} 5\d", other) for other in made)
    assert {other[1] for other in made} == set("0123456789")
    # Of another form nothing is known, and of fewer texts digits agree by chance.
    assert {other[0] for other in MadeUp(0, cards).several_like("4123-55", 63)} == set("0123456789")
    assert {other[0] for other in MadeUp(0, cards[:3]).several_like(cards[0], 63)} == set("0123456789")


def test_names_may_be_those_of_another_one():
    names = MadeUp("pool")
    first, second = (MadeUp(seed, names_of=names) for seed in (1, 2))
    drawn = first.several_like("Garcia", 12)
    assert set(drawn) != set(second.several_like("Garcia", 12))
    assert drawn == MadeUp(1, names_of=MadeUp("pool")).several_like("Garcia", 12)
    assert drawn != MadeUp(1).several_like("Garcia", 12)
