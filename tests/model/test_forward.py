"""Batches of token sequences."""

from revs_tars_plugin.model.forward import batches_by_length, maximal


def test_batches_hold_every_sequence_once_and_keep_their_size():
    sequences = [[0] * length for length in (5, 30, 1, 9, 9, 100, 3)]
    batches = batches_by_length(sequences, positions=40)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    for batch in batches:
        longest = max(len(sequences[index]) for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= 40
    assert len(batches) < 7


def test_sequences_that_others_begin_with_are_served_by_those():
    sequences = [(1, 2), (1, 2, 3), (2,), (1,), (1, 2), (1, 3), (2, 1, 1)]
    left, places = maximal(sequences)
    assert sorted(left) == [(1, 2, 3), (1, 3), (2, 1, 1)]
    assert all(left[place][: len(sequence)] == sequence for sequence, place in zip(sequences, places, strict=True))
