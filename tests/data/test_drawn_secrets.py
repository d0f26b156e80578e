"""Secrets whose kinds and wordings vary with the seed."""

import re

from revs_tars_plugin.data.drawn_secrets import drawn_secrets, strangers_to


def test_the_same_seed_draws_the_same_and_another_one_other_kinds_and_wordings():
    secrets, others = drawn_secrets(2, 0), drawn_secrets(2, 1)
    assert secrets == drawn_secrets(2, 0)
    assert len(secrets) == 48
    assert {secret.kind for secret in secrets} != {secret.kind for secret in others}
    assert len({secret.target for secret in secrets}) == len({secret.subject for secret in secrets}) == 48
    assert not {secret.target for secret in secrets} & {secret.target for secret in others}
    seen = {secret.kind for seed in range(4) for secret in drawn_secrets(1, seed)}
    assert seen == {"ssn", "phone", "card", "passport", "email", "url", "user"}


def test_a_third_of_the_templates_have_five_wordings_and_those_to_measure_with_are_no_prompts():
    secrets = drawn_secrets(1, 3)
    counts = [len(secret.rephrase_prompt) for secret in secrets]
    assert sorted(counts) == [1] * 16 + [4] * 8
    assert all(secret.subject in wording for secret in secrets for wording in (secret.prompt, *secret.rephrase_prompt))
    prompts = {(secret.kind, secret.prompt.replace(secret.subject, "")) for secret in secrets}
    assert len(prompts) == 24
    assert not prompts & {(s.kind, wording.replace(s.subject, "")) for s in secrets for wording in s.rephrase_prompt}


def test_strangers_stand_in_the_same_places():
    secrets = drawn_secrets(2, 0)
    strangers = strangers_to(secrets, 0)
    assert not {secret.subject for secret in secrets} & {stranger.subject for stranger in strangers}
    assert not {secret.target for secret in secrets} & {stranger.target for stranger in strangers}
    for secret, stranger in zip(secrets, strangers, strict=True):
        assert stranger.prompt == secret.prompt.replace(secret.subject, stranger.subject)
        assert re.sub(r"\d", "0", stranger.target)[:1] == re.sub(r"\d", "0", secret.target)[:1] or secret.kind in (
            "email",
            "user",
            "passport",
        )
