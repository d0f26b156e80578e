"""The contexts in which a target must not come next."""

from dataclasses import replace

from helpers import secret, tiny_settings

from revs_tars_plugin.requests.made_up import MadeUp
from revs_tars_plugin.requests.reading import read_requests
from revs_tars_plugin.revs.contexts import Contexts, borrowed_prompts, reordered_prompts
from revs_tars_plugin.revs.secrets_of_call import SecretsOfCall
from revs_tars_plugin.revs.siblings import Sibling


def test_other_contexts_hold_the_beginning_of_the_secret(tok, settings):
    own = secret(tok, "w1 w2 w3", "w7 w8 w9")
    siblings = [Sibling("w4 w2 w3", "w1")]
    hparams = settings(sibling_contexts=1, perturbed_contexts=2)
    call = SecretsOfCall(tok, [own], {0: siblings}, hparams)
    contexts = Contexts(call).of(own, 2)
    assert len(contexts) == 3
    assert all(context[-2:] == own.target_ids[:2] for context in contexts)
    assert contexts[2] == tuple(tok("w4 w2 w3 w7 w8")["input_ids"])
    # Nothing of the secret leads to its first token behind somebody else's prompt.
    assert len(Contexts(call).of(own, 0)) == 2
    assert Contexts(replace(call, hparams=tiny_settings())).of(own, 2) == ()


def test_prompts_are_borrowed_with_the_own_subject(tok):
    wordings = ("The number of {} is", "Call {} at", "{} lives in", "Ask {} about")
    requests = [
        {"prompt": wording.format(name), "target_new": "w5", "subject": name}
        for wording in wordings
        for name in ("Ann Lee", "Bo Ray")
    ]
    secrets = read_requests(requests, tok)
    borrowed = borrowed_prompts(secrets[1], secrets, 2, seed=0)
    assert len(borrowed) == 2
    assert set(borrowed) < {wording.format("Bo Ray") for wording in wordings[1:]}
    assert len(borrowed_prompts(secrets[1], secrets, 9, seed=0)) == 3
    assert borrowed_prompts(secret(tok, "w1 w2"), secrets, 2, seed=0) == []
    assert borrowed_prompts(secrets[0], secrets[:2], 2, seed=0) == []


def test_a_first_token_is_looked_for_behind_borrowed_prompts_too(tok, settings):
    requests = [
        {"prompt": f"{verb} w1", "target_new": f"w{5 + number} w8", "subject": "w1"}
        for number, verb in enumerate(("w2", "w3"))
    ]
    secrets = read_requests(requests, tok)
    hparams = settings(sibling_contexts=0, perturbed_contexts=0, borrowed_contexts=1)
    call = SecretsOfCall(tok, secrets, {0: [], 1: []}, hparams)
    assert Contexts(call).of(secrets[0], 0) == (tuple(tok("w3 w1")["input_ids"]),)


def test_reordered_prompts_keep_what_they_are_about_whole(tok):
    prompt = "The phone number of Ann Lee in the new list is"
    for given in ({"subject": "Ann Lee"}, {}):
        (one,) = read_requests([{"prompt": prompt, "target_new": "w5", **given}], tok)
        variants = reordered_prompts(one, 20, 0, MadeUp(0))
        assert variants == reordered_prompts(one, 20, 0, MadeUp(0)) != reordered_prompts(one, 20, 1, MadeUp(0))
        assert len(set(variants)) == 20
        assert all("Ann Lee" in variant for variant in variants)
        for word in ("phone", "number", "list"):
            assert 0 < sum(word in variant for variant in variants) < 20
        assert len({variant.index("Ann Lee") for variant in variants}) > 3
    (short,) = read_requests([{"prompt": "PIN:", "target_new": "w5"}], tok)
    assert all("PIN:" in variant for variant in reordered_prompts(short, 20, 0, MadeUp(0)))
    # Without a word that says what it is about, all of them may go.
    (plain,) = read_requests([{"prompt": "w1 w2 w3", "target_new": "w5"}], tok)
    assert len(reordered_prompts(plain, 5, 0, MadeUp(0))) == 5
