"""The ranks of an engine as pure machines over a simulated network and clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkops.programs.launch import group
from sparkops.programs.launch.group import (
    ANEW,
    CUT,
    ENDING,
    ENGINE,
    HANG,
    LEFT,
    LOST,
    PREPARING,
    RUNNING,
    STOP,
    WAITING,
    Group,
    Limits,
    opened,
    sealed,
)

LIMITS = Limits(silence=30, uptime=600, patience=600, longest=5400, cooldown=2700, restarts=3)
ROADS = ["fabric", "management"]
KEY = b"k" * 32


class Cluster:
    """Ranks that send each other messages once a second, and do at once what they have to do with their containers.

    `cut` holds (rank, road) pairs over which nothing goes; a rank in `dead` is no more.
    """

    def __init__(self, count: int = 3, limits: Limits = LIMITS, digests: dict[int, str] | None = None) -> None:
        self.now, self.limits, self.count, self.started = 1000.0, limits, count, 0
        self.digests, self.images = digests or {}, dict[int, str]()
        self.cut: set[tuple[int, str]] = set()
        self.dead: set[int] = set()
        self.slow: set[int] = set()
        self.packets: list[tuple[int, bytes]] = []
        self.ranks = [self.fresh(rank) for rank in range(count)]
        self.log: list[tuple[float, int, str, str]] = []

    def fresh(self, rank: int) -> Group:
        self.started += 1
        nodes = [f"spark-{number}" for number in range(self.count)]
        return Group(rank, nodes, ROADS, self.digests.get(rank, "d"), f"run-{self.started}", self.limits)

    def restart(self, rank: int) -> None:
        """The launcher of a rank ends without a word, and a new one is there; the head's has its notes."""
        former, self.ranks[rank] = self.ranks[rank], self.fresh(rank)
        self.ranks[rank].restarts = former.restarts

    def second(self) -> None:
        self.now += 1
        living = [each for each in self.ranks if each.rank not in self.dead]
        for each in living:
            before = each.phase
            if each.phase == PREPARING and each.rank not in self.slow:
                each.prepared(image=self.images.get(each.rank, "i"))
            each.tick(self.now)
            if each.phase != before:
                self.log.append((self.now, each.rank, each.phase, each.end.cause))
        for each in living:
            for peer in each.peers:
                for road in ROADS:
                    for fields in each.messages(peer, road, self.now):
                        packet = sealed(KEY, fields)
                        self.packets.append((peer, packet))
                        if not {(each.rank, road), (peer, road)} & self.cut:
                            self.deliver(peer, packet)
        for each in living:
            if each.phase == ENDING:
                each.ended()

    def deliver(self, rank: int, packet: bytes) -> None:
        fields = opened(KEY, packet)
        assert fields is not None
        if rank not in self.dead:
            self.ranks[rank].heard(fields, self.now)

    def seconds(self, count: int) -> None:
        for _ in range(count):
            self.second()

    def until(self, true: Callable[[], bool], most: int = 120) -> float:
        began = self.now
        while not true():
            assert self.now - began < most, [(each.phase, each.why) for each in self.ranks]
            self.second()
        return self.now - began

    def run(self) -> float:
        """Until all run the same epoch; the seconds that it took."""
        return self.until(lambda: self.running)

    @property
    def running(self) -> bool:
        return {each.phase for each in self.ranks} == {RUNNING} and len({each.epoch for each in self.ranks}) == 1

    def causes(self) -> set[str]:
        return {cause for _, _, phase, cause in self.log if phase == ENDING}


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_all_ranks_start_in_one_run_once_all_are_there(count: int) -> None:
    cluster = Cluster(count)
    cluster.dead = {*range(1, count)}
    cluster.seconds(500)
    assert cluster.ranks[0].phase == WAITING
    assert cluster.ranks[0].why.startswith("rank 1 (spark-1) is not there")
    cluster.dead = set()
    assert cluster.run() <= 6
    assert cluster.ranks[0].restarts == [], "waiting costs nothing"


def test_ranks_start_in_any_order_and_wait_for_a_slow_one() -> None:
    cluster = Cluster()
    cluster.dead, cluster.slow = {0, 1}, {2}
    cluster.seconds(300)
    cluster.dead = set()
    cluster.seconds(300)
    assert [each.phase for each in cluster.ranks] == [WAITING, WAITING, PREPARING]
    assert cluster.ranks[0].why == "rank 2 (spark-2) is preparing"
    assert cluster.ranks[1].why == cluster.ranks[0].why, "each rank says what all wait for"
    cluster.slow = set()
    assert cluster.run() <= 4


