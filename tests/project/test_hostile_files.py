"""Files from strangers: whatever is in them, one sentence says so, no weight changes, and memory stays bounded."""

import json
import resource

import pytest
import torch
import yaml
from helpers import an_edit, assert_same_bits, covariance_settings, snapshot, tiny_settings, tiny_tars
from hostile import generators, mutant, torn
from safetensors import safe_open
from safetensors.torch import save

from revs_tars_plugin import EditSet, REVSHyperParams, TARSHyperParams
from revs_tars_plugin.data.concept_files import concepts_from_text
from revs_tars_plugin.data.secret_files import read_secrets
from revs_tars_plugin.edits.files import _digest
from revs_tars_plugin.errors import InputError
from revs_tars_plugin.report import write_report
from revs_tars_plugin.report.results import read_result

MANY = 1000
# More than all of these may take beside what the tests take anyway.
MOST_MIB = 512


@pytest.fixture(autouse=True)
def bounded():
    """No file makes the program take much memory: the peak of the whole process hardly rises."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MIB


def one_sentence(error):
    text = str(error)
    assert len(text) < 1000 and "\n" not in text.strip() and "Traceback" not in text, text


def _written(path, content, tensors):
    """An edit's file as a stranger writes it who knows how its digest is made."""
    text = content if isinstance(content, str) else json.dumps(content)
    metadata = {"format": "revs-tars-edit", "version": "1", "content": text, "digest": _digest(text, tensors)}
    path.write_bytes(save(tensors, metadata))


_STRANGE_TENSORS = (
    torch.Tensor.double,
    torch.Tensor.long,
    torch.Tensor.bool,
    lambda tensor: tensor.to(torch.bfloat16),
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: tensor[:0],
    lambda tensor: tensor.reshape(-1),
    lambda tensor: tensor.unsqueeze(0),
    lambda tensor: tensor.t().contiguous(),
    lambda tensor: tensor * float("nan"),
    lambda tensor: tensor.float() + float("inf"),
    lambda tensor: tensor + 10**6,
    lambda tensor: -tensor - 1,
    lambda tensor: torch.cat([tensor, tensor]),
    lambda tensor: tensor.new_zeros(()),
    # No bytes at all, and a billion of rows.
    lambda tensor: tensor.new_zeros((10**9, 0)),
    lambda tensor: tensor.new_zeros((0, *tensor.shape[1:])),
)


