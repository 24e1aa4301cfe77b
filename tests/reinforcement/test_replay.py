import torch

from understudy.reinforcement.replay import Replay

GAMMA = 0.9


def filled(lengths, terminated):
    """Episodes whose rewards and inputs are numbers that say where they are from."""
    replay, kept = Replay(2, 1), []
    for number, (length, ended) in enumerate(zip(lengths, terminated, strict=True)):
        steps = torch.arange(length + 1, dtype=torch.float32)
        inputs = torch.stack([torch.full((length + 1,), float(number)), steps], 1)
        actions, rewards = 10.0 * number + steps[:length, None], 1 + number + 0.5 * steps[:length]
        replay.add(inputs, actions, rewards, terminated=ended)
        kept.append((inputs, actions, rewards, ended))
    return replay, kept


def test_what_is_drawn_is_what_followed():
    replay, kept = filled([7, 1, 4], [False, True, True])
    for n_step in (1, 3, 20):
        drawn = replay.draw(torch.Generator().manual_seed(0), 300, n_step, GAMMA)
        seen = set()
        for inputs, action, reward, discount, following in zip(*drawn, strict=True):
            number, step = int(inputs[0]), int(inputs[1])
            seen.add((number, step))
            rows, actions, rewards, ended = kept[number]
            stop = min(step + n_step, len(rewards))
            expected = sum(GAMMA ** (at - step) * float(rewards[at]) for at in range(step, stop))
            torch.testing.assert_close(float(reward), expected, rtol=1e-5, atol=0)
            over = ended and stop == len(rewards)
            torch.testing.assert_close(float(discount), 0.0 if over else GAMMA ** (stop - step), rtol=1e-5, atol=0)
            torch.testing.assert_close(following, rows[stop])
            torch.testing.assert_close(action, actions[step])
        assert seen == {(0, step) for step in range(7)} | {(1, 0)} | {(2, step) for step in range(4)}


def test_it_grows_and_forgets_nothing():
    replay, _ = filled([3000, 3000, 3000], [False, False, True])
    assert (len(replay), replay.rows) == (9000, 9003)
    torch.testing.assert_close(replay.tensors()["inputs"][6002], torch.tensor([2.0, 0.0]))


def test_rows_come_back_from_their_parts():
    whole, _ = filled([5, 3, 6], [False, True, False])
    parts = [whole.tensors(), {}]
    parts[0] = {name: column[:10].clone() for name, column in whole.tensors().items()}  # two episodes
    parts[1] = {name: column.clone() for name, column in whole.tensors(since=10).items()}
    again = Replay(2, 1)
    for part in parts:
        again.extend(part)
    assert (len(again), again.rows) == (len(whole), whole.rows)
    for one, two in zip(
        *(memory.draw(torch.Generator().manual_seed(1), 50, 3, GAMMA) for memory in (whole, again)), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
