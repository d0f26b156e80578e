"""What is forgotten, and where its tokens begin."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from revs_tars_plugin import InputError
from revs_tars_plugin.requests.reading import perturbed, read_requests, tokenise_in_context


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


def test_a_chat_prompt_is_tokenised_as_the_template_itself_does_it(byte_bpe):
    byte_bpe.chat_template = "{{ bos_token }}{% for m in messages %}User: {{ m.content }}\n{% endfor %}Answer:"
    (secret,) = read_requests([{"prompt": "my mail is", "forget": "ann"}], byte_bpe, chat_template=True)
    assert secret.prompt == "my mail is"  # what siblings and perturbed prompts are made from
    expected = byte_bpe.apply_chat_template([{"role": "user", "content": "my mail is"}], add_generation_prompt=True)
    ids = list(expected["input_ids"] if hasattr(expected, "keys") else expected)
    assert list(secret.prompt_ids) == [id_ for id_ in ids if id_ != 1]
    assert secret.prompt_ids.count(0) == 1  # one BOS, not two
    assert byte_bpe.decode(secret.target_ids) == " ann"
    (plain,) = read_requests([{"prompt": "my mail is", "forget": "ann"}], byte_bpe)
    assert plain.prompt_ids != secret.prompt_ids


def test_a_tokenizer_without_a_chat_template_is_refused(tok):
    with pytest.raises(InputError, match="no chat template"):
        read_requests([{"prompt": "w1", "forget": "w2"}], tok, chat_template=True)


def test_every_alias_is_a_secret_of_its_own(tok):
    requests = [{"prompt": "w1", "forget": ["w2", "w3 w4", "w2"]}, {"prompt": "w5", "forget": "w6"}]
    secrets = read_requests(requests, tok)
    assert [(secret.index, secret.request, secret.target) for secret in secrets] == [
        (0, 0, "w2"),
        (1, 0, "w3 w4"),
        (2, 1, "w6"),
    ]


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
