"""`localization: covariance`: one key, one direction; many secrets solved together; siblings left alone."""

import random
from dataclasses import replace

import pytest
import torch
from helpers import assert_same_bits, snapshot, tiny_settings

from revs_tars_plugin import InputError, apply_revs_to_model, execute_revs
from revs_tars_plugin.edits.weight_edits import LowRankEdit
from revs_tars_plugin.requests import perturbed, read_requests
from revs_tars_plugin.revs.covariance import layer_schedule, solve_jointly
from revs_tars_plugin.revs.siblings import Sibling, make_siblings, same_form
from revs_tars_plugin.revs.targets import SecretsOfCall, borrowed_prompts, other_contexts
from revs_tars_plugin.revs.token_selection import surprises


@pytest.fixture
def settings(tmp_path):
    text = tmp_path / "text.txt"
    generator = random.Random(0)
    text.write_text("\n".join(" ".join(f"w{generator.randrange(200)}" for _ in range(20)) for _ in range(30)))

    def make(**changes):
        common = {
            "localization": "covariance",
            "mom2_dataset": str(text),
            "mom2_n_samples": 30,
            "stats_dir": str(tmp_path / "stats"),
            "siblings": 0,
            "sibling_contexts": 0,
            "perturbed_contexts": 0,
            "borrowed_contexts": 0,
        }
        return tiny_settings(**{**common, **changes})

    return make


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_target_ends_at_its_rank_and_undo_is_bitwise(model, tok, requests_, settings, schedule, dtype):
    model.to(dtype)
    before = snapshot(model)
    edits = execute_revs(model, tok, requests_, settings(schedule=schedule))
    assert_same_bits(model, before)
    assert all(isinstance(edit, LowRankEdit) for edit in edits.edits)
    edits.apply(model)
    secrets = read_requests(requests_, tok)
    for outcome in edits.outcomes:
        assert outcome.rank_before == 0
        context = secrets[outcome.request].context(outcome.position)
        with torch.no_grad():
            logits = model(torch.tensor([context])).logits[0, -1]
        # One context alone and a padded batch differ by rounding, in bfloat16 by some ranks.
        rank = int((logits > logits[outcome.token]).sum())
        assert rank == pytest.approx(outcome.rank_after, abs=1 if dtype == torch.float32 else 12)
        assert outcome.rank_after >= outcome.asked_rank
    edits.undo(model)
    assert_same_bits(model, before)


def test_the_joint_solve_of_one_secret_is_the_single_one(model, tok, requests_, settings):
    single = [{**requests_[0]}]
    changes = []
    for schedule in ("joint", "sequential"):
        edits = execute_revs(model, tok, single, settings(schedule=schedule, max_tokens=1, sweeps=1))
        changes.append({edit.name: edit.keys @ edit.values for edit in edits.edits})
    assert changes[0].keys() == changes[1].keys()
    for name, change in changes[0].items():
        torch.testing.assert_close(change, changes[1][name])


def test_each_key_triggers_its_own_direction_and_nobody_elses():
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(500, 20, generator=generator)
    keys, directions = torch.randn(4, 20, generator=generator), torch.randn(4, 8, generator=generator)
    steps = torch.tensor([1.0, 0.0, 2.0, 3.0]).double()
    readers, values = solve_jointly(keys, steps, directions, torch.linalg.cholesky(text.T @ text / 500), 0.0)
    moved = keys @ readers @ values
    torch.testing.assert_close(moved, -steps[:, None].float() * directions, rtol=1e-3, atol=1e-4)
    # Of all changes that do this, it is the one that moves the text least.
    found = (text @ readers @ values).norm()
    null = torch.linalg.svd(keys).Vh[4:].T @ torch.randn(16, 8, generator=generator) * 0.1
    assert (text @ (readers @ values + null)).norm() > found
    assert (text @ (readers @ values - null)).norm() > found


def test_an_update_hardly_moves_the_text_it_must_not_change(model, tok, requests_, settings):
    """The same demotion with and without the text to retain in the second moment."""
    retained = "w20 w21 w22 w23 w24 w25"
    ids = tok(retained, return_tensors="pt").input_ids

    def moved(**request_changes):
        requests = [{**requests_[0], **request_changes}]
        with torch.no_grad():
            before = model(ids).logits.log_softmax(-1)
            edits = execute_revs(model, tok, requests, settings(max_tokens=1, retain_weight=100.0))
            edits.apply(model)
            after = model(ids).logits.log_softmax(-1)
            edits.undo(model)
        assert edits.outcomes[0].reached
        return float((before.exp() * (before - after)).sum(-1).mean())

    without, with_ = moved(), moved(retain_texts=[retained])
    assert with_ < 0.5 * without


