"""What is recorded of a target, as expressions: its value, its ratio to the limit, its samples, how exact it is."""

from __future__ import annotations

from typing import Final, assert_never

from anvil_monitor.exporter import names
from anvil_monitor.targets import Capacity, Direction, Formula, Level, Mean, Percentile, Target

from .ruleparts import RATIO, SAMPLES, VALUE, duration, number, quoted, recorded

# Seconds. A target with less traffic than its floor is judged over an hour, for which the floor is one request in some
# minutes; of the samples over the limit some must be in the last quarter of it, or it is over.
PATIENCE: Final = 3600.0
PATIENCE_WINDOWS: Final = 6
# So many must be over the limit: of twenty samples of a healthy server, 2 % of them slow, two are in one hour of
# seventeen, five in one of 27,000 (binomial).
PATIENT_LEAST: Final = 5


def believed(target: Target, targets: tuple[Target, ...]) -> Target:
    """The target whose samples ``target`` rests on: itself, or the one that a capacity is counted against."""
    if isinstance(target.indicator, Capacity):
        return next(each for each in targets if each.name == target.indicator.while_holds)
    return target


def value_of(target: Target, seconds: float = 0.0) -> str:
    """The measured number, over the last ``seconds`` (0: the target's own window).

    A histogram without traffic gives NaN (0/0), one that is not there gives nothing.
    """
    service, window = f"{{{_matchers(target)}}}", f"[{duration(seconds or target.window)}]"
    match target.indicator:
        case Percentile(metric, quantile):
            rate = f"sum by (le) (rate({metric}_bucket{service}{window}))"
            return f"histogram_quantile(\n  {number(quantile)},\n  {rate}\n)"
        case Mean(metric):
            return f"sum(rate({metric}_sum{service}{window}))\n/\nsum(rate({metric}_count{service}{window}))"
        case Level(metric):
            # A server may tell its memory itself, and the exporter tells it, too: two sources, not two parts.
            return f"max(sum by (job) (avg_over_time({metric}{service}{window})))"
        case Capacity(metric):
            # Little's law: the seconds that requests took in a second are the mean number of requests in flight.
            # J. D. C. Little, "A proof for the queuing formula L = λW", Operations Research 9, 1961.
            little = f"sum(rate({names.HTTP_DURATION.sum}{service}{window}))"
            return f"sum(max_over_time({metric}{service}{window}))\nor\n{little}"
        case Formula(_, expr):
            return _filled(expr, target, seconds)
        case other:
            assert_never(other)


def estimate_of(target: Target) -> list[str]:
    """What gives 1 where the value of ``target`` is an estimate, and nothing where it is exact."""
    service = _matchers(target)
    match target.indicator:
        case Percentile(metric):
            there, exact = (
                f"{metric}_bucket{{{service}}}",
                f"{metric}_bucket{{{service},le=~{_edge(target.limit)}}}",
            )
        case Capacity(metric):
            there, exact = f"{names.HTTP_DURATION.sum}{{{service}}}", f"{metric}{{{service}}}"
        case _:
            return []
    return [f"clamp_max(count({there}), 1)\nunless on ()\ncount({exact})"]


def _matchers(target: Target) -> str:
    """The label matchers of what ``target`` is read from, without brackets."""
    more = getattr(target.indicator, "match", "")
    return f"service={quoted(target.service)}" + (f",{more}" if more else "")


def _filled(text: str, target: Target, seconds: float = 0.0) -> str:
    """A formula's text for ``target``. A service's name has no character that PromQL would read otherwise."""
    return text.replace("$service", target.service).replace("$window", duration(seconds or target.window))


def _edge(limit: float) -> str:
    """A pattern for the label ``le`` of an edge at ``limit``, as a PromQL string: ``2`` or ``2.0``."""
    texts = dict.fromkeys((number(limit), repr(float(limit))))
    return quoted("|".join(text.replace(".", "\\.") for text in texts))


def ratio_of(target: Target) -> str:
    if isinstance(target.indicator, Capacity):
        other = recorded(RATIO, target, target.indicator.while_holds)
        return f"{other}\n* on (service)\n({recorded(VALUE, target)} < bool {number(target.limit)})"
    if target.direction is Direction.ABOVE:
        return f"{number(target.limit)} / {recorded(VALUE, target)}"
    return f"{recorded(VALUE, target)} / {number(target.limit)}"


def samples_of(target: Target) -> str:
    service, window = f"{{{_matchers(target)}}}", f"[{duration(target.window)}]"
    match target.indicator:
        case Percentile(metric) | Mean(metric):
            return f"sum(increase({metric}_count{service}{window}))"
        case Level(metric):
            return f"sum(count_over_time({metric}{service}{window}))"
        case Capacity(_, while_holds):
            return recorded(SAMPLES, target, while_holds)
        case Formula(_, _, counted):
            return _filled(counted, target) if counted else f"count_over_time({recorded(VALUE, target)}{window})"
        case other:
            assert_never(other)


def patience(target: Target) -> float:
    """Seconds over which a target with little traffic is judged."""
    return max(PATIENCE, PATIENCE_WINDOWS * target.window)


def looked_back(target: Target) -> str:
    """The value over :func:`patience`, where there is reason to believe it and it still goes on; else nothing."""
    service, long = f"{{{_matchers(target)}}}", patience(target)
    count = f"sum(increase({target.indicator.metric}_count{service}[{duration(long)}]))"
    return (
        f"{value_of(target, long)}\nand on ()\n({count} > {number(target.floor - 0.5)})\n"
        f"and on ()\n(({over(target, long)}) > {number(PATIENT_LEAST - 0.5)})\n"
        f"and on ()\n(({over(target, long / 4)}) > 0.5)"
    )


def over(target: Target, seconds: float, by: tuple[str, ...] = ()) -> str:
    """How many samples of the last ``seconds`` were over the limit: counted, at the histogram's edge there."""
    metric, window = target.indicator.metric, f"[{duration(seconds)}]"
    labels = _matchers(target) + (f',{by[-1]}!=""' if by else "")
    total = f"sum by ({', '.join(by)})" if by else "sum"
    within = f"{metric}_bucket{{{labels},le=~{_edge(target.limit)}}}"
    return f"{total}(increase({metric}_count{{{labels}}}{window})) - {total}(increase({within}{window}))"
