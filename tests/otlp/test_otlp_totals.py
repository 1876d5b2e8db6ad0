"""Many instances become one set of totals: restarts, silences, late points, other edges, caps."""

from __future__ import annotations

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otlp_requests import BOUNDS, Sink, counter, gauge, histogram, request

from anvil_monitor.exporter.instrument import histogram_edges
from anvil_monitor.exporter.otlp import Limits
from anvil_monitor.targets.load import parse

CONFIGURATION = '[[service]]\nname = "api"\nport = 1\n'


def test_a_cumulative_counter_is_summed_over_instances() -> None:
    """Each instance's value, whatever order its points come in."""
    sink = Sink()
    for instance, value, time in (("a", 5, 10), ("b", 7, 10), ("a", 9, 20), ("a", 8, 15)):
        sink.send(request(counter("jobs", value, time), instance=instance))
    assert sink.series() == {"jobs_total{service=api}": 16}
    assert sink.value("anvil_monitor_otlp_points_total", result="late") == 1


def test_a_restart_is_added_to_what_was() -> None:
    """A later start time and a fallen value are restarts; what was counted before stays."""
    sink = Sink()
    sink.send(request(counter("jobs", 5, 10)))
    sink.send(request(counter("jobs", 6, 30, start=20)), 20)  # a later start: 6 more, although 6 > 5
    sink.send(request(counter("jobs", 2, 40, start=20)), 10)  # fallen
    assert sink.series() == {"jobs_total{service=api}": 13}
    sink.send(request(counter("jobs", 100, 50, start=0)), 10)  # the life before the restart: too late
    assert sink.series() == {"jobs_total{service=api}": 13}


def test_a_new_instance_id_is_a_new_process() -> None:
    """Node's id is new at each start: the totals go on, the old process's level goes when it has been silent."""
    sink = Sink()
    sink.send(request(counter("jobs", 5, 10), gauge("queue", 3)))
    sink.send(request(counter("jobs", 1, 20, start=15), gauge("queue", 4), instance="b"), 10)
    assert sink.series() == {"jobs_total{service=api}": 6, "queue{service=api}": 4}
    sink.send(request(counter("jobs", 2, 80, start=15), gauge("queue", 1, 80), instance="b"), 61)
    assert sink.series() == {"jobs_total{service=api}": 7, "queue{service=api}": 1}


def test_silence_takes_levels_away_and_nothing_else_and_a_return_counts_nothing_twice() -> None:
    """An instance that was cut off for ten minutes comes back with the same id and a higher value."""
    sink = Sink()
    for time in (10, 20, 30):
        sink.send(request(counter("jobs", time, time), gauge("queue", 3, time)), 10)
    sink.clock.now += 59
    assert sink.series()["queue{service=api}"] == 3
    sink.clock.now += 2
    assert sink.series() == {"jobs_total{service=api}": 30}
    sink.send(request(counter("jobs", 45, 630), gauge("queue", 2, 630)), 540)
    assert sink.series() == {"jobs_total{service=api}": 45, "queue{service=api}": 2}


def test_a_slow_sender_is_given_three_of_its_intervals() -> None:
    """With a report every two minutes, levels last for six."""
    sink = Sink()
    for time in range(0, 600, 120):
        sink.send(request(gauge("queue", 3, time)), 120)
    sink.clock.now += 350
    assert sink.series() == {"queue{service=api}": 3}
    sink.clock.now += 20
    assert sink.series() == {}


def test_a_forgotten_instance_that_comes_back_counts_from_there_on() -> None:
    """After an hour nothing is known of it: what it had counted is in the totals, so only what is new is added."""
    sink = Sink()
    sink.send(request(counter("jobs", 30, 30)))
    sink.clock.now += 4000
    sink.totals.collect()
    sink.send(request(counter("jobs", 50, 4030)))
    assert sink.series() == {"jobs_total{service=api}": 30}
    sink.send(request(counter("jobs", 52, 4040)), 10)
    assert sink.series() == {"jobs_total{service=api}": 32}


