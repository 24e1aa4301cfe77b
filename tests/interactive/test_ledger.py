import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.episode import Episode
from understudy.interactive.ledger import Entry, entry_of, takeovers, total_of

STEP = st.tuples(st.booleans(), st.booleans())  # the expert drives, the step has a label
EPISODES = st.lists(st.tuples(st.lists(STEP, min_size=1, max_size=12), st.sampled_from([1, 0, -1])), max_size=5)


def episode_of(steps, success=-1):
    driver, labelled = np.array(steps).T
    return Episode(
        np.zeros((len(steps) + 1, 2)), np.zeros((len(steps), 1)), driver=driver, labelled=labelled, success=success
    )


def counted(episodes, hz):
    """The same figures, one step after the other."""
    names = ("episodes", "steps", "labels", "expert_steps", "interventions", "context_switches", "attended", "judged")
    total = dict.fromkeys(names, 0)
    seconds, successes = 0.0, 0
    for steps, success in episodes:
        total["episodes"] += 1
        total["judged"] += success >= 0
        successes += success == 1
        last = False
        for expert, labelled in steps:
            total["steps"] += 1
            total["labels"] += labelled
            total["expert_steps"] += expert
            total["attended"] += expert or labelled
            total["interventions"] += expert and not last
            total["context_switches"] += expert != last
            seconds += (1 / hz if hz else 0) if expert or labelled else 0
            last = expert
    return Entry(**total, expert_seconds=pytest.approx(seconds), successes=successes)


@settings(deadline=None, max_examples=200)
@given(EPISODES, st.sampled_from([0.0, 20.0]))
def test_an_entry_is_what_a_clerk_would_count(episodes, hz):
    assert entry_of([episode_of(*one) for one in episodes], hz) == counted(episodes, hz)


@settings(deadline=None, max_examples=50)
@given(EPISODES, EPISODES)
def test_the_entry_of_two_rounds_is_the_sum_of_theirs(first, second):
    first, second = ([episode_of(*one) for one in episodes] for episodes in (first, second))
    both, added = entry_of([*first, *second], 20.0), entry_of(first, 20.0) + entry_of(second, 20.0)
    assert added.expert_seconds == pytest.approx(both.expert_seconds)
    assert {**added.to_json(), "expert_seconds": 0} == {**both.to_json(), "expert_seconds": 0}


@pytest.mark.parametrize(
    ("drivers", "where"),
    [
        ([0, 0, 1, 1, 0, 1], [2, 5]),
        ([1, 1, 0], [0]),  # an expert at the first step took over from the policy
        ([1], [0]),
        ([0], []),
        ([1, 1, 1], [0]),
    ],
)
def test_a_takeover_is_a_step_of_the_expert_after_one_of_the_policy(drivers, where):
    assert np.flatnonzero(takeovers(episode_of([(driver, True) for driver in drivers]))).tolist() == where


def test_a_demonstration_is_one_takeover_and_no_way_back():
    entry = entry_of([episode_of([(True, True)] * 4)], 10.0)
    assert (entry.interventions, entry.context_switches, entry.expert_seconds) == (1, 1, 0.4)


def test_the_intervention_rate_is_takeovers_for_each_step_of_the_policy():
    entry = entry_of([episode_of([(bool(driver), False) for driver in (0, 0, 0, 1, 1, 0, 1, 0)])], 10.0)
    assert entry.intervention_rate == pytest.approx(2 / 5)
    assert entry_of([episode_of([(True, True)] * 4)], 10.0).intervention_rate == 1.0  # the policy drove no step


def test_help_counts_as_success_of_the_episodes_that_somebody_judged():
    entry = entry_of([episode_of([(True, True)], success) for success in (1, 0, -1, 1)], 10.0)
    assert entry.success_with_help == pytest.approx(2 / 3)
    assert "2 of 3 episodes succeeded with help, 1 are not judged" in str(entry)
    for nothing_known in (entry_of([], 10.0), entry_of([episode_of([(True, True)], -1)], 10.0)):
        assert nothing_known.success_with_help is None
        assert "nobody knows which episodes succeeded" in str(nothing_known)


def test_a_row_that_did_not_count_who_attended_is_read_all_the_same():
    row = entry_of([episode_of([(True, True)] * 3, 1)], 10.0).to_json()
    assert total_of([{key: value for key, value in row.items() if key not in ("attended", "judged")}]) == Entry(**row)


def test_an_entry_is_plain_json():
    entry = entry_of([episode_of([(True, True), (False, False)], 1)], 10.0)
    assert Entry(**json.loads(json.dumps(entry.to_json()))) == entry
