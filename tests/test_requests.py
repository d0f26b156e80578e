"""What is forgotten, and where its tokens begin."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from revs_tars_plugin import InputError
from revs_tars_plugin.requests import perturbed, read_requests, tokenise_in_context


class Slow:
    """A tokenizer without offsets, as the host's older ones are."""

    def __init__(self, tok):
        self._tok = tok
        self.is_fast = False

    def __call__(self, text, **kwargs):
        assert "return_offsets_mapping" not in kwargs
        return self._tok(text, **kwargs)


@pytest.fixture
def byte_bpe():
    """A byte-level BPE with a BOS and an EOS token, trained on a line of text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    text = ["my mail is ann@mail.org and the number is 12345"] * 4
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])
    )
    from tokenizers.processors import TemplateProcessing

    backend.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def test_ground_truth_is_forgotten_when_it_is_a_real_one(tok):
    def forgotten(**fields):
        return read_requests([{"prompt": "w1 w2", **fields}], tok)[0].target

    assert forgotten(target_new="w3", ground_truth="w4") == "w4"
    assert forgotten(target_new="w3", ground_truth=None) == "w3"
    assert forgotten(target_new="w3", ground_truth="<|endoftext|>") == "w3"
    assert forgotten(target_new="w3") == "w3"


@pytest.mark.parametrize("wrap", [lambda tok: tok, Slow], ids=["with offsets", "without offsets"])
@pytest.mark.parametrize(
    ("prompt", "target"), [("my mail is", "ann@mail.org"), ("my mail is ", "ann"), ("my", " né 1")]
)
def test_prompt_and_target_tokens_make_up_the_full_text(byte_bpe, wrap, prompt, target):
    prompt_ids, target_ids = tokenise_in_context(wrap(byte_bpe), prompt, target)
    space = "" if prompt.endswith(" ") or target.startswith(" ") else " "
    full = byte_bpe(prompt + space + target)["input_ids"]
    assert full[-1] == 1
    assert list(prompt_ids + target_ids) == full[:-1]  # BOS is the prompt's, EOS is nobody's
    assert prompt_ids[0] == 0
    assert target in byte_bpe.decode(target_ids)


def test_a_token_across_the_border_belongs_to_the_target(byte_bpe):
    prompt_ids, target_ids = tokenise_in_context(byte_bpe, "my ", "mail")
    assert byte_bpe.decode(target_ids) == " mail"
    assert byte_bpe.decode(prompt_ids, skip_special_tokens=True) == "my"


def test_context_of_a_later_token_holds_the_earlier_ones(tok):
    secret = read_requests([{"prompt": "w1", "target_new": "w2 w3"}], tok)[0]
    assert secret.context(1) == secret.prompt_ids + secret.target_ids[:1]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": "", "target_new": "w1"}, 'Request 1: "prompt" is empty'),
        ({"prompt": "  ", "target_new": "w1"}, 'Request 1: "prompt" is empty'),
        ({"target_new": "w1"}, 'Request 1: "prompt" is empty'),
        ({"prompt": "w1"}, "Request 1 has nothing to forget"),
        ({"prompt": "w1", "target_new": "", "ground_truth": "<|endoftext|>"}, "Request 1 has nothing to forget"),
        ({"prompt": "w1", "target_new": "\n"}, "Request 1 has nothing to forget"),
        ({"prompt": "w1", "target_new": "w2", "subject": 5}, '"subject" is a int'),
        ({"prompt": "w1 " * 64, "target_new": "w2"}, "take 65 tokens, but the model reads 64"),
        ("w1", "Request 1 is a str"),
    ],
)
def test_bad_requests_are_named(tok, request_, message):
    good = {"prompt": "w1", "target_new": "w2"}
    with pytest.raises(InputError, match=message):
        read_requests([good, request_], tok, context_length=64)


def test_a_target_without_a_token_is_refused(tok):
    tok.backend_tokenizer.normalizer = __import__("tokenizers").normalizers.Replace("w9", "")
    with pytest.raises(InputError, match="tokenises to nothing"):
        read_requests([{"prompt": "w1", "target_new": "w9"}], tok)


def test_requests_must_be_a_list(tok):
    with pytest.raises(InputError, match="list of dictionaries"):
        read_requests({"prompt": "w1", "target_new": "w2"}, tok)
    with pytest.raises(InputError, match="requests is empty"):
        read_requests([], tok)


def test_perturbed_prompts_are_the_same_for_the_same_seed():
    assert perturbed("a prompt", 0) == perturbed("a prompt", 0) != perturbed("a prompt", 1)
    assert perturbed("a prompt", 0).replace(" ", "") == "aprompt"
    assert len(perturbed("a prompt", 0)) == len("a prompt") + 11
