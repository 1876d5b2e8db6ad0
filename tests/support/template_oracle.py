"""promtool as the oracle of templates: each text becomes an annotation, expanded by Prometheus and by us."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from anvil_monitor.alerts import templates

ERROR = '"<error expanding template: '
EXTERNAL = {"cluster": "eu"}
URL = "http://monitor.example.com/prefix"


def differences(
    folder: Path, texts: Sequence[str], values: Sequence[float], labels: Mapping[str, str]
) -> dict[str, list[tuple[str, str]]]:
    """Where our text (first) is not promtool's, by template; that both give an error counts as the same.

    Every value is a series ``m`` with ``labels`` and its number ``i``. What ``query`` finds has no order in promtool:
    a template that shows more than one element sorts them by ``i``.
    """
    annotations = {f"a{number:03d}": text for number, text in enumerate(texts)}
    series = [({**labels, "i": str(number)}, value) for number, value in enumerate(values)]
    found = [templates.Element({**each, "__name__": "m"}, value) for each, value in series]

    def query(expression: str) -> list[templates.Element]:
        assert expression in ("m", "nothing"), expression
        return list(found) if expression == "m" else []

    expected = []
    for each, value in series:
        data = templates.Data({**each, "__name__": "m"}, value, EXTERNAL, URL, query)
        expanded = {name: templates.parse(text).expand(data) for name, text in annotations.items()}
        expected.append({"exp_labels": each, "exp_annotations": expanded})
    rules = {"alert": "A", "expr": "m", "annotations": annotations}
    test = {
        "interval": "1m",
        "external_labels": EXTERNAL,
        "external_url": URL,
        "input_series": [{"series": f"m{_matchers(each)}", "values": _number(value)} for each, value in series],
        "alert_rule_test": [{"eval_time": "0m", "alertname": "A", "exp_alerts": expected}],
    }
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rules]}]}), encoding="utf-8")
    (folder / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [test]}), encoding="utf-8")
    run = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True)
    said = run.stdout + run.stderr
    if run.returncode == 0:
        return {}
    ours, compared, theirs = said.partition("got:[")
    assert compared, said[:4000]
    left, right = _annotations(ours), _annotations(theirs)
    different = {name: (left[name] - right[name], right[name] - left[name]) for name in annotations}
    return {
        annotations[name]: list(zip(sorted(mine.elements()), sorted(other.elements()), strict=False))
        for name, (mine, other) in different.items()
        if mine or other
    }


def _annotations(said: str) -> dict[str, Counter[str]]:
    """What each annotation was, in Go's quotes, once for every alert."""
    found: dict[str, Counter[str]] = {}
    for line in re.findall(r"Annotations:(\{.*\})", said):
        for name, text in re.findall(r'(a\d{3})=("(?:\\.|[^"\\])*")', line):
            found.setdefault(name, Counter())[ERROR if text.startswith(ERROR) else text] += 1
    return found


def _matchers(labels: Mapping[str, str]) -> str:
    escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"


def _number(value: float) -> str:
    return repr(value).replace("inf", "Inf").replace("nan", "NaN")
