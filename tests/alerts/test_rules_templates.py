"""Templates: what our expander prints is, to the letter, what Prometheus prints."""

from __future__ import annotations

import contextlib
import math
import random
import re
import struct
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.alerts import templates
from anvil_monitor.alerts.templatefunctions import FUNCTIONS as BY_NAME

BLOCKS = (
    "{{ if true }}a{{ else }}b{{ end }}",
    "{{ if $labels.missing }}a{{ else }}b{{ end }}",
    "{{ if $value }}a{{ end }}.",
    '{{ if eq $labels.x "it\'s 3" }}three{{ else if ne $labels.x "it\'s 4" }}other{{ else }}four{{ end }}',
    "{{ if gt $value 100.0 }}large{{ else if lt $value 0.0 }}below{{ else }}small{{ end }}",
    "{{ if and (ge $value 0.0) (le $value 1e6) }}in{{ end }}{{ if or false $labels.x }}x{{ end }}",
    "{{ if not $value }}0{{ end }}",
    "{{ and 0 1 }} {{ and 1 2 }} {{ or 0 `` }}. {{ or `a` 1 }} {{ and 1 2 3 }} {{ or 0 0 `x` }}",
    "{{ with $labels.x }}{{ . }}{{ else }}none{{ end }}",
    "{{ with $labels.missing }}{{ . }}{{ else }}none{{ end }}",
    "{{ with $x := $labels.x }}{{ $x }} {{ . }}{{ end }}",
    '{{ with query "nothing" }}{{ . | first | value }}{{ else }}nothing found{{ end }}',
    '{{ query (printf "m{x=%q}" $labels.x) | first | value | humanize }}',
    '{{ with printf "m{x=%q}" $labels.x | query }}{{ . | first | label "x" }} {{ (first .).Value }}{{ end }}',
    '{{ with query (printf "m{x=%q}" $labels.x) }}{{ (index . 0).Labels.x }} {{ (. | first).Labels.none }}{{ end }}',
    '{{ range query (printf "m{x=%q}" $labels.x) }}{{ .Labels.x }}={{ .Value | humanize }};{{ end }}',
    '{{ range $i, $e := query "m" | sortByLabel "x" }}{{ if lt $i 3 }}{{ $i }} {{ $e.Labels.x }}{{ end }}{{ end }}',
    '{{ range $e := query "nothing" }}{{ $e }}{{ else }}none{{ end }}',
    "{{ range $k, $v := $labels }}{{ $k }}={{ $v }} {{ end }}",
    "{{ range $labels }}{{ . }} {{ $.Value }} {{ $value }};{{ end }}",
    "{{ $n := 0 }}{{ range $labels }}{{ $n = 1 }}{{ end }}{{ $n }}",
    "{{ $n := 0 }}{{ if true }}{{ $n := 2 }}{{ $n }}{{ end }}{{ $n }}",
    "{{ $a := $value }}{{ $b := $a | humanize }}{{ $b }} {{ $a }}",
    "a\n{{- if true }}\n  b\n{{- end }}\nc",
    "{{ print 1 2 `a` `b` 3 }} {{ println 1 `a` }}{{ len $labels.x }} {{ len $labels }}",
    "{{ print true }} {{ true }} {{ eq 1 1 }} {{ eq `a` `b` `a` }}",
    '{{ tableLink "up{x=\\"1 2\\"}" }} {{ graphLink "a+b" }}',
)
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

    def query(expression: str) -> list[templates.Element]:
        """The stand-in for a query engine: ``m`` is every series, ``m{x="it's 3"}`` one, ``nothing`` none."""
        wanted = re.fullmatch(r'm(?:\{x="it\'s (\d+)"\})?|nothing', expression)
        assert wanted, expression
        found = [(number, value) for number, value in enumerate(values) if wanted[1] in (None, str(number))]
        return [
            templates.Element({"__name__": "m", "x": f"it's {number}"}, value)
            for number, value in found
            if expression != "nothing"
        ]

    for number, value in enumerate(values):
        x = f"it's {number}"
        labels = {"__name__": "m", "x": x}
        series.append({"series": f'm{{x="{x}"}}', "values": repr(value).replace("inf", "Inf")})
        expanded = {name: templates.expand(text, labels, value, query=query) for name, text in annotations.items()}
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
@pytest.mark.parametrize("text", BLOCKS)
def test_blocks_and_queries_print_as_promtool_prints_them(text: str, tmp_path: Path) -> None:
    """Conditions, loops, variables and what ``query`` finds come out as under promtool."""
    _agrees(tmp_path, [0.0, 1.0, 2.5, 1e3, -4.0, 123456.0], [text])


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
        "{{ if true }}x",
        "{{ if }}x{{ end }}",
        "{{ end }}",
        "{{ else }}",
        "{{ if true }}{{ else }}{{ else }}{{ end }}",
        "{{ with $x := 1 }}{{ end }}{{ $x }}",
        "{{ $x = 1 }}",
        "{{ define `x` }}",
        "{{ define x }}{{ end }}",
        "{{ define `x` }}a{{ end }}{{ define `x` }}b{{ end }}",
        "{{ if true }}{{ define `x` }}{{ end }}{{ end }}",
        "{{ define `x` }}{{ $labels.x }}{{ end }}",
        "{{ block `x` }}{{ end }}",
        "{{ template `x` }}",
        "{{ template $value }}",
        "{{ tmpl `x` . }}",
        "{{ call print }}",
        "{{ nil }}",
        "{{ 010 }}",
        "{{ 0x10 }}",
        "{{ range $a, $b, $c := query `up` }}{{ end }}",
        "{{ break }}",
        "{{ range $labels }}{{ else }}{{ continue }}{{ end }}",
        "{{ range $labels }}{{ break 1 }}{{ end }}",
        "{{ range $labels }}{{ define `x` }}{{ break }}{{ end }}{{ end }}",
        "{{ with $labels }}{{ else if true }}{{ end }}",
        "{{ reReplaceAll `a` `b` }}",
        "{{ (toTime 1).Format `a` `b` }}",
        "{{ now 1 }}",
        "{{ query }}",
        "{{ $value",
        "{{ $value.x }}",
        "{{ .Nothing }}",
        "{{ if true }}{{ .Nothing }}{{ end }}",
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
        "{{ arg 1 }}",
        "{{ .. }}",
        "{{ $.Nothing }}",
        "{{ a := 1 }}",
        "{{ {{ $value }} }}",
        '{{ "\\xe9" }}',
        '{{ "\\/" }}',
        '{{ "\\ud800" }}',
        '{{ printf "%x" $value }}',
        '{{ printf "100%" }}',
    ],
)
def test_what_is_not_supported_is_refused(text: str) -> None:
    """A construct outside the subset is an error that names it, never text that differs from Prometheus's."""
    with pytest.raises(templates.TemplateError):
        templates.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ $labels.x | humanize }}",
        "{{ if gt $value 100 }}mixed types{{ end }}",
        "{{ range $value }}x{{ end }}",
        "{{ first (query `nothing`) }}",
        "{{ index (query `nothing`) 0 }}",
        "{{ query `m` }}",
        "{{ query `(` }}",
        "{{ $x := query `m` }}{{ range $x }}{{ range $x }}{{ range $x }}{{ range $x }}long{{ end }}"
        "{{ end }}{{ end }}{{ end }}",
    ],
)
def test_an_error_while_expanding_becomes_text(text: str) -> None:
    """What goes wrong gives Prometheus's kind of error text, not an exception, and never a text without end."""

    def query(expression: str) -> list[templates.Element]:
        if expression == "(":
            raise ValueError("unclosed left parenthesis")
        return [templates.Element({}, 1.0)] * (100 if expression == "m" else 0)

    found = templates.expand(text, {"x": "nine"}, 1.0, query=query)
    assert found.startswith("<error expanding template: ")


