"""Files as a stranger might write them: mutants of good ones, from a seed."""

import json
import random
from copy import deepcopy

STRANGE = (
    *(None, True, 0, -1, 10**9, 10**30, 1.5, float("nan"), float("inf")),
    *(
        "",
        "..",
        "../../../etc/passwd",
        "/dev/zero",
        "a.b",
        "\x00",
        "w" * 5000,
        "__class__",
        "nan",
        "\ud7ff",
        "{{7*7}}",
        "<b>",
    ),
    *([], {}, [[]], [None], {"a": {}}, [1, 2, 3], ["w1"]),
)


def mutant(content, generator):
    """A copy of what JSON holds with a few of its places changed."""
    content = json.loads(json.dumps(content))
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        places = list(_places(content))
        if not places:
            break
        holder, key = generator.choice(places)
        what = generator.random()
        if what < 0.25 and isinstance(holder, dict):
            del holder[key]
        elif what < 0.35 and isinstance(holder, list):
            holder.insert(key, deepcopy(generator.choice(STRANGE)))
        elif what < 0.45 and isinstance(holder, dict):
            holder[str(deepcopy(generator.choice(STRANGE)))] = holder[key]
        else:
            holder[key] = deepcopy(generator.choice(STRANGE))
    return content


def torn(data, generator):
    """Bytes with some of them changed, cut off or doubled."""
    data = bytearray(data)
    for _ in range(generator.choice((1, 2, 8))):
        start = generator.randrange(len(data) + 1)
        end = min(len(data), start + generator.choice((1, 1, 4, 50)))
        what = generator.random()
        if what < 0.4:
            data[start:end] = generator.randbytes(end - start)
        elif what < 0.6:
            del data[start:end]
        elif what < 0.8:
            data[start:start] = data[start:end] * generator.choice((1, 3, 100))
        else:
            data = data[: max(start, 1)]
    return bytes(data)


def _places(content):
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(pairs):
        yield content, key
        yield from _places(value)


def generators(count):
    """So many random generators, each with its own seed."""
    return (random.Random(f"hostile {seed}") for seed in range(count))