def test_retained_texts_come_from_a_file_too(model, tok, requests_, settings, tmp_path):
    with pytest.raises(InputError, match="retain_texts names"):
        execute_revs(model, tok, requests_, settings(retain_texts=str(tmp_path / "absent.txt")))
    file = tmp_path / "retain.txt"
    file.write_text("w20 w21 w22\n\nw30 w31\n")
    by_file = execute_revs(model, tok, requests_, settings(retain_texts=str(file)))
    by_request = [{**requests_[0], "retain_texts": ["w20 w21 w22", "w30 w31"]}, requests_[1]]
    for a, b in zip(by_file.edits, execute_revs(model, tok, by_request, settings()).edits, strict=True):
        torch.testing.assert_close(a.keys, b.keys)
    with pytest.raises(InputError, match='"retain_texts" must be a list'):
        execute_revs(model, tok, [{**requests_[0], "retain_texts": "w1"}], settings())


def test_a_call_that_breaks_off_leaves_the_weights_alone(model, tok, requests_, settings, monkeypatch):
    import revs_tars_plugin.revs.covariance as module

    before = snapshot(model)
    solve, calls = module.solve_jointly, []

    def breaks(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return solve(*args)

    monkeypatch.setattr(module, "solve_jointly", breaks)
    with pytest.raises(KeyboardInterrupt):
        apply_revs_to_model(model, tok, requests_, settings())
    assert len(calls) == 4
    assert_same_bits(model, before)


def test_the_host_gets_the_original_matrices(model, tok, requests_, settings):
    before = snapshot(model)
    edited, original = apply_revs_to_model(model, tok, requests_, settings(), return_orig_weights=True)
    assert len(original) == 3
    with torch.no_grad():
        for name, value in original.items():
            assert not torch.equal(edited.get_parameter(name), before[name])
            edited.get_parameter(name)[...] = value
    assert_same_bits(model, before)


def test_schedules_go_from_the_first_layer_to_the_last():
    assert layer_schedule([0, 1, 2], 3, 0.04, 0.01) == pytest.approx({0: 0.04, 1: 0.02, 2: 0.01})
    assert layer_schedule([0, 1, 2], 3, 0.02, 0.0) == pytest.approx({0: 0.02, 1: 0.01, 2: 0.0})
    assert layer_schedule([2], 3, 0.04, 0.01) == pytest.approx({2: 0.01})


def secret(tok, prompt, target="w5", **fields):
    return read_requests([{"prompt": prompt, "target_new": target, **fields}], tok)[0]


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


def test_the_form_of_a_secret_is_kept():
    generator = random.Random(0)
    made = same_form("https://www.Foo-BAR.com/x1", generator)
    assert made != "https://www.Foo-BAR.com/x1"
    assert made.startswith("https://www.")
    assert made[12].isupper()
    assert made[16:19].isupper()
    assert ".com/" in made


def test_tokens_are_asked_for_behind_sibling_prompts(model, tok):
    asked = secret(tok, "w1 w2 w3", "w7 w8")
    found = surprises(model, tok, [asked], {0: [Sibling("w9 w2 w3", "w1"), Sibling("w4 w2 w3", "w1")]})[0]
    expected = []
    for prompt in ("w9 w2 w3 w7 w8", "w4 w2 w3 w7 w8"):
        with torch.no_grad():
            ids = tok(prompt, return_tensors="pt").input_ids
            log_probabilities = model(ids).logits[0].log_softmax(-1)
        expected.append([float(log_probabilities[2, ids[0, 3]]), float(log_probabilities[3, ids[0, 4]])])
    assert found == pytest.approx([sum(column) / 2 for column in zip(*expected, strict=True)], abs=1e-4)


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


def test_perturbed_prompts_are_the_same_for_the_same_seed():
    assert perturbed("a prompt", 0) == perturbed("a prompt", 0) != perturbed("a prompt", 1)
    assert perturbed("a prompt", 0).replace(" ", "") == "aprompt"
    assert len(perturbed("a prompt", 0)) == len("a prompt") + 11