def test_ranks_of_another_declaration_do_not_start_together() -> None:
    cluster = Cluster(digests={1: "other"})
    cluster.seconds(100)
    assert not any(each.phase == RUNNING for each in cluster.ranks)
    assert cluster.ranks[0].why == "rank 1 (spark-1) is there with another declaration"
    assert cluster.ranks[2].why == cluster.ranks[0].why


def test_ranks_of_another_image_wait_until_all_have_the_same() -> None:
    cluster = Cluster()
    cluster.images = {2: "other"}
    cluster.seconds(100)
    assert not any(each.phase == RUNNING for each in cluster.ranks)
    assert cluster.ranks[0].why == "rank 2 (spark-2) is there with another image"
    cluster.ranks[2].prepared(image="i")
    assert cluster.run() <= 4


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("missed", range(4))
def test_why_a_run_ended_is_told_also_where_messages_are_lost(rank: int, missed: int) -> None:
    cluster = Cluster()
    cluster.run()
    cluster.ranks[rank].failed("the container ended with 137", cluster.now)
    cluster.cut = {(rank, road) for road in ROADS}
    cluster.seconds(missed)
    cluster.cut = set()
    cluster.until(lambda: all(each.phase != RUNNING for each in cluster.ranks), most=4)
    assert {each.end.why for each in cluster.ranks} == {f"rank {rank} (spark-{rank}): the container ended with 137"}


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_node_ends_all_within_the_heartbeats_limit_and_all_start_together_when_it_is_back(lost: int) -> None:
    cluster = Cluster()
    cluster.run()
    cluster.dead = {lost}
    others = [each for each in cluster.ranks if each.rank != lost]
    assert cluster.until(lambda: all(each.phase != RUNNING for each in others)) <= LIMITS.silence + 4
    assert cluster.causes() == {LOST}
    assert f"rank {lost} (spark-{lost}) is lost: silent over fabric and management for 30 s" in others[0].end.why
    cluster.seconds(200)
    assert all(each.phase in (WAITING, PREPARING) for each in others)
    cluster.restart(lost)
    cluster.dead = set()
    assert cluster.run() <= 8


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_fabric_that_is_cut_is_told_from_a_lost_node(rank: int) -> None:
    cluster = Cluster()
    cluster.run()
    cluster.cut = {(rank, "fabric")}
    cluster.until(lambda: all(each.phase != RUNNING for each in cluster.ranks))
    assert cluster.causes() == {CUT}
    cluster.seconds(60)
    assert not cluster.running, "without the fabric nothing is started"
    waiting = cluster.ranks[0 if rank else 1]
    assert f"rank {rank} (spark-{rank}) is there, but not over fabric" in waiting.why
    cluster.cut = set()
    assert cluster.run() <= 8


def test_without_management_a_running_engine_is_left_alone_and_none_is_started() -> None:
    cluster = Cluster()
    cluster.run()
    epoch = cluster.ranks[0].epoch
    cluster.cut = {(1, "management")}
    cluster.seconds(300)
    assert cluster.running and cluster.ranks[0].epoch == epoch
    cluster.ranks[2].failed("the container ended with 1", cluster.now)
    cluster.seconds(60)
    assert "not over management" in cluster.ranks[0].why


def test_a_short_silence_ends_nothing() -> None:
    cluster = Cluster()
    cluster.run()
    epoch = cluster.ranks[0].epoch
    for road in ROADS:
        cluster.cut.add((1, road))
    cluster.seconds(25)
    cluster.cut = set()
    cluster.seconds(60)
    assert cluster.running and cluster.ranks[0].epoch == epoch


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_engine_that_ends_ends_all_at_once(rank: int) -> None:
    cluster = Cluster()
    cluster.run()
    epoch = cluster.ranks[0].epoch
    cluster.ranks[rank].failed("the container ended with 137", cluster.now)
    cluster.until(lambda: all(each.phase != RUNNING for each in cluster.ranks if each.rank != rank), most=3)
    assert cluster.run() <= 6
    assert cluster.ranks[0].epoch != epoch
    assert [cause for _, cause in cluster.ranks[0].restarts] == [ENGINE]
    assert f"rank {rank} (spark-{rank}): the container ended with 137" in cluster.ranks[0].end.why


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_launcher_that_was_started_anew_ends_the_run_of_the_others(rank: int) -> None:
    cluster = Cluster()
    cluster.run()
    cluster.restart(rank)
    cluster.until(lambda: ENDING in {phase for _, _, phase, _ in cluster.log}, most=6)
    assert cluster.causes() == {ANEW}
    assert cluster.run() <= 8


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_stop_that_was_asked_for_says_so_and_costs_nothing(rank: int) -> None:
    cluster = Cluster()
    cluster.run()
    cluster.ranks[rank].leave(STOP, "it was asked to stop")
    others = [each for each in cluster.ranks if each.rank != rank]
    cluster.until(lambda: all(each.phase in (PREPARING, WAITING) for each in others), most=4)
    assert cluster.causes() == {STOP}
    cluster.seconds(10)
    assert others[0].why.endswith("it was asked to stop")
    assert cluster.ranks[rank].phase == LEFT
    cluster.restart(rank)
    assert cluster.run() <= 8
    assert cluster.ranks[0].restarts == []


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_that_left_is_told_so_however_long_that_is_ago(rank: int) -> None:
    cluster = Cluster()
    cluster.run()
    cluster.ranks[rank].leave(STOP, "it was asked to stop")
    cluster.second()
    cluster.dead.add(rank)
    cluster.slow.update({0, 1, 2})
    cluster.seconds(3 * LIMITS.silence)
    cluster.slow.clear()
    cluster.seconds(5)
    told = f"rank {rank} (spark-{rank}) has left: it was asked to stop"
    assert [each.why for each in cluster.ranks if each.rank != rank] == [told, told]
    cluster.dead.clear()
    cluster.restart(rank)
    assert cluster.run() <= 8


