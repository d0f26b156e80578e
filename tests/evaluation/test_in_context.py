"""Other secrets in front of a prompt."""

from revs_tars_plugin.evaluation import (
    in_context_prompts,
)


def test_other_secrets_stand_in_front_of_a_prompt():
    examples = [(f"The number of {name} is", str(number)) for number, name in enumerate("ABCDE")]
    found = in_context_prompts(["The number of C is", "Who?"], examples, shots=4)
    assert found[0].endswith(". The number of C is")
    assert "2." not in found[0]
    assert all(f"The number of {name} is {number}." in found[0] for name, number in (("A", 0), ("E", 4)))
    assert found[1].count(".") == 4
    assert found == in_context_prompts(["The number of C is", "Who?"], examples, shots=4)