def test_totals_do_not_leap_when_the_receiver_restarts() -> None:
    """Instances older than the receiver are counted from their first report on: the predecessor counted the rest.

    Otherwise each would add all it has ever counted, one after the other, and every rate would leap.
    """
    sink = Sink()
    sink.send(request(counter("jobs", 5000, 7200), instance="a"))
    sink.send(request(counter("jobs", 9000, 7205), instance="b"), 5)
    assert sink.series() == {"jobs_total{service=api}": 0}
    sink.send(request(counter("jobs", 5003, 7210), instance="a"), 5)
    assert sink.series() == {"jobs_total{service=api}": 3}
    # A label set that an old instance sends for the first time, a minute later, is new and counted whole.
    sink.send(request(counter("jobs", 2, 7260, kind="late"), instance="a"), 50)
    assert sink.series() == {"jobs_total{service=api}": 3, "jobs_total{kind=late,service=api}": 2}


def test_without_a_start_time_a_series_counts_from_its_first_point() -> None:
    """Unknown is unknown: nothing is made up. A fall is still a restart."""
    sink = Sink()
    for value, time in ((5, 10), (8, 20), (2, 30)):
        sink.send(request(counter("jobs", value, time, start=-1)), 10)
    assert sink.series() == {"jobs_total{service=api}": 5}


def test_delta_is_added_up_and_a_repeated_request_is_not() -> None:
    """Delta points of counters, histograms and levels; a sender that got no answer sends again."""
    sink = Sink()
    for time in (10, 20):
        made = request(
            counter("jobs", 3, time, start=time - 10, delta=True),
            counter("queue", 2, time, start=time - 10, delta=True, monotonic=False),
            histogram([0.3, 0.02], time, name="wait", start=time - 10, bounds=[0.1], delta=True),
        )
        sink.send(made, 10)
        sink.send(made)
    assert sink.series() == {
        "jobs_total{service=api}": 6,
        "queue{service=api}": 4,
        "wait_seconds_bucket{le=0.1,service=api}": 2,
        "wait_seconds_bucket{le=+Inf,service=api}": 4,
        "wait_seconds_sum{service=api}": pytest.approx(0.64),
        "wait_seconds_count{service=api}": 4,
    }


def test_sums_that_may_fall_add_up_and_gauges_give_the_greatest() -> None:
    """OTel's up-down counters are additive; a percentile or a share of two instances has no sum."""
    sink = Sink()
    for instance, value in (("a", 3), ("b", 5)):
        sink.send(
            request(counter("open", value, monotonic=False), gauge("busy", value / 10, unit="1"), instance=instance)
        )
    assert sink.series() == {"open{service=api}": 8, "busy_ratio{service=api}": 0.5}


def test_a_level_that_is_no_longer_measured_goes_at_once() -> None:
    """The flag of a point without a value."""
    sink = Sink()
    sink.send(request(gauge("queue", 3)))
    made = request(gauge("queue", 0, 20))
    made.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].flags = 1
    sink.send(made, 10)
    assert sink.series() == {}


def test_known_metrics_keep_the_contracts_labels() -> None:
    """What a server of ours is not labelled with is dropped, and a request without a route has the one value for it."""
    sink = Sink()
    common = {"http__request__method": "GET", "url__scheme": "http", "network__protocol__version": "1.1"}
    sink.send(
        request(
            histogram([0.01], **common, http__route="/users/:id", http__response__status_code=200),
            histogram([0.01] * 2, **common, http__response__status_code=404),
            histogram(
                [0.01] * 3,
                **{**common, "url__scheme": "https"},
                http__route="/users/:id",
                http__response__status_code=200,
            ),
        )
    )
    counts = {key: value for key, value in sink.series().items() if "_count" in key}
    name = "http_server_request_duration_seconds_count"
    assert counts == {
        f"{name}{{http_request_method=GET,http_response_status_code=200,http_route=/users/:id,service=api}}": 4,
        f"{name}{{http_request_method=GET,http_response_status_code=404,http_route=(unmatched),service=api}}": 2,
    }


def test_what_nodes_host_metrics_send_lands_in_the_process_metrics() -> None:
    """Memory without a unit, CPU time by mode, of two processes: summed; the host's is left out."""
    sink = Sink()
    for instance, memory in (("a", 200e6), ("b", 300e6)):
        rejected = sink.send(
            request(
                gauge("process.memory.usage", memory),
                counter("process.cpu.time", 3, unit="s", cpu__mode="user"),
                counter("process.cpu.time", 1, unit="s", cpu__mode="system"),
                gauge("system.memory.usage", 8e9, unit="By"),
                instance=instance,
            )
        )
        assert rejected == {}
    assert sink.series() == {
        "process_memory_usage_bytes{service=api}": 500e6,
        "process_memory_usage_bytes_max{service=api}": 300e6,
        "process_cpu_time_seconds_total{service=api}": 8,
    }