def test_a_rank_that_was_started_again_and_ended_at_once_is_not_said_to_be_stopped() -> None:
    """Its image is gone, say: it ends before the head has its reason, and the reason of the one before is not it."""
    cluster = Cluster()
    cluster.run()
    cluster.ranks[1].leave(STOP, "it was asked to stop")
    cluster.seconds(5)
    cluster.restart(1)
    cluster.dead.add(1)
    cluster.ranks[0].heard(cluster.ranks[1].messages(0, ROADS[0], cluster.now)[0], cluster.now)
    cluster.seconds(5)
    told = "rank 1 (spark-1) was started again and has not joined; the status of its unit says why"
    assert cluster.ranks[0].why == told
    cluster.dead.clear()
    cluster.restart(1)
    assert cluster.run() <= 8


def test_restarts_that_nobody_asked_for_have_a_budget() -> None:
    cluster = Cluster()
    for _ in range(LIMITS.restarts + 1):
        cluster.run()
        cluster.ranks[1].failed("the container ended with 1", cluster.now)
        cluster.seconds(5)
    cluster.seconds(100)
    assert not cluster.running
    assert "3 restarts since this node was booted are enough" in cluster.ranks[0].spent
    assert "rank 1 (spark-1): the container ended with 1" in cluster.ranks[0].spent


def hanging(limits: Limits = LIMITS, still: float | None = 700.0) -> Cluster:
    """One that served for an hour, and whose head then got no answer for eleven minutes."""
    cluster = Cluster(limits=limits)
    cluster.run()
    cluster.ranks[0].serving(cluster.now - 3600)
    cluster.ranks[0].alive = cluster.now - 660
    for each in cluster.ranks:
        each.looked(still, "S3")
    cluster.ranks[0].asked(alive=False, failures=2, now=cluster.now)
    return cluster


def test_a_hang_ends_all_ranks_and_names_what_each_one_did() -> None:
    cluster = hanging()
    cluster.ranks[2].looked(700.0, "T3")
    cluster.until(lambda: cluster.causes() == {HANG}, most=4)
    why = cluster.ranks[0].end.why
    assert "2 questions without an answer" in why
    assert "rank 1 (spark-1) still for 700 s, processes S3; rank 2 (spark-2) still for 700 s, processes T3" in why
    cluster.seconds(3)
    assert [each.end.why for each in cluster.ranks] == [why] * 3, "all ranks keep their stacks for the same reason"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cluster: cluster.ranks[0].asked(alive=False, failures=1, now=cluster.now),
        lambda cluster: cluster.ranks[0].asked(alive=True, failures=0, now=cluster.now),
        lambda cluster: cluster.ranks[0].serving(cluster.now - 500) or cluster.ranks[0].asked(False, 9, cluster.now),
        lambda cluster: cluster.ranks[2].looked(10.0, "R1"),
        lambda cluster: cluster.ranks[2].looked(None, ""),
    ],
    ids=["one failure", "alive", "not up for long", "one rank works", "one rank can't be seen"],
)
def test_no_hang_without_all_of_its_evidence(spoil: Any) -> None:
    cluster = hanging()
    spoil(cluster)
    cluster.seconds(20)
    assert cluster.running


def test_work_that_is_seen_may_take_long_but_not_for_ever() -> None:
    cluster = hanging()
    cluster.ranks[2].looked(10.0, "R1")
    cluster.seconds(60 * 60)
    assert cluster.running
    assert cluster.until(lambda: HANG in cluster.causes(), most=2000) > 600


def test_a_rank_that_is_silent_is_lost_and_not_hung() -> None:
    cluster = hanging(still=None)
    cluster.dead = {1}
    cluster.seconds(2)
    for each in cluster.ranks:
        each.looked(700.0, "S3")
    cluster.seconds(40)
    assert cluster.causes() == {LOST}


