"""Siblings: the template stays, what varies is made anew, and secrets keep their form."""

from helpers import secret

from revs_tars_plugin.requests.reading import read_requests
from revs_tars_plugin.revs.siblings import make_siblings


def test_siblings_keep_the_template_and_change_what_varies(tok):
    named = secret(tok, "The number of Ann Lee is", "123-45-6789", subject="Ann Lee")
    made = make_siblings([named], 5, seed=0)[0]
    assert len(made) == 5
    for sibling in made:
        assert sibling.prompt.startswith("The number of ")
        assert sibling.prompt.endswith(" is")
        assert "Ann Lee" not in sibling.prompt
        assert len(sibling.prompt.removeprefix("The number of ").removesuffix(" is").split()) == 2
        assert sibling.target != "123-45-6789"
        assert [len(part) for part in sibling.target.split("-")] == [3, 2, 4]
    assert make_siblings([named], 5, seed=0)[0] == made
    assert make_siblings([named], 5, seed=1)[0] != made
    assert make_siblings([named], 0, seed=0)[0] == []


def test_what_varies_is_found_without_a_subject(tok):
    (sibling,) = make_siblings([secret(tok, "Mail bob@mail.com about Ann Lee by 12:30")], 1, seed=0)[0]
    assert "bob@mail.com" not in sibling.prompt
    assert "Ann Lee" not in sibling.prompt
    assert sibling.prompt.startswith("Mail ")
    assert "@" in sibling.prompt
    assert make_siblings([secret(tok, "nothing varies here")], 3, seed=0)[0] == []


def test_secrets_of_one_template_share_their_siblings(tok):
    requests = [{"prompt": f"Call {name} at", "target_new": "w5", "subject": name} for name in ("Ann Lee", "Bo Ray")]
    made = make_siblings(read_requests(requests, tok), 3, seed=0)
    assert made[0] is made[1]


def test_siblings_that_the_request_gives_are_used(tok):
    given = secret(tok, "w1 w2", sibling_prompts=["w3 w4"])
    assert {sibling.prompt for sibling in make_siblings([given], 3, seed=0)[0]} == {"w3 w4"}
