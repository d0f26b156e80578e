"""Our methods as trainers of open-unlearning: of its layout here, of its own code where a checkout is named."""

import os
import sys
from pathlib import Path

import pytest
import torch
from helpers import assert_same_bits, snapshot
from transformers import Trainer, TrainingArguments

from revs_tars_plugin import InputError
from revs_tars_plugin.cli import main
from revs_tars_plugin.evaluation import still_generated
from revs_tars_plugin.yardsticks import Record, learn
from revs_tars_plugin.yardsticks.unlearning_trainer import records_of, unlearning_trainer

FORGET = [Record(str(n), "a", "question", "", f"w{n} w5", f"w{n + 30} w{n + 40}") for n in range(10, 13)]
RETAIN = [Record(str(n), "b", "question", "", f"w{n} w5", f"w{n + 30} w{n + 40}") for n in range(20, 24)]


class FinetuneTrainer(Trainer):
    """The contract of the base class: what the evaluators say is its own business."""

    def __init__(self, evaluators=None, template_args=None, **arguments):
        self.evaluators = evaluators
        super().__init__(**arguments)


def items(records, tok):
    """Items as that framework makes them: the whole in tokens, labels of the answer alone, an end behind."""
    made = []
    for record in records:
        prompt, answer = (tok(text)["input_ids"] for text in (record.prompt, record.answer))
        ids = [*prompt, *answer, tok.eos_token_id]
        labels = [-100] * len(prompt) + ids[len(prompt) :]
        made.append({"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "index": 0})
    return made


class Both:
    """A set of items to forget with one to retain."""

    def __init__(self, forget, retain):
        self.forget, self.retain = forget, retain

    def __len__(self):
        return len(self.forget)


@pytest.fixture
def taught(model, tok):
    learn(model, tok, [*FORGET, *RETAIN], epochs=60, learning_rate=3e-3)
    return model


def trainer_of(method, model, tok, dataset, tmp_path, **method_args):
    arguments = TrainingArguments(output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True)
    return unlearning_trainer(method, FinetuneTrainer)(
        model=model, args=arguments, train_dataset=dataset, tokenizer=tok, evaluators={}, **method_args
    )


def said(model, tok, records):
    return still_generated(model, tok, [r.prompt for r in records], [r.answer for r in records])


def test_items_are_read_as_prompts_and_answers(tok):
    found = records_of(items(FORGET, tok), tok)
    assert [(record.prompt, record.answer) for record in found] == [(r.prompt, r.answer) for r in FORGET]
    without = {"input_ids": torch.tensor([1, 2]), "labels": torch.tensor([-100, -100])}
    with pytest.raises(InputError, match="Item 0 of the data set has no prompt or no answer"):
        records_of([without], tok)
    with pytest.raises(InputError, match="Item 0 of the data set has no input_ids or no labels"):
        records_of(["text"], tok)


def test_training_is_an_edit_and_saving_keeps_it(taught, tok, tmp_path):
    from transformers import AutoModelForCausalLM

    dataset = Both(items(FORGET, tok), items(RETAIN, tok))
    little = {"mom2_n_samples": 4, "stats_dir": str(tmp_path / "stats"), "siblings": 2}
    trainer = trainer_of("REVS", taught, tok, dataset, tmp_path, **little)
    assert type(trainer).__name__ == "REVS"
    assert all(said(taught, tok, FORGET))
    before = snapshot(taught)
    output = trainer.train()
    assert output.global_step == 0
    assert not any(said(taught, tok, FORGET))
    changed = [name for name, value in taught.state_dict().items() if not torch.equal(value, before[name])]
    assert changed and all("down_proj" in name for name in changed)
    trainer.save_model(str(tmp_path / "saved"))
    assert_same_bits(AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), snapshot(taught))


def test_a_setting_that_cannot_be_leaves_the_model_alone(taught, tok, tmp_path):
    before = snapshot(taught)
    trainer = trainer_of("REVS", taught, tok, items(FORGET, tok), tmp_path, max_tokens=0)
    with pytest.raises(InputError, match="max_tokens is 0"):
        trainer.train()
    assert_same_bits(taught, before)
    with pytest.raises(InputError, match=r'REVS has no setting "max_token"; did you mean "?max_tokens'):
        trainer_of("REVS", taught, tok, items(FORGET, tok), tmp_path, max_token=1)
    with pytest.raises(InputError, match='no method "REVZ"'):
        unlearning_trainer("REVZ", FinetuneTrainer)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The layout of a checkout: a table of trainers, and a script that looks one up in it."""
    place = tmp_path / "src"
    (place / "trainer").mkdir(parents=True)
    (place / "trainer" / "__init__.py").write_text(
        "class FinetuneTrainer:\n    pass\nTRAINER_REGISTRY = {'GradDiff': FinetuneTrainer}\n"
    )
    (place / "train.py").write_text(
        "import sys\nfrom trainer import TRAINER_REGISTRY\nprint(sys.argv[1:], sorted(TRAINER_REGISTRY), __name__)\n"
    )
    yield place
    for name in [name for name in sys.modules if name.split(".")[0] == "trainer"]:
        del sys.modules[name]


def test_a_script_finds_them_by_their_names(source, capsys):
    arguments, path = list(sys.argv), list(sys.path)
    command = ["open-unlearning", str(source / "train.py"), "--config-name=unlearn.yaml", "trainer.handler=REVS"]
    assert main(command) == 0
    expected = (
        "['--config-name=unlearn.yaml', 'trainer.handler=REVS'] ['FT-L-delete', 'GradDiff', 'REVS', 'TARS'] __main__"
    )
    assert expected in capsys.readouterr().out
    assert sys.argv == arguments and sys.path == path


def test_what_is_no_script_of_it_is_one_sentence(source, capsys):
    assert main(["open-unlearning", str(source / "none.py")]) == 2
    assert "is no file; name open-unlearning's src/train.py" in capsys.readouterr().err
    (source / "trainer" / "__init__.py").write_text("")
    assert main(["open-unlearning", str(source / "train.py")]) == 2
    assert "has no trainers of open-unlearning that can be imported" in capsys.readouterr().err


@pytest.mark.skipif(not os.environ.get("OPEN_UNLEARNING"), reason="needs a checkout of open-unlearning")
def test_its_own_data_sets_are_read_and_its_own_base_class_serves(taught, tok, tmp_path, monkeypatch):
    checkout = Path(os.environ["OPEN_UNLEARNING"]).expanduser() / "src"
    monkeypatch.syspath_prepend(str(checkout))
    for name in [name for name in sys.modules if name.split(".")[0] in ("trainer", "data")]:
        monkeypatch.delitem(sys.modules, name)
    from data.unlearn import ForgetRetainDataset

    base = _base(checkout)
    dataset = ForgetRetainDataset(items(FORGET, tok), items(RETAIN, tok))
    arguments = TrainingArguments(output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True)
    little = {"mom2_n_samples": 4, "stats_dir": str(tmp_path / "stats"), "siblings": 2}
    trainer = unlearning_trainer("REVS", base)(
        model=taught,
        args=arguments,
        train_dataset=dataset,
        tokenizer=tok,
        evaluators=None,
        template_args=None,
        **little,
    )
    trainer.train()
    assert not any(said(taught, tok, FORGET))


def _base(checkout):
    """Its trainers' base class by itself: the package takes DeepSpeed in as well."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("open_unlearning_base", checkout / "trainer" / "base.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FinetuneTrainer