def test_a_second_hang_waits_for_the_cooldown() -> None:
    cluster = hanging()
    cluster.until(lambda: HANG in cluster.causes(), most=4)
    first = cluster.now
    assert cluster.run() <= 8
    cluster.ranks[0].serving(cluster.now - 3600)
    cluster.ranks[0].alive = cluster.now - 660
    for each in cluster.ranks:
        each.looked(700.0, "S3")
    cluster.ranks[0].asked(alive=False, failures=2, now=cluster.now)
    cluster.seconds(20)
    assert "it hung again within 2700 s" in cluster.ranks[0].why
    cluster.until(lambda: cluster.running, most=3000)
    assert cluster.now - first >= LIMITS.cooldown


def test_a_message_of_another_key_or_that_was_changed_is_none() -> None:
    packet = sealed(KEY, {"rank": 1})
    assert opened(KEY, packet) == {"rank": 1}
    assert opened(b"other" * 8, packet) is None
    assert opened(KEY, packet[:-1] + b"]") is None
    assert opened(KEY, b"") is None


@given(st.binary(max_size=200))
def test_nothing_but_the_key_makes_a_message(packet: bytes) -> None:
    assert opened(KEY, packet) is None


def test_replayed_messages_of_now_and_of_earlier_runs_change_nothing() -> None:
    cluster = Cluster()
    cluster.run()
    cluster.ranks[1].leave(STOP, "it was asked to stop")
    cluster.seconds(3)
    cluster.restart(1)
    cluster.run()
    epoch = cluster.ranks[0].epoch
    kept = list(cluster.packets)
    for _ in range(40):
        for rank, packet in kept:
            cluster.deliver(rank, packet)
        cluster.second()
    assert cluster.running and cluster.ranks[0].epoch == epoch


def test_replayed_messages_are_no_sign_of_life() -> None:
    cluster = Cluster()
    cluster.run()
    cluster.dead = {1}
    kept = [packet for rank, packet in cluster.packets if rank == 0]
    for _ in range(40):
        for packet in kept:
            cluster.deliver(0, packet)
        cluster.second()
    assert cluster.causes() == {LOST}


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["die", "revive", "restart", "cut", "heal", "fail", "stop", "wait"]),
        st.integers(0, 2),
        st.sampled_from(ROADS),
        st.integers(1, 50),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(EVENTS)
def test_whatever_happens_ranks_run_one_epoch_and_start_again_once_all_is_well(events: Any) -> None:
    """Two ranks are never in different runs for longer than the limit, and what is healed runs again."""
    cluster = Cluster(limits=LIMITS._replace(restarts=1000))
    apart = 0
    for event, rank, road, seconds in events:
        if event == "die":
            cluster.dead.add(rank)
        elif event == "revive" and rank in cluster.dead:
            cluster.restart(rank)
            cluster.dead.discard(rank)
        elif event == "restart" and rank not in cluster.dead:
            cluster.restart(rank)
        elif event == "cut":
            cluster.cut.add((rank, road))
        elif event == "heal":
            cluster.cut.clear()
        elif event == "fail" and rank not in cluster.dead:
            cluster.ranks[rank].failed("the container ended with 1", cluster.now)
        elif event == "stop" and rank not in cluster.dead:
            cluster.ranks[rank].leave(STOP, "it was asked to stop")
        for _ in range(seconds):
            cluster.second()
            running = [each for each in cluster.ranks if each.phase == RUNNING and each.rank not in cluster.dead]
            alone = len({each.epoch for each in running}) > 1 or 0 < len(running) < 3
            apart = apart + 1 if alone else 0
            assert apart <= 2 * LIMITS.silence + 5
    for each in list(cluster.ranks):
        if each.phase == LEFT or each.rank in cluster.dead:
            cluster.restart(each.rank)
    cluster.dead, cluster.cut = set(), set()
    cluster.until(lambda: cluster.running, most=2 * int(LIMITS.silence) + 20)


def test_a_message_fits_into_one_packet() -> None:
    cluster = Cluster()
    cluster.ranks[0].leave(ENGINE, "x" * 5000)
    (fields,) = cluster.ranks[0].messages(1, "fabric", 0.0)
    assert len(sealed(KEY, fields)) < 1400
    assert json.loads(json.dumps(fields)) == fields


def test_numbers_rise() -> None:
    cluster = Cluster()
    cluster.seconds(3)
    numbers = [
        fields["number"] for _, packet in cluster.packets if (fields := opened(KEY, packet)) and fields["rank"] == 1
    ]
    assert all(before < after for before, after in pairwise(numbers))
    assert group.DIGEST == 32
