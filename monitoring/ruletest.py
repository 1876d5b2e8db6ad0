"""The rules' own tests, run by the embedded evaluator: the binding of :mod:`anvil_monitor.alerts.promtest`.

The same ``rules_test.yml`` that ``promtool test rules`` runs against Prometheus's evaluator is played here to the
store, the PromQL engine and the rule manager that ``anvil-monitor up`` is made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from anvil_monitor.alerts import promtest, templates
from anvil_monitor.alerts.promseries import Labels, Stale
from anvil_monitor.alerts.rulefile import Group

from .promql import Engine, Scalar, Vector
from .rulemanager import ActiveAlert, GroupState, RuleError, State, evaluate
from .samples import STALE_NAN
from .store import Store


def run(path: Path) -> list[promtest.Failure]:
    """Every failure of the test file ``path``. Raises ``ConfigurationError`` for a file that cannot be read or used."""
    return run_text(path.read_text(encoding="utf-8"), path)


def run_text(text: str, path: Path) -> list[promtest.Failure]:
    """As :func:`run`, for a text that is not on disk; its rule files are looked for beside ``path``."""
    return run_file(promtest.load(text, path))


def run_file(file: promtest.TestFile) -> list[promtest.Failure]:
    """As :func:`run`, for tests that are read already."""
    groups = file.groups()
    return promtest.run(
        file,
        lambda file, test: Embedded(groups, file.evaluation_interval, test.external_labels, test.external_url),
    )


def evaluator(groups: Sequence[Group], interval: float) -> Embedded:
    """A new one of ``groups``, evaluated every ``interval`` seconds."""
    return Embedded(groups, interval, {})


class Embedded:
    """One test's store, engine and rule state."""

    def __init__(
        self, groups: Sequence[Group], interval: float, external_labels: Mapping[str, str], external_url: str = ""
    ) -> None:
        self._store = Store()
        self._engine = Engine(self._store, subquery_step=interval)
        self._groups = [(group, GroupState.of(group)) for group in groups]
        self._external_labels, self._external_url = external_labels, external_url

    def append(self, at: float, samples: Sequence[tuple[Labels, float | Stale]]) -> None:
        batch = [(labels, STALE_NAN if isinstance(value, Stale) else value) for labels, value in samples]
        self._store.append(round(at * 1000), batch)

    def evaluate(self, at: float) -> None:
        for group, state in self._groups:
            evaluate(group, state, at, self._engine.instant, self._store.append, self._expand)
            for rule in state.rules:
                if rule.health == "err":
                    raise RuleError(rule.error)

    def _expand(self, text: str, data: templates.Data) -> str:
        outside = replace(data, external_labels=self._external_labels, external_url=self._external_url)
        return templates.parse(text).expand(outside)

    def firing(self) -> Iterable[tuple[Mapping[str, str], Mapping[str, str]]]:
        for _, state in self._groups:
            for alert in state.alerts():
                if alert.state is State.FIRING:
                    yield dict(alert.labels), alert.annotations

    def alerts(self) -> list[ActiveAlert]:
        """The alerts that are pending or fire after the last evaluation."""
        return [each for _, state in self._groups for each in state.alerts() if each.state is not State.INACTIVE]

    def query(self, expr: str, at: float) -> Iterable[tuple[Labels, float]]:
        value = self._engine.instant(expr, at)
        if isinstance(value, Scalar):
            return [((), value.value)]
        if isinstance(value, Vector):
            return [(sample.labels, sample.value) for sample in value.samples]
        raise RuleError("the result is neither a vector nor a scalar")