@pytest.mark.parametrize("kind", ["neurons", "covariance"])
def test_an_edit_from_a_stranger_is_refused_or_can_be_undone(model, tok, requests_, tmp_path, kind):
    file = tmp_path / "edit.safetensors"
    edits = an_edit(model, tok, requests_, kind, tmp_path)
    edits.save(file, include_requests=True)
    with safe_open(file, framework="pt") as opened:
        content = json.loads(opened.metadata()["content"])
        tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    good, before, fingers = file.read_bytes(), snapshot(model), {"refused": 0, "applied": 0}
    for number, generator in enumerate(generators(MANY // 2)):
        changed, parts = content, dict(tensors)
        if number % 4 == 0:
            file.write_bytes(torn(good, generator))
        else:
            if number % 4 == 1:
                name = generator.choice(sorted(parts))
                parts[name] = generator.choice(_STRANGE_TENSORS)(parts[name])
            else:
                changed = mutant(content, generator)
            if generator.random() < 0.05:
                changed = json.dumps(changed)[: generator.randrange(200)]
            _written(file, changed, parts)
        try:
            loaded = EditSet.load(file)
            loaded.apply(model)
        except InputError as error:
            one_sentence(error)
            fingers["refused"] += 1
        else:
            loaded.undo(model)
            fingers["applied"] += 1
        if number % 20 == 0 or number > MANY // 2 - 3:
            assert_same_bits(model, before)
    assert fingers["refused"] > MANY // 10 and fingers["applied"] > 0


@pytest.mark.parametrize("kind", ["revs", "covariance", "tars"])
def test_settings_from_a_stranger_are_refused_or_are_settings(tmp_path, kind):
    good = {"revs": tiny_settings, "tars": tiny_tars, "covariance": lambda: covariance_settings(tmp_path)}[kind]()
    file = tmp_path / "settings.yaml"
    text = yaml.safe_dump(good.to_dict())
    refused = 0
    for number, generator in enumerate(generators(MANY // 3)):
        if number % 3 == 0:
            file.write_bytes(torn(text.encode(), generator))
        else:
            file.write_text(yaml.safe_dump(mutant(good.to_dict(), generator)))
        try:
            (TARSHyperParams if kind == "tars" else REVSHyperParams).from_hparams(str(file))
        except InputError as error:
            one_sentence(error)
            refused += 1
    assert MANY // 30 < refused < MANY // 3


SECRETS = 'prompt,target,subject,rephrase_prompt,retain\n"w1, w2",w3,w4,w5 w6,\nw7,w8,,,yes\n'
CONCEPTS = {
    "concepts": [
        {"name": "w1", "prompts": ["w2 w3"], "held_out": ["w4"], "foreign": ["w5"], "facts": [["w1 w2", "w3"]]},
        {"name": "w9", "prompts": ["w2", "w8"]},
    ],
    "unrelated": ["w6"],
}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "yaml"])
def test_requests_from_a_stranger_are_refused_or_are_requests(tmp_path, kind):
    lines = [
        {"prompt": "w1", "target": "w3", "subject": "w4", "rephrase_prompt": ["w5", "w6"]},
        {"prompt": "w1", "target": "w2", "retain": True},
    ]
    good = {
        "csv": SECRETS,
        "jsonl": "\n".join(map(json.dumps, lines)),
        "yaml": yaml.safe_dump(CONCEPTS),
    }[kind]
    file = tmp_path / f"requests.{kind}"
    refused = 0
    for number, generator in enumerate(generators(MANY // 3)):
        if number % 2 or kind == "csv":
            file.write_bytes(torn(good.encode(), generator))
        elif kind == "jsonl":
            file.write_text("\n".join(map(json.dumps, mutant(lines, generator))))
        else:
            file.write_text(yaml.safe_dump(mutant(CONCEPTS, generator)))
        try:
            if kind == "yaml":
                from revs_tars_plugin.data.secret_files import text_of

                concepts_from_text(text_of(file), str(file))
            else:
                read_secrets(file)
        except InputError as error:
            one_sentence(error)
            refused += 1
    assert 10 < refused < MANY // 3


def test_nested_yaml_and_json_are_refused(tmp_path):
    """Neither depth nor names of names make more of a small file than it is."""
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{here}: &{here} [{', '.join([f'*{there}'] * 9)}]\n"
        for there, here in zip("abcdefgh", "bcdefghi", strict=True)
    )
    deep = "[" * 5000 + "]" * 5000
    for text in (laughs, f"concepts: {deep}", f"{laughs}concepts: *i"):
        with pytest.raises(InputError):
            concepts_from_text(text, "concepts.yaml")
        file = tmp_path / "settings.yaml"
        file.write_text(text)
        with pytest.raises(InputError):
            REVSHyperParams.from_hparams(str(file))
    # Under keys that there are as well: what is said of a value must not spell it out.
    good = yaml.safe_dump(tiny_settings().to_dict())
    for key in ("device", "seed", "forget_field", "model_name"):
        file.write_text("\n".join(line for line in good.splitlines() if not line.startswith(f"{key}:")) + "\n")
        before = file.read_text()
        nested = "[&a [x, x, x, x, x, x, x, x, x]"
        for there, here in zip("abcdefgh", "bcdefghi", strict=True):
            nested += f", &{here} [{', '.join([f'*{there}'] * 9)}]"
        file.write_text(f"{before}{key}: {nested}]\n")
        with pytest.raises(InputError) as error:
            REVSHyperParams.from_hparams(str(file))
        one_sentence(error.value)
    file = tmp_path / "secrets.jsonl"
    file.write_text(deep)
    with pytest.raises(InputError):
        read_secrets(file)
    file = tmp_path / "result.json"
    file.write_text(deep)
    with pytest.raises(InputError):
        read_result(file)


def test_results_from_a_stranger_are_refused_or_drawn(tmp_path):
    from report.test_html import benchmark, comparison, evaluation

    file, page = tmp_path / "result.json", tmp_path / "page.html"
    refused = 0
    kinds = [evaluation(), comparison(), benchmark("LUME")]
    for number, generator in enumerate(generators(MANY // 16)):
        good = kinds[number % 3]
        if number % 4 == 0:
            file.write_bytes(torn(json.dumps(good).encode(), generator))
        else:
            file.write_text(json.dumps(mutant(good, generator)))
        try:
            write_report([read_result(file)], page)
        except InputError as error:
            one_sentence(error)
            refused += 1
    assert 10 < refused < MANY // 16
