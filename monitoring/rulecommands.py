"""``anvil-monitor rules check`` and ``rules test``: as ``promtool`` does, without it. Exit status 0 or 1, as there."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from anvil_monitor.alerts import promtest, rulefile, ruletests
from anvil_monitor.alerts.rulefile import Alerting, Group
from anvil_monitor.targets import ConfigurationError, Problem

from .asking import Command

EXAMPLES = """\
  anvil-monitor rules check rules/*.yml
  anvil-monitor rules test tests/*_test.yml
exit status: 0 all is well, 1 something is not"""
CHECK_EXAMPLES = """\
  anvil-monitor rules check rules/*.yml"""
TEST_EXAMPLES = """\
  anvil-monitor rules test rules_test.yml
  anvil-monitor rules test --coverage rules_test.yml
a file of tests is promtool's: https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/"""


def add(command: Command) -> None:
    """Add the command and its two halves."""
    rules = command("rules", lambda options: 2, "check rule files, and run their tests, as promtool does", EXAMPLES)
    halves = rules.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parts: tuple[tuple[str, Callable[[Sequence[Path]], int], str, str], ...] = (
        ("check", check, "say whether rule files can be used, and every problem in them", CHECK_EXAMPLES),
        (
            "test",
            lambda files: test(files, coverage=False),
            "run files of rule tests, in promtool's format",
            TEST_EXAMPLES,
        ),
    )
    for name, run, help_, examples in parts:
        half = halves.add_parser(
            name,
            help=help_,
            description=help_[0].upper() + help_[1:] + ".",
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        half.add_argument("files", nargs="+", type=Path, metavar="FILE")
        half.set_defaults(run=lambda options, run=run: run(options.files))
        if name == "test":
            half.add_argument(
                "--coverage", action="store_true",
                help="name the rules that no test sees fire, and the branches of them that none sees give anything",
            )  # fmt: skip
            half.set_defaults(run=lambda options: test(options.files, coverage=options.coverage))


def _test(files: Sequence[Path]) -> int:
    return test(files, coverage=False)


def check(files: Sequence[Path]) -> int:
    """Print what each file holds, or what is wrong with it."""
    failed = False
    for path in files:
        try:
            groups = read(path)
        except ConfigurationError as error:
            failed = True
            print(f"{path}: FAILED", flush=True)
            _tell(error)
            continue
        count = sum(len(group.rules) for group in groups)
        print(
            f"{path}: ok, {count} rule{'s' * (count != 1)} in {len(groups)} group{'s' * (len(groups) != 1)}", flush=True
        )
        for name, labels in duplicates(groups):
            print(f"warning: {path}: {name} is there more than once with the labels {labels}", file=sys.stderr)
    return int(failed)


def test(files: Sequence[Path], *, coverage: bool) -> int:
    """Print the verdict on each file of tests, and every failure; with ``coverage``, what no test exercises."""
    from . import coverage as covering
    from . import ruletest

    failed = False
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
            file = promtest.load(text, path)
            for pattern in file.unmatched():
                print(f"warning: {path}: no rule file matches {pattern!r}", file=sys.stderr)
            if coverage:
                failures, covered = covering.run(file)
            else:
                failures, covered = ruletest.run_file(file), None
        except ConfigurationError as error:
            failed = True
            print(f"{path}: FAILED", flush=True)
            _tell(error)
            continue
        except (OSError, UnicodeDecodeError) as error:
            failed = True
            print(f"{path}: FAILED", flush=True)
            print(f"error: {path} cannot be read: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
            continue
        print(f"{path}: {'FAILED' if failures else 'ok'}", flush=True)
        for failure in failures:
            failed = True
            print(f"  {failure}", file=sys.stderr)
        for sentence in ruletests.untested(text):
            print(f"  not tested: {sentence}", flush=True)
        if covered is not None:
            print(f"{path}: exercises {covered}", flush=True)
            for sentence in covered.missing():
                print(f"  {sentence}", flush=True)
    return int(failed)


def read(path: Path, default_interval: float = rulefile.DEFAULT_INTERVAL) -> tuple[Group, ...]:
    """The groups of one rule file. Raises :class:`ConfigurationError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigurationError([Problem(f"cannot be read: {reason}", path)]) from None
    return rulefile.load(text, path, default_interval=default_interval)


def duplicates(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Rules of one name and the same labels: each would write into the other's series."""
    seen = Counter(
        (rule.alert if isinstance(rule, Alerting) else rule.record, tuple(sorted(rule.labels.items())))
        for group in groups
        for rule in group.rules
    )
    return [
        (name, "{" + ", ".join(f"{key}={value!r}" for key, value in labels) + "}")
        for (name, labels), count in seen.items()
        if count > 1
    ]


def _tell(error: ConfigurationError) -> None:
    for problem in error.problems:
        print(f"{problem.severity}: {problem}", file=sys.stderr)
