"""Repairs: each secret a few times, everything measured after the last edit, a few places more where groups meet."""

import math
from dataclasses import dataclass, field

import pytest

from revs_tars_plugin.revs import demoter as module
from revs_tars_plugin.revs.demoter import Demoter
from revs_tars_plugin.revs.outcomes import EditedParts, TargetOutcome

RANK, SIZE = 300, 1000


@dataclass
class Target:
    """A token that stands somewhere; `context` is its number."""

    context: int
    token: int = 0

    def goal(self, rank, *, everywhere):
        return self.context, rank, everywhere


@dataclass
class Ranks:
    """What a model would say of each token: an edit of one moves some others, and some do not move at all.

    Attributes:
        at: Where each stands.
        stuck: Those that no edit moves.
        moved: What each edit of one does to others: where they stand after it.
        together: How many are solved together.
    """

    at: list
    stuck: tuple = ()
    moved: dict = field(default_factory=dict)
    together: int = 2
    passes: int = 1
    edits: list = field(default_factory=list)
    unmeasured: set = field(default_factory=set)

    def demote(self, goals, *, advance):
        self.edits.append(goals)
        self.unmeasured = set(range(len(self.at)))
        for number, rank, _ in goals:
            if number not in self.stuck:
                self.at[number] = max(self.at[number], rank)
            for other, place in (self.moved[number].pop(0) if self.moved.get(number) else {}).items():
                self.at[other] = place
        return [EditedParts(1)] * len(goals)

    def measure(self, _model, places):
        self.unmeasured -= {number for number, _ in places}
        return [(self.at[number], math.log(0.1)) for number, _ in places]

    def of(self, number):
        """What one was asked for in each edit that it took part in."""
        return [goal for goals in self.edits for goal in goals if goal[0] == number]


class Decoder:
    """As much of one as is looked at."""

    model, layers = None, [0]

    class lens:
        size = SIZE


def before(_model, targets, rank):
    made = {"request": 0, "position": 0, "token": 0, "asked_rank": rank, "rank_before": 0, "rank_after": 0}
    made |= {"probability_before": 1.0, "probability_after": 1.0, "layers": 0, "neurons": 0, "seconds": 0.0}
    return [TargetOutcome(**made) for _ in targets]


@pytest.fixture
def demoted(monkeypatch):
    """Demotes as many targets as there are ranks; gives where each was said to be."""

    def run(ranks):
        monkeypatch.setattr(module, "measure", ranks.measure)
        monkeypatch.setattr(module, "outcomes_before", before)
        targets = [Target(number) for number in range(len(ranks.at))]
        return [outcome.rank_after for outcome in Demoter(Decoder, targets, RANK, ranks).demote_all()]

    return run


def test_all_are_measured_after_the_last_edit_and_who_is_short_then_is_repaired(demoted):
    # The third one's edit moves the second one, whose repair moves the fourth, which had been where it belongs.
    ranks = Ranks([0] * 5, moved={2: [{1: 5}], 1: [{}, {3: 7}]})
    assert demoted(ranks) == ranks.at
    assert min(ranks.at) >= RANK
    assert [len(ranks.of(number)) for number in range(5)] == [2, 2, 2, 2, 1]
    assert not ranks.unmeasured


def test_one_that_does_not_move_is_tried_a_few_times_and_all_are_measured_then(demoted):
    ranks = Ranks([0] * 5, stuck=(4,))
    assert demoted(ranks) == ranks.at == [RANK] * 4 + [0]
    assert len(ranks.of(4)) == 1 + module._REPAIRS
    assert len(ranks.of(0)) == 1
    assert not ranks.unmeasured


def test_those_that_take_turns_for_ever_come_to_an_end(demoted):
    ranks = Ranks([0] * 60, moved={number: [{(number + 2) % 60: 0}] * 1000 for number in range(60)})
    assert demoted(ranks) == ranks.at
    assert min(ranks.at) < RANK
    assert len(ranks.edits) <= 30 * module._MOST_ROUNDS
    assert not ranks.unmeasured


def test_repairs_of_several_groups_ask_for_a_few_places_more(demoted):
    ranks = Ranks([0] * 5, moved={2: [{0: 200}]})
    demoted(ranks)
    # What was missing twice over, and a hundredth.
    assert ranks.of(0) == [(0, RANK, True), (0, RANK + 2 * 100 + RANK // 100, False)]
    alone = Ranks([0, 0], moved={1: [{0: 200}]})
    demoted(alone)
    assert alone.of(0) == [(0, RANK, True), (0, RANK + 2 * 100, False)]
