"""The safety gate: what passes, what is cut, what is refused, and what stops the robot."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
from robots.trials import limits
from robots.trials.drivers import DirectRobot

from understudy.errors import ConfigError, RobotError
from understudy.robots import safety
from understudy.robots.fake import FakeConfig
from understudy.robots.protocol import Mode, Reading
from understudy.robots.safety import Kind, SafetyConfig, SafetyGate

MODES = ("velocity", "position")
AT_ZERO = [0.0] * 6


def gate_for(mode="position", **options):
    options.setdefault("ramp_s", 0.0)
    gate = SafetyGate(FakeConfig(mode=mode).spec(), SafetyConfig(**options))
    gate.begin(AT_ZERO)
    return gate


def reading(position=AT_ZERO, time_s=0.0):
    return Reading(np.array(position, np.float32), np.array(position, np.float64), time_s)


def test_ten_minutes_are_enough_to_read_it():
    assert len(inspect.getsource(safety).splitlines()) <= 475


@pytest.mark.parametrize("mode", MODES)
def test_a_motion_within_the_limits_passes_untouched(mode):
    gate = gate_for(mode)
    position = 0.0
    for step in range(300):
        asked = 0.4 * (1 - math.cos(0.03 * step)) if mode == "position" else 0.4 * math.sin(0.03 * step)
        decision = gate.decide([asked] * 6, [position] * 6, 0.0)
        assert decision.values == pytest.approx([asked] * 6, abs=1e-12)
        assert not decision.kinds
        position = asked if mode == "position" else position + asked * 0.02


def test_a_far_target_is_reached_as_fast_as_the_limits_allow_and_not_overshot():
    gate = gate_for("position")
    path = [gate.decide([1.0] * 6, AT_ZERO, 0.0).values[0] for _ in range(100)]
    assert max(path) <= 1.0
    assert path[-1] == 1.0
    assert path.index(1.0) == pytest.approx((1.0 / 1.0 + 1.0 / 20.0) * 50, abs=4)  # s at full speed and for the ramps


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limit", ["low", "high", "velocity", "acceleration"])
def test_without_a_limit_nothing_moves(mode, limit):
    spec = FakeConfig(mode=mode).spec()
    unlimited = replace(spec, axes=(replace(spec.axes[0], **{limit: None}), *spec.axes[1:]))
    with pytest.raises(ConfigError, match=f"{limit}.*without limits nothing moves"):
        SafetyGate(unlimited, SafetyConfig())


@pytest.mark.parametrize("mode", MODES)
def test_s1_no_adversarial_command_gets_through(mode):
    seen = limits.adversary(25_000, 7, mode)
    assert seen["violations"] == {}
    assert seen["on_the_wire"] > 20_000, "a gate that sends nothing lets nothing through"


@pytest.mark.parametrize("mode", MODES)
def test_the_same_commands_without_a_gate_are_caught_by_the_monitor(mode):
    robot = DirectRobot(FakeConfig(mode=mode))
    random = np.random.default_rng(0)
    for _ in range(50):
        robot.clock.now_s += robot.spec.period_s
        robot.command(random.uniform(-3, 3, 6))
    assert {"velocity", "acceleration"} <= set(robot.violations())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", limits.STAGES)
@pytest.mark.parametrize("value", limits.WILD)
def test_s2_a_number_that_is_not_finite_stops_the_robot_within_a_period(mode, stage, value):
    for channel in range(6):
        seen = limits.not_finite(stage, channel, value, mode)
        assert seen["finite"], "it reached the wire"
        assert seen["stopped_after_periods"] <= 1


@pytest.mark.parametrize("mode", MODES)
def test_s5_no_jump_at_a_start_or_a_takeover(mode):
    seen = limits.starts(50, 3, mode)
    assert seen["violations"] == {}
    assert seen["takeovers"] > 100


@pytest.mark.parametrize("mode", MODES)
def test_s6_no_jump_at_a_seam(mode):
    assert limits.seams(500, 3, mode)["violations"] == {}


@pytest.mark.parametrize("mode", MODES)
def test_a_start_and_a_takeover_begin_slowly(mode):
    gate = gate_for(mode, ramp_s=0.5)
    asked = [2.0] * 6 if mode == "position" else [1.0] * 6
    before = 0.0
    for start in range(2):
        speeds = []
        for _ in range(50):
            value = gate.decide(asked, AT_ZERO, 0.0).values[0]
            speeds.append((value - before) / 0.02 if mode == "position" else value)
            before = value
        assert abs(speeds[5]) < 0.4
        assert max(map(abs, speeds)) == pytest.approx(1.0)
        assert Kind.RAMP in gate.counts
        gate.ramp()
        if start == 0 and mode == "position":
            asked = [-2.0] * 6


@pytest.mark.parametrize("age_s", [0.21, 5.0, -0.21])
def test_a_command_that_answers_an_old_or_future_observation_only_brakes(age_s):
    gate = gate_for("velocity")
    for _ in range(5):
        gate.decide([1.0] * 6, AT_ZERO, 0.0)
    decision = gate.decide([1.0] * 6, AT_ZERO, age_s)
    assert decision.kinds == (Kind.STALE_COMMAND,)
    assert decision.values[0] == pytest.approx(1.0 - 20.0 * 0.02)


def test_a_novel_observation_only_brakes():
    gate = gate_for("velocity", novelty_limit=1.0)
    assert gate.decide([0.3] * 6, AT_ZERO, 0.0, 0.99).values[0] == pytest.approx(0.3)
    assert gate.decide([0.3] * 6, AT_ZERO, 0.0, 1.01).kinds == (Kind.NOVELTY,)


def test_a_measurement_that_is_old_or_comes_out_of_order_is_not_believed():
    gate = gate_for()
    assert gate.admit(reading(time_s=10.0), 10.0) is None
    assert gate.admit(reading(time_s=9.99), 10.01) is Kind.STALE_OBSERVATION
    assert gate.admit(reading(time_s=10.0), 10.5) is Kind.STALE_OBSERVATION
    assert gate.admit(reading(time_s=3600.0), 10.5) is Kind.STALE_OBSERVATION
    assert gate.admit(reading(time_s=10.5), 10.5) is None


def follow(gate, mode, moving, speed):
    """Tells every axis to move, and lets the robot measure what `moving(step)` says."""
    for step in range(200):
        gate.admit(reading(moving(step), 0.02 * step), 0.02 * step)
        gate.decide([speed * 0.02 * step] * 6 if mode == "position" else [speed] * 6, moving(step), 0.0)


@pytest.mark.parametrize("mode", MODES)
def test_a_sensor_that_does_not_change_while_its_axis_is_told_to_move_stops_the_robot(mode):
    with pytest.raises(RobotError, match=r"joint_3.*sensor does not change"):
        follow(
            gate_for(mode, astray_s=10.0),
            mode,
            lambda step: [0.01 * step if axis != 2 else 0.0 for axis in range(6)],
            0.5,
        )


@pytest.mark.parametrize("mode", MODES)
def test_an_axis_that_does_not_go_where_it_is_told_stops_the_robot(mode):
    with pytest.raises(RobotError, match="from where its commands lead"):
        follow(gate_for(mode), mode, lambda step: [1e-4 * step] * 6, 0.9)


def test_a_robot_outside_of_its_range_does_not_begin():
    gate = SafetyGate(FakeConfig(mode="position").spec(), SafetyConfig())
    with pytest.raises(RobotError, match="bring it back by hand"):
        gate.begin([0.0, 0.0, 2.1, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("age_s", [0.02, 0.05, 0.1, 0.19])
def test_an_axis_stays_in_its_range_though_its_measurements_are_old(age_s):
    gate = SafetyGate(FakeConfig(mode="velocity", axes=1, reach=1.0).spec(), SafetyConfig(ramp_s=0.0))
    gate.begin([0.0])
    dt, late = 0.02, round(age_s / 0.02)
    random, path, ahead = np.random.default_rng(0), [0.0], 0
    for _ in range(3000):
        ahead = ahead - 1 if ahead else int(random.integers(0, 6)) * (random.random() < 0.2)
        old = path[max(0, len(path) - 1 - late)]
        (speed,) = gate.decide([-1.0 if ahead else 1.0], [old], 0.0, measured_age_s=late * dt).values
        path.append(path[-1] + speed * dt)
    assert max(map(abs, path)) <= 1.0 + 1e-9
    assert max(path) > 0.9, "it may use its range"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hz", [1.0, 3.0, 4.0])
def test_a_slow_robot_at_full_speed_is_not_astray(mode, hz):
    gate = SafetyGate(FakeConfig(mode=mode, reach=1000.0, control_hz=hz).spec(), SafetyConfig())
    gate.begin(AT_ZERO)
    position = 0.0
    for step in range(40):
        assert gate.admit(reading([position] * 6, step / hz), step / hz) is None
        value = gate.decide([1.0 if mode == "velocity" else 900.0] * 6, [position] * 6, 0.0).values[0]
        position = value if mode == "position" else position + value / hz


def test_an_axis_that_takes_positions_does_not_begin_further_outside_than_one_command_leads():
    gate = SafetyGate(FakeConfig(mode="position", control_hz=1000.0).spec(), SafetyConfig())
    with pytest.raises(RobotError, match="bring it back by hand"):
        gate.begin([2.0039, 0.0, 0.0, 0.0, 0.0, 0.0])
    gate.begin([2.00001, 0.0, 0.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("missing", [None, 3, 4, 5])
def test_a_command_that_is_missing_does_not_take_the_hand_out_of_its_workspace(missing):
    config, box = FakeConfig(axes=1, control_hz=5.0, reach=20.0), ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
    for start in np.linspace(0.0, 0.2, 11):
        gate = SafetyGate(config.spec(), SafetyConfig(ramp_s=0.0, workspace=box), lambda p: (p[0], 0.0, 0.0))
        gate.begin([start])
        position = start
        for step in range(12):
            (speed,) = gate.decide([1.0], [position], 0.0).values
            position += speed * 0.2 * (1.5 if step == missing else 1.0)
            if step == missing:
                gate.hold(Kind.LATE, [position])
        assert position <= 1.0 + 1e-9


def test_the_hand_stays_in_its_workspace():
    config = FakeConfig(mode="velocity", axes=2)
    forward = DirectRobotHand().forward
    box = ((-1.0, -0.05, -1.0), (1.0, 0.05, 1.0))
    gate = SafetyGate(config.spec(), SafetyConfig(ramp_s=0.0, workspace=box), forward)
    position = np.zeros(2)
    gate.begin(position)
    furthest = 0.0
    for step in range(400):
        sign = 1.0 if step < 200 else -1.0
        values = np.array(gate.decide([sign, sign], position.tolist(), 0.0).values)
        position = position + values * 0.02
        furthest = max(furthest, abs(forward(position)[1]))
        if step == 199:
            assert furthest > 0.03, "it may use its workspace"
    assert furthest <= 0.05 + 1e-9
    assert gate.counts[Kind.WORKSPACE] > 0
    assert forward(position)[1] < 0, "it could turn back"


class DirectRobotHand:
    def forward(self, position):
        x = y = angle = 0.0
        for joint in position:
            angle += joint
            x, y = x + 0.1 * math.cos(angle), y + 0.1 * math.sin(angle)
        return x, y, 0.0


def test_a_workspace_needs_kinematics():
    with pytest.raises(ConfigError, match="does not tell where its hand is"):
        SafetyGate(FakeConfig().spec(), SafetyConfig(workspace=((0, 0, 0), (1, 1, 1))))


@pytest.mark.parametrize(("mode", "step"), [("position", 0.005), ("velocity", 0.1)])
def test_a_step_limit_tighter_than_the_others_holds(mode, step):
    spec = FakeConfig(mode=mode).spec()
    spec = replace(spec, axes=tuple(replace(axis, step=step) for axis in spec.axes))
    gate = SafetyGate(spec, SafetyConfig(ramp_s=0.0))
    gate.begin(AT_ZERO)
    sent = [0.0] + [gate.decide([1.0] * 6, AT_ZERO, 0.0).values[0] for _ in range(20)]
    assert np.abs(np.diff(sent)).max() <= step + 1e-12
    assert gate.counts[Kind.STEP] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_s": math.nan}, "timeout_s is nan"),
        ({"stale_s": 0.0}, "stale_s is 0.0"),
        ({"workspace": ((0, 0, 0), (1, 1, 0))}, "each low below its high"),
    ],
)
def test_a_config_that_cannot_work_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SafetyConfig(**options)


def test_modes_are_spelt_as_in_the_protocol():
    assert {str(mode) for mode in Mode} == set(MODES)


BOX = ((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))
KINEMATICS = {
    "no numbers": (lambda p: (math.nan if p[0] > 0.3 else p[0], 0.0, 0.0), "gave .nan, 0.0, 0.0."),
    "an error": (lambda p: (math.sqrt(0.3 - p[0]) / 2, 0.0, 0.0), "raised ValueError: "),
    "too few": (lambda p: (p[0], 0.0) if p[0] > 0.3 else (p[0], 0.0, 0.0), "three finite numbers"),
}


@pytest.mark.parametrize("what", KINEMATICS)
@pytest.mark.parametrize("mode", MODES)
def test_kinematics_that_fail_stop_the_robot(mode, what):
    forward, message = KINEMATICS[what]
    gate = SafetyGate(FakeConfig(mode=mode, axes=1).spec(), SafetyConfig(ramp_s=0.0, workspace=BOX), forward)
    with pytest.raises(RobotError, match=message):
        gate.begin([0.4])
    gate.begin([0.0])
    position = 0.0
    for _ in range(100):
        decision = gate.decide([1.0], [position], 0.0)
        if decision.values is None:
            break
        position = decision.values[0] if mode == "position" else position + decision.values[0] * 0.02
    assert position < 0.3
    assert decision.kinds == (Kind.NOT_FINITE,)
    assert "forward()" in decision.reason


def test_a_hand_that_would_leave_its_workspace_goes_on_more_slowly():
    gate = SafetyGate(FakeConfig(axes=1).spec(), SafetyConfig(ramp_s=0.0, workspace=BOX), lambda p: (p[0], 0.0, 0.0))
    gate.begin([0.0])
    position, speeds = 0.0, []
    for _ in range(200):
        speeds.append(gate.decide([1.0], [position], 0.0).values[0])
        position += speeds[-1] * 0.02
    assert 0.48 < position <= 0.5
    assert any(0.1 < speed < 0.9 for speed in speeds[20:]), "not all at once"


@pytest.mark.parametrize("mode", MODES)
def test_a_limit_that_32_bits_have_rounded_is_no_intervention(mode):
    spec = FakeConfig(mode=mode, axes=1, reach=0.1, velocity=0.1).spec()
    gate = SafetyGate(spec, SafetyConfig(ramp_s=0.0))
    gate.begin([0.1 if mode == "position" else -0.1])
    for _ in range(5):
        gate.decide([float(np.float32(0.1))], [0.1 if mode == "position" else -0.1], 0.0)
    assert not gate.counts


def test_an_axis_that_grips_may_stay_where_what_it_holds_keeps_it():
    spec = FakeConfig(mode="position", axes=1).spec()
    gripping = replace(spec, axes=(replace(spec.axes[0], grips=True),))
    for held, stops in ((spec, True), (gripping, False)):
        gate = SafetyGate(held, SafetyConfig(ramp_s=0.0))
        gate.begin([1.0])
        try:
            for step in range(200):
                assert (
                    gate.admit(reading([1.0], 0.02 * step)._replace(observation=np.zeros(1, np.float32)), 0.02 * step)
                    is None
                )
                (value,) = gate.decide([-1.0], [1.0], 0.0).values
            assert not stops
            assert value == pytest.approx(-1.0), "it squeezes on"
            gate.begin([1.0])
        except RobotError:
            assert stops


@pytest.mark.parametrize(("below", "stops"), [(0.11, False), (0.13, True)])
def test_a_slow_arm_may_hang_a_little_below_where_it_is_sent(below, stops):
    spec = FakeConfig(mode="position", axes=1, velocity=0.02).spec()
    gate = SafetyGate(spec, SafetyConfig(ramp_s=0.0))
    gate.begin([0.0])

    def hang():
        for step in range(100):
            (value,) = gate.decide([1.0], [0.0], 0.0).values
            gate.admit(reading([value - below], 0.02 * step), 0.02 * step)

    if stops:
        with pytest.raises(RobotError, match="from where its commands lead"):
            hang()
    else:
        hang()


@pytest.mark.parametrize("timeout_s", [None, 1.0])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hz", [5.0, 10.0, 50.0])
def test_the_hand_does_not_pass_through_the_wall_of_its_workspace(mode, hz, timeout_s):
    """A link that swings from inside to inside, and is outside between: where it would come to rest is not enough."""
    spec = FakeConfig(mode=mode, axes=1, control_hz=hz).spec()
    box = ((-1.0, -1.0, -1.0), (0.99, 1.0, 1.0))
    safety = SafetyConfig(ramp_s=0.0, workspace=box, timeout_s=timeout_s)
    for start in np.linspace(-0.9, -0.3, 7):
        gate = SafetyGate(spec, safety, lambda p: (math.cos(p[0]), math.sin(p[0]), 0.0))
        gate.begin([start])
        position = start
        for _ in range(int(3 * hz)):
            (value,) = gate.decide([1.0], [position], 0.0).values
            before, position = position, value if mode == "position" else position + value / hz
            assert max(np.cos(np.linspace(before, position, 9))) <= 0.99 + 0.003
        assert gate.counts[Kind.WORKSPACE] > 0


def test_an_arm_that_hangs_below_where_it_is_sent_keeps_its_measured_hand_inside():
    spec = FakeConfig(mode="position", axes=1).spec()
    box = ((-1.0, -1.0, 0.0), (1.0, 1.0, 2.0))
    gate = SafetyGate(spec, SafetyConfig(ramp_s=0.0, workspace=box), lambda p: (0.0, 0.0, p[0]))
    gate.begin([1.0])
    measured = 1.0
    for _ in range(200):
        measured = gate.decide([-1.0], [measured], 0.0).values[0] - 0.1
    assert -1e-9 <= measured < 0.02
    for _ in range(200):
        measured = gate.decide([1.0], [measured], 0.0).values[0] - 0.1
    assert measured > 0.8, "it can turn back"


def test_a_hand_that_rests_at_the_wall_may_begin_and_only_moves_in():
    spec = FakeConfig(mode="position", axes=1).spec()
    box = ((-1.0, -1.0, 0.0), (1.0, 1.0, 2.0))
    for start, may in ((-0.004, True), (-0.006, False)):
        gate = SafetyGate(spec, SafetyConfig(ramp_s=0.0, workspace=box), lambda p: (0.0, 0.0, p[0]))
        if not may:
            with pytest.raises(RobotError, match="outside of its workspace"):
                gate.begin([start])
            continue
        gate.begin([start])
        assert [gate.decide([-1.0], [start], 0.0).values[0] for _ in range(20)] == [start] * 20
        for _ in range(50):
            (value,) = gate.decide([1.0], [start], 0.0).values
        assert value > 0.5


@pytest.mark.parametrize("mode", MODES)
def test_a_hand_of_three_links_stays_within_millimetres_of_its_workspace(mode):
    seen = limits.walls(20, 10_000, mode)
    assert seen["runs"] >= 5
    assert seen["worst_outside_m"] <= 0.005
