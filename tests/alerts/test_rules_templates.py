"""Templates: what our expander prints is, to the letter, what Prometheus prints."""

from __future__ import annotations

import math
import random
import struct
import subprocess
from pathlib import Path

import pytest
import yaml

from anvil_monitor.alerts import templates

FUNCTIONS = ("humanize", "humanize1024", "humanizeDuration", "humanizePercentage")
VERBS = (
    "%v",
    "%s",
    "%d",
    "%f",
    "%.0f",
    "%.2f",
    "%e",
    "%.3e",
    "%g",
    "%.4g",
    "%8.2f|",
    "%-8.1f|",
    "%+.1f",
    "%08.2f",
    "% .2f",
    "%q",
    "%5v|",
    "%v %v",
    "%.f",
    "%6s|",
    "%-9d|",
    "%d%%",
    "%+.2e",
    "%.3v",
    "%010.3e",
    "%+g",
    "%9q",
)
TEXTS = (
    "plain",
    "",
    "{{ $value }}",
    "{{.Value}}",
    "{{ $labels.x }}",
    "{{ .Labels.x }}-{{ $labels.missing }}.",
    "a {{- $value -}} b",
    "a {{- /* nothing */ -}} b",
    "{{/* c */}}x",
    '{{ "quoted \\" }} text" }}',
    "{{ `raw }}` }}",
    '{{ $value | printf "%.1f" }} of {{ printf "%s %s" $labels.x "y" }}',
    "{{ ($value | humanize) }}B",
    '{{ printf "%s" (humanize $value) | toUpper }}',
    '{{ index $labels "x" | title }}',
    "{{ 12 }} {{ 1.5 }} {{ -3 }}",
    '{{ humanize 0.05 }} {{ humanizeDuration 90 }} {{ humanize "1234" }}',
    "{{ $labels }}",
    '{{ printf "%q" $labels.x }}',
    '{{ "Ab" | toLower }}{{ printf "%d" 7 }}{{ printf "%5d|" 7 }}{{ printf "%d" $labels.x }}',
    "ünï {{ $value }} ✓",
    '{{ printf "%v" $labels }} {{ printf "no %s" }}',
    "{{ humanizeTimestamp 1700000000.25 }}",
    "{{$value|humanize}}",
    "{ {{ $value }} }",
)
VALUES = [
    0.0,
    1.0,
    -1.0,
    0.2,
    0.312,
    1.84,
    59.9999,
    60.0,
    61.5,
    3600.0,
    86399.9,
    90061.0,
    -75.0,
    5.123e8,
    5e8,
    1e6,
    999999.0,
    999999.5,
    123456789.0,
    1e18,
    1e-3,
    1e-4,
    9.99e-5,
    1e-7,
    3.3e-25,
    1023.9,
    1024.0,
    1048576.0,
    1000.0,
    99995.0,
    0.30000000000000004,
    100.0,
    37.0,
    123456.0,
    1234567.0,
    2.5,
    12345.678,
    math.inf,
    -math.inf,
    math.nan,
]


def _agrees(tmp_path: Path, values: list[float], texts: list[str]) -> None:
    """Let promtool compare: each value is one series, each text one annotation, expected as ours expands it."""
    annotations = {f"a{index:03d}": text for index, text in enumerate(texts)}
    group = {"name": "g", "rules": [{"alert": "A", "expr": "m", "annotations": annotations}]}
    series, expected = [], []
    for number, value in enumerate(values):
        x = f"it's {number}"
        labels = {"__name__": "m", "x": x}
        series.append({"series": f'm{{x="{x}"}}', "values": repr(value).replace("inf", "Inf")})
        expanded = {name: templates.expand(text, labels, value) for name, text in annotations.items()}
        expected.append({"exp_labels": {"x": x}, "exp_annotations": expanded})
    asked = [{"eval_time": "0m", "alertname": "A", "exp_alerts": expected}]
    tests = [{"interval": "1m", "input_series": series, "alert_rule_test": asked}]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    run = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True)
    exp, _, got = (run.stdout + run.stderr).partition("got:[")
    lines = {line.strip().rstrip(",") for line in exp.splitlines()} ^ {
        line.strip().rstrip(",") for line in got.splitlines()
    }
    assert run.returncode == 0, "\n".join(sorted(line for line in lines if line.startswith("Annotations")))[:6000]


@pytest.mark.needs("promtool")
def test_texts_and_verbs_print_as_promtool_prints_them(tmp_path: Path) -> None:
    """Every construct of the subset, over ordinary and extreme values, prints as under promtool."""
    texts = [
        *TEXTS,
        *(f"{{{{ $value | {name} }}}}" for name in FUNCTIONS),
        *(f'{{{{ printf "{verb}" $value }}}}' for verb in VERBS),
    ]
    _agrees(tmp_path, VALUES, texts)


@pytest.mark.needs("promtool")
def test_random_numbers_print_as_promtool_prints_them(tmp_path: Path) -> None:
    """A thousand seeded numbers of every size, through every number function, print as under promtool."""
    random.seed(20)
    values = [random.uniform(-1, 1) * 10 ** random.randint(-12, 15) for _ in range(700)]
    values += [struct.unpack("d", random.randbytes(8))[0] for _ in range(150)]
    values += [round(random.uniform(0, 1000), random.randint(0, 4)) for _ in range(150)]
    values = [value for value in values if math.isfinite(value) and abs(value) < 9e18]
    texts = [
        "{{ $value }}",
        *(f"{{{{ $value | {name} }}}}" for name in FUNCTIONS),
        '{{ printf "%.1f %.4g %e" $value $value $value }}',
    ]
    _agrees(tmp_path, values, texts)


@pytest.mark.parametrize(
    "text",
    [
        "{{ if true }}x{{ end }}",
        "{{ range query `up` }}{{ end }}",
        "{{ $value",
        "{{ query `up` | first | value }}",
        "{{ $x }}",
        "{{ $labels.a.b }}",
        "{{ humanize }}",
        "{{ humanize $value $value }}",
        "{{ $value | $value }}",
        "{{ }}",
        "{{ ($value }}",
        "{{ $value ) }}",
        "{{ 'x' }}",
        '{{ $value"x" }}',
        "{{ args 1 }}",
        "{{ . }}",
        "{{ a := 1 }}",
        "{{ {{ $value }} }}",
        '{{ "\\x41" }}',
        '{{ printf "%x" $value }}',
        '{{ printf "100%" }}',
    ],
)
def test_what_is_not_supported_is_refused(text: str) -> None:
    """A construct outside the subset is an error that names it, never text that differs from Prometheus's."""
    with pytest.raises(templates.TemplateError):
        templates.parse(text)


def test_an_error_while_expanding_becomes_text() -> None:
    """A number function on text that is no number gives Prometheus's error text, not an exception."""
    text = templates.expand("{{ $labels.x | humanize }}", {"x": "nine"}, 1.0)
    assert text.startswith("<error expanding template: ")