def test_two_scopes_with_one_metric_are_added_not_taken_for_resets() -> None:
    """Two libraries of one process that both count the same."""
    sink = Sink()
    for time, first, second in ((10, 100, 1), (20, 101, 2)):
        sink.send(request(counter("jobs", first, time), scope="one"))
        sink.send(request(counter("jobs", second, time), scope="two"), 10)
    assert sink.series() == {"jobs_total{service=api}": 103}


def _api(limit: str = "200 ms") -> dict[str, object]:
    configuration = parse(CONFIGURATION)
    return {"edges": lambda service: histogram_edges(configuration, service), "targets": configuration.targets}


def test_no_edge_is_made_up_at_the_target_and_a_metric_says_so() -> None:
    """Node's own bounds have none at 0.2: a rule that looks for the edge finds that its value is an estimate."""
    sink = Sink(**_api())
    sink.send(request(histogram([0.05] * 10 + [0.15] * 30)))
    name = "http_server_request_duration_seconds_bucket"
    assert sink.value(name, le="0.1") == 10
    assert sink.value(name, le="0.2") is None
    assert sink.value(name, le="0.25") == 40
    missing = "anvil_monitor_histogram_edge_missing"
    assert sink.value(missing, service="api", metric="http_server_request_duration_seconds", limit="0.2") == 1


def test_with_the_edge_it_is_exact() -> None:
    """A view that adds the edge: no estimate. One instance without it among others: an estimate again."""
    sink = Sink(**_api())
    bounds = tuple(sorted({0.2, *BOUNDS}))
    sink.send(request(histogram([0.05] * 10 + [0.15] * 30, bounds=bounds)))
    name, missing = "http_server_request_duration_seconds_bucket", "anvil_monitor_histogram_edge_missing"
    assert sink.value(name, le="0.2") == 40
    assert sink.value(missing, service="api") == 0
    sink.send(request(histogram([0.15] * 3), instance="old"))
    assert sink.value(missing, service="api") == 1
    assert sink.value(name, le="0.2") is None
    sink.clock.now += 30
    sink.send(request(histogram([0.05] * 10 + [0.15] * 30, 40, bounds=bounds)))
    sink.clock.now += 50
    assert sink.value(missing, service="api") == 0  # the old instance has gone; what it counted stays
    assert sink.value(name, le="0.2") == pytest.approx(42)  # two of its three, as if they lay evenly
    sink.clock.now += 300
    assert sink.value(missing, service="api") is None  # nobody sends
    assert sink.value(name, le="0.25") == 43


def test_metrics_of_the_users_own_keep_all_labels_and_their_first_bounds() -> None:
    """Another instance with other bounds is put into the first one's."""
    sink = Sink()
    sink.send(request(histogram([1, 3], name="cart", unit="{item}", bounds=[2, 4], plan__name="free")))
    sink.send(request(histogram([1, 3], name="cart", unit="{item}", bounds=[4], plan__name="free"), instance="b"))
    assert {key: value for key, value in sink.series().items() if "bucket" in key} == {
        "cart_bucket{le=2,plan_name=free,service=api}": 1 + 2 * 2 / 4,
        "cart_bucket{le=4,plan_name=free,service=api}": 4,
        "cart_bucket{le=+Inf,plan_name=free,service=api}": 4,
    }


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (gauge("x", float("nan")), "finite"),
        (counter("x", -1), "never negative"),
        (counter("target:value", 1), "recording rule"),
        (gauge("probe_success", 0), "by the monitor itself"),
        (gauge("http.server.request.duration", 1, unit="s"), "is a histogram, not a gauge"),
        (gauge("@@", 1), "no letter or digit"),
        (gauge("x" * 300, 1), "1 to 255 characters"),
        (gauge("x", 1, **{"y" * 300: "z"}), "name has at most 256 characters"),
        (gauge("x", 1, **{f"a{i}": "z" for i in range(65)}), "at most 64 attributes"),
        (gauge("x", 1, a="z" * 20_000), "at most 16384 bytes"),
        (histogram([1], bounds=[2, 1]), "ascending"),
        (histogram([1], bounds=list(range(300))), "at most 256"),
    ],
)
def test_a_point_that_cannot_be_taken_is_said_and_the_others_are_taken(made: Metric, why: str) -> None:
    """The partial success of OTLP: how many, and why."""
    sink = Sink()
    rejected = sink.send(request(made, counter("good", 1)))
    assert list(rejected.values()) == [1]
    assert why in next(iter(rejected))
    assert sink.series() == {"good_total{service=api}": 1}


