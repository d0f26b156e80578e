"""The contexts in which a target must not come next."""

from dataclasses import replace

from helpers import secret, tiny_settings

from revs_tars_plugin.requests.reading import read_requests
from revs_tars_plugin.revs.siblings import Sibling
from revs_tars_plugin.revs.targets import SecretsOfCall, borrowed_prompts, other_contexts


def test_other_contexts_hold_the_beginning_of_the_secret(tok, settings):
    own = secret(tok, "w1 w2 w3", "w7 w8 w9")
    siblings = [Sibling("w4 w2 w3", "w1")]
    hparams = settings(sibling_contexts=1, perturbed_contexts=2)
    call = SecretsOfCall(tok, [own], {0: siblings}, hparams)
    contexts = other_contexts(call, own, 2)
    assert len(contexts) == 3
    assert all(context[-2:] == own.target_ids[:2] for context in contexts)
    assert contexts[2] == tuple(tok("w4 w2 w3 w7 w8")["input_ids"])
    # Nothing of the secret leads to its first token behind somebody else's prompt.
    assert len(other_contexts(call, own, 0)) == 2
    assert other_contexts(replace(call, hparams=tiny_settings()), own, 2) == ()


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