PIECES = (
    "{{",
    "}}",
    "{{ ",
    " }}",
    "{{-",
    "-}}",
    " ",
    "|",
    "(",
    ")",
    ".",
    "$",
    "$x",
    ":=",
    "=",
    ",",
    '"',
    "`",
    "\\",
    "/*",
    "*/",
    "\n",
)
WORDS = (
    "if ",
    "else",
    "else if ",
    "range ",
    "with ",
    "end",
    "define ",
    "template ",
    "block ",
    "break",
    "continue",
    "1",
    "-",
    "a",
    "é",
)


@given(
    st.lists(
        st.sampled_from([*PIECES, *WORDS, *(f"{name} " for name in BY_NAME), "$value", ".Labels.x", '"m"']), max_size=40
    )
)
def test_no_text_breaks_the_reader(pieces: list[str]) -> None:
    """Whatever a template is made of, it is refused with a reason or it gives a text."""
    try:
        template = templates.parse("".join(pieces))
    except templates.TemplateError as error:
        assert str(error)
        return
    assert isinstance(template.expand(templates.Data({"x": "1"}, 1.0, query=lambda _: [])), str)


@pytest.mark.parametrize(
    "piece", ["{{", "{{ if true }}", "{{ define `x` }}", "{{ ( ", '{{ "', "{{ /*", "{{ $x := ", "{{ template `x` }}"]
)
def test_a_long_text_is_read_in_time_that_grows_with_it(piece: str) -> None:
    """A hundred thousand characters of the same beginning are refused, or printed, without a stack that overflows."""
    text = piece * (100_000 // len(piece))
    with contextlib.suppress(templates.TemplateError):
        templates.parse(text)


def test_a_template_that_asks_needs_somebody_to_ask() -> None:
    """``query`` without a query engine is an error text, as any other mistake."""
    assert "nothing to be asked" in templates.expand("{{ query `up` | len }}", {}, 1.0)