def test_summaries_are_refused_and_named() -> None:
    """Quantiles of two instances have no sum."""
    made = request(counter("good", 1))
    metric = made.resource_metrics[0].scope_metrics[0].metrics.add(name="old")
    metric.summary.data_points.add(count=1)
    metric.summary.data_points.add(count=2)
    assert list(Sink().send(made).items()) == [
        ("summaries are not taken: their quantiles cannot be added up; send histograms", 2)
    ]


def test_one_name_has_one_kind() -> None:
    """Neither as another kind nor as a part of a histogram: the exposition would be broken for every reader."""
    sink = Sink()
    sink.send(request(histogram([1], name="wait", unit="", bounds=[1]), counter("n", 1)))
    rejected = sink.send(request(gauge("wait", 1), gauge("wait.count", 1), gauge("n_total", 1)))
    assert len(rejected) == 3


def test_too_many_series_share_one_and_it_is_seen() -> None:
    """Nothing is lost, the labels are; the metric's name says where, a self-metric how often."""
    sink = Sink(Limits(series=3))
    for i in range(10):
        sink.send(request(counter("jobs", 2, user=str(i))))
    sink.send(request(histogram([0.1])))
    assert sink.value("jobs_total", otel_metric_overflow="true") == 14
    assert sink.value("http_server_request_duration_seconds_count", http_route="(overflow)") == 1
    assert sink.value("anvil_monitor_otlp_points_total", result="overflow") == 8
    assert sink.value("anvil_monitor_otlp_series", service="api") == 3
    sink.send(request(counter("jobs", 5, 20, user="9")), 10)
    assert sink.value("jobs_total", otel_metric_overflow="true") == 17


def test_services_and_instances_are_bounded() -> None:
    """Services beyond the cap share one; an instance is taken once another has been silent."""
    sink = Sink(Limits(services=2, instances=4))
    for i in range(6):
        rejected = sink.send(request(counter("jobs", 1), service=f"s{i}", instance=str(i)))
        assert bool(rejected) == (i > 3)
    assert sink.series() == {
        "jobs_total{service=s0}": 1,
        "jobs_total{service=s1}": 1,
        "jobs_total{service=(overflow)}": 2,
    }
    sink.clock.now += 61
    assert sink.send(request(counter("jobs", 1, 100, start=99), service="s0", instance="new")) == {}
    assert sink.series()["jobs_total{service=s0}"] == 2


def test_an_instances_series_are_bounded() -> None:
    """Beyond them points are rejected, and its sender told."""
    sink = Sink(Limits(instance_series=2))
    rejected = [sink.send(request(counter("jobs", 1, user=str(i)))) for i in range(4)]
    assert [sum(each.values()) for each in rejected] == [0, 0, 1, 1]


def test_long_values_are_cut_and_stay_two() -> None:
    """A label is short; two that begin alike are not one."""
    sink = Sink()
    sink.send(request(counter("jobs", 1, url="x" * 300 + "a"), counter("jobs", 2, url="x" * 300 + "b")))
    assert sorted(sink.series().values()) == [1, 2]
    assert all(len(key) < 300 for key in sink.series())


def test_an_instance_without_an_id_is_its_host_and_process() -> None:
    """Two processes of one host are two instances, not resets of each other."""
    sink = Sink()
    for time, values in ((10, (100, 3)), (20, (101, 4))):
        for pid, value in zip((1, 2), values, strict=True):
            sink.send(request(counter("jobs", value, time), instance="", host_name="h", process_pid=pid))
    assert sink.series() == {"jobs_total{service=api}": 105}
