"""Every function and construct of a template says what Prometheus says, for ordinary values and for odd ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import random_templates
import template_oracle

from anvil_monitor.alerts import templates
from anvil_monitor.alerts.templatefunctions import FUNCTIONS

LABELS = {
    "x": "it's 3",
    "host": "db1.example.com:9100",
    "ip": "10.0.0.1:80",
    "v6": "[fe80::1]:80",
    "n": "1234.5",
    "bad": "<a href='x'>&\"\\",
}
VALUES = [0.0, 1.0, 2.5, -4.0, 123456.789, math.nan, math.inf, 1700000000.25, -1.5e9]

GROUPS: dict[str, tuple[str, ...]] = {
    "regular expressions": (
        r'{{ match "^it" $labels.x }} {{ match "IT" $labels.x }} {{ match "(?i)IT" $labels.x }} {{ match "" "" }}',
        r'{{ match "a.b" "a\nb" }} {{ match "a$" "a\n" }} {{ match "(?s)a.b" "a\nb" }} {{ match "(?m)a$" "a\n" }}',
        r'{{ match `\d+` $labels.x }} {{ match `\d` "٣" }} {{ match `\pL` "é" }} {{ match "[[:alpha:]]" "1" }}',
        '{{ match "(" "a" }}',
        '{{ match "(?=a)b" "b" }}',
        r'{{ match `(a)\1` "aa" }}',
        r"{{ match `a\C` `ab` }}",
        "{{ match `(a+)+$` `" + "a" * 500 + "!` }}",
        '{{ if match "db" $labels.host }}db{{ else if match "web" $labels.host }}web{{ else }}?{{ end }}',
        '{{ if and (match "db" $labels.host) (gt $value 1.0) }}yes{{ else }}no{{ end }}',
        r'{{ reReplaceAll ":.*" "" $labels.host }} {{ reReplaceAll "(.*):(.*)" "$2:$1" $labels.host }}',
        r"{{ reReplaceAll `(\w+)\.(?P<rest>\w+)` `${rest}-$1-$1x-${1}x-$$-$9-$-${-${}-$rest` $labels.host }}",
        r'{{ reReplaceAll "x*" "-" "abxxc" }} {{ reReplaceAll "" "-" "äö" }} {{ reReplaceAll "^a" "b" "aaa" }}',
        r'{{ reReplaceAll "a|b" "" "" }} {{ reReplaceAll "(a)|(b)" "<$1|$2|$01>" "ab" }}',
        r'{{ reReplaceAll `\b` "|" "ab cd" }} {{ reReplaceAll "(?m)^" ">" "a\nb" }} {{ reReplaceAll "é" "$0$0" "hé" }}',
        '{{ reReplaceAll "a" "$1_x" "a" }} {{ reReplaceAll "(a)" "$1_x" "a" }} {{ reReplaceAll "(a)" "$é" "a" }}',
        '{{ $labels.host | reReplaceAll ":.*" "" | toUpper }}',
        '{{ reReplaceAll "[" "x" "y" }}',
        '{{ reReplaceAll "a)(b" "x" "ab" }}',
        '{{ reReplaceAll 1 "a" "a" }}',
        "{{ reReplaceAll `(a|aa)+$` `b` `" + "a" * 500 + "!` }}",
    ),
    "hosts": (
        "{{ stripPort $labels.host }} {{ stripPort $labels.ip }} {{ stripPort $labels.v6 }} {{ stripPort `nohost` }}",
        "{{ stripPort `::1` }} {{ stripPort `[::1]` }} {{ stripPort `a:b:c` }} {{ stripPort `:80` }} "
        "{{ stripPort `` }}",
        "{{ stripPort `[a]b:1` }} {{ stripPort `a[b:1` }} {{ stripPort `a:b]` }} {{ stripPort `[a]:[1` }}",
        "{{ stripDomain $labels.host }} {{ stripDomain $labels.ip }} {{ stripDomain $labels.v6 }} "
        "{{ stripDomain `n` }}",
        "{{ stripDomain `::1` }} {{ stripDomain `[::1]` }} {{ stripDomain `a.b:b:c` }} {{ stripDomain `.b:80` }}",
        "{{ stripDomain `` }} {{ stripDomain `a.b.` }} {{ stripDomain `[a.b]:1` }} {{ stripDomain `01.2.3.4:1` }}",
        "{{ stripDomain `fe80::1%eth0` }} {{ stripDomain `a.b:` }}",
        "{{ stripPort 1 }}",
    ),
    "times": (
        "{{ $value | toTime }}",
        "{{ toTime 0 }} {{ toTime 1700000000.999 }} {{ toTime `12.5` }} {{ toTime -1.5 }}",
        "{{ humanizeTimestamp $value }}",
        "{{ humanizeTimestamp `nan` }} {{ humanizeTimestamp 9e9 }}",
        "{{ humanizeTimestamp 1e18 }}",
        "{{ (toTime 1700000000.123).Format `2006-01-02 15:04:05` }} {{ `2006` | (toTime 1700000000).Format }}",
        "{{ (toTime 1700000000.123).Format `Monday, Mon January Jan 2 _2 02 002 1 01 06 3:04PM 03 pm 4 5 05 15` }}",
        "{{ (toTime 1700000000.123).Format `.000 .999 ,9 .0000 .9x .01 MST -0700 -07:00 -07 Z07:00 Month Jane "
        "20060102` }}",
        "{{ with toTime 1700000003 }}{{ .Format `15:04:05.000 05.999` }} {{ .Unix }} {{ .Year }} {{ .YearDay }}"
        "{{ end }}",
        "{{ with toTime $value }}{{ .UnixMilli }} {{ .Day }} {{ .Hour }} {{ .Minute }} {{ .Second }}{{ end }}",
        "{{ printf `%v %s` (toTime 5) (toTime 6.5) }} {{ if toTime 0 }}a time is true{{ end }}",
        "{{ parseDuration `1h30m` }} {{ parseDuration `1d` }} {{ parseDuration `0` }} {{ parseDuration `1ms` }}",
        "{{ parseDuration `x` }}",
        "{{ parseDuration `` }}",
    ),
    "numbers in words": (
        "{{ humanize `0x1p4` }} {{ humanize `inf` }} {{ humanize `-Infinity` }} {{ humanize `NaN` }} "
        "{{ humanize `.5` }}",
        "{{ humanize `1e3` }} {{ humanize `5.` }} {{ humanize `+5` }} {{ humanize `1_000.5_5e1_0` }}",
        *(f"{{{{ humanize `{text}` }}}}" for text in (" 1", "1__0", "_1", "1_", "1e999", "", "+nan", "٣", "1e", "0x1")),
        "{{ humanize true }}",
        "{{ humanize $labels }}",
        "{{ humanizeDuration $labels.n }} {{ humanizePercentage $labels.n }} {{ humanize1024 $labels.n }}",
        "{{ humanizeDuration 1e10 }} {{ humanizeDuration -90061 }} {{ humanizePercentage -0.5 }} "
        "{{ humanize1024 -2048 }}",
        "{{ humanize 1e300 }} {{ humanize 1e-300 }} {{ humanize1024 1e300 }} {{ humanizeDuration 1e-300 }}",
    ),
    "texts": (
        "{{ title `hello wörld ǆ a_b it's ß é-x o'neil d.c. 1st` }} {{ toUpper `ßäǆ ﬁ ŉ ᾳ ς` }} "
        "{{ toLower `İΑΣ ÄẞǄ` }}",
        "{{ toUpper 1 }}",
        "{{ safeHtml `<b>` }} {{ safeHtml $labels.bad }} {{ graphLink `a` | safeHtml }}",
        "{{ html $labels.bad }} {{ html `a` 1 }} {{ js $labels.bad }} {{ $labels.bad | html }} {{ html }} "
        "{{ html 1 2 }}",
        r'{{ js "\n=é\u00a0\u2028" }} {{ html "\u0000é" }}',
        r"{{ urlquery `a b&c=d/é` 1 2 }} {{ urlquery `é~-_. /?#[]@!$&'()*+,;=` }} {{ tableLink `é{}` }} "
        r"{{ graphLink `` }}",
        "{{ index `abc` 1 }} {{ slice `abcdef` 2 }} {{ slice `abcdef` 2 4 }} {{ slice `abc` }} {{ slice `äö` 0 2 }}",
        "{{ slice `abc` 2 1 }}",
        "{{ slice `abc` 0 1 2 }}",
        "{{ index `abc` 5 }}",
        r'{{ "\x41\u00e9\U0001F600\101\a" | printf "%q" }} {{ printf "%q" "\u00a0\x7f\x01 é\\\"" }}',
        '{{ `a\\n` }} {{ "tab\\there" }}',
        "{{ println `a` 1 2 }} {{ print 1 2 `a` `b` 3 4 }} {{ print }}{{ println }}",
    ),
    "printf": (
        "{{ printf `%.2f` $labels.n }} "
        "{{ printf `%5.2f|%-9.2f|%09.2f|%+.2f` $labels.n $labels.n $labels.n $labels.n }}",
        "{{ printf `%03d|%3d|%-3d|%+d|% d|%d|%05d` 7 7 7 7 7 -7 -7 }} {{ printf `%d` $labels.n }}",
        "{{ printf `%05d|%+d|% d|%8d|` $value $value $value $value }}",
        "{{ printf `%t %t %t` true 1 `a` }} {{ printf `%6t|%-6t|` true false }} {{ printf `%v %s %d` true true true }}",
        "{{ printf `%.2f` 5 }} {{ printf `%5.1f|%e|%s|%.2v` 5 5 5 12345 }} {{ printf `%s|%q|%.1s` 5.5 1.5 0.25 }}",
        "{{ printf `%.2f` $labels }} {{ printf `%d` $labels }} {{ printf `%.2v|%5s|%q` $labels $labels $labels }}",
        "{{ printf `%.2s|%.2v|%.2q|%5.1s|` `abcdef` `abcdef` `abcdef` `äö` }} {{ printf `%5s|%.0s|` `a` `a` }}",
        "{{ printf `%v %s` . . }} {{ printf `%.1f` . }} {{ . }} {{ $ }}",
        "{{ printf `%v %q` (args 1 `b` 2.5) (args `a`) }} {{ printf `%v` (args).arg0 }} {{ printf `%s` (args).arg0 }}",
        "{{ printf `%v %v` $value }} {{ printf `%v` $value 1 `a` true }} {{ 1 | printf `%d-%s` 2 }}",
        "{{ printf `%g %v` 1e21 1e21 }} {{ 1e21 }} {{ 100000000 }} {{ 1e6 }} {{ 123456789.0 }} "
        "{{ $value | printf `%6.2f%%` }}",
    ),
    "queries": (
        "{{ range query `m` | sortByLabel `i` }}{{ .Labels.i }}={{ .Value }} {{ end }}",
        "{{ $r := query `m` }}{{ $s := sortByLabel `i` $r }}{{ range $r }}{{ .Labels.i }}{{ end }}",
        "{{ $r := query `m` | sortByLabel `i` }}{{ len (slice $r 1 3) }} {{ (index (slice $r 1) 0).Value }} "
        "{{ len $r }}",
        "{{ with $x := query `m` | first }}{{ $x.Labels.host }} {{ .Labels.nope }}.{{ end }}",
        "{{ label `x` (query `m` | first) }} "
        "{{ query `m` | first | label `nope` }}. {{ strvalue (query `m` | first) }}.",
        "{{ query `m` | len }} {{ query `nothing` | len }} {{ if query `nothing` }}y{{ else }}n{{ end }}",
        "{{ range query `nothing` }}x{{ else }}none{{ end }}",
        "{{ first (query `nothing`) }}",
        "{{ query `nothing` | first | value }}",
        "{{ value 1 }}",
        "{{ label `x` `y` }}",
        "{{ query 1 }}",
        "{{ (query `m` | first).Nope }}",
    ),
    "templates": (
        "{{ define `t` }}[{{ . }}]{{ end }}{{ template `t` $value }}{{ template `t` `x` }}{{ template `t` }}",
        "{{ define `t` }}{{ .Labels.x }} {{ .Value }} {{ $.ExternalLabels.cluster }}{{ end }}{{ template `t` . }}",
        "{{ template `t` . }}{{ define `t` }}{{ range .Labels }}{{ . }}{{ end }}{{ $ | printf `%v` | len }}{{ end }}",
        "{{ define `t` }}{{ template `u` .arg0 }}{{ template `u` .arg1 }}{{ end }}{{ define `u` }}<{{ . }}>{{ end }}"
        "{{ template `t` (args 1 $labels.x) }}",
        "{{ block `b` $labels.x }}({{ . }}){{ end }} {{ if true }}{{ block `c` 1 }}c{{ end }}{{ end }}",
        "{{ define `t` }}{{ template `t` . }}{{ end }}{{ template `t` 1 }}",
        "{{ define `t` }} {{ end }}{{ define `t` }}second{{ end }}{{ template `t` }}",
        "{{ define `t` }}first{{ end }}{{ define `t` }} {{ end }}{{ template `t` }}",
        "{{ define `t` }}{{ . }}{{ end }}{{ range $i, $e := .Labels }}{{ template `t` $e }}{{ end }}",
        "{{ define `t` }}{{ .x }}{{ end }}{{ template `t` }}",
        "{{ (args 1 `a`).arg1 }} {{ (args 1).arg7 }} {{ index (args 1 2) `arg1` }} {{ len (args 1 2 3) }}",
        "{{ index (args 1) `x` }} {{ print (args).arg0 1 }} {{ args 1 `a` $value }} {{ args }}",
        "{{ with args 1 2 }}{{ .arg0 }}{{ .arg1 }}{{ end }}{{ range $k, $v := args `a` `b` }}{{ $k }}={{ $v }} "
        "{{ end }}",
    ),
    "loops": (
        "{{ range $i, $e := query `m` }}{{ if eq $i 3 }}{{ break }}{{ end }}{{ $i }} {{ end }}after",
        "{{ range $i, $e := query `m` }}{{ if lt $i 3 }}{{ continue }}{{ end }}{{ $i }} {{ end }}after {{ $value }}",
        "{{ range $labels }}{{ with . }}{{ break }}{{ end }}{{ end }}{{ .Value }}",
        "{{ range $i, $e := query `m` }}{{ $x := $i }}{{ range $.Labels }}{{ continue }}{{ end }}{{ $x }}{{ end }}",
        "{{ $n := 0 }}{{ range $v := .Labels }}{{ $n = $v }}{{ end }}{{ $n }}",
        "{{ range 3 }}x{{ end }}",
        "{{ range `abc` }}x{{ end }}",
        "{{ range (args).arg0 }}x{{ else }}nothing{{ end }}",
    ),
    "comparisons": (
        "{{ eq true true }} {{ eq $value $value }} {{ ne true false }} {{ `a` | eq `a` }} "
        "{{ eq $labels.x `a` `it's 3` }}",
        "{{ gt (len $labels.x) 3 }} {{ lt 1.5 $value }} {{ ge `b` `a` }} {{ not `` }} {{ not (query `nothing`) }}",
        "{{ eq true 1 }}",
        "{{ lt true false }}",
        "{{ eq `a` 1 }}",
        "{{ eq 1 1.0 }}",
        "{{ eq $labels $labels }}",
        "{{ index $value 1 }}",
        "{{ index $labels 1 }}",
        "{{ index $labels `x` }} {{ index $labels `nope` }}. {{ index $labels `a` | len }} {{ index 1 }}",
        "{{ or `` `b` | toUpper }} {{ not `` | printf `%v` }} {{ and $labels.x $value }}",
        "{{if(eq 1 1)}}y{{end}} {{ $labels.x }}{{/* comment */}}{{- /* c */ -}} x {{ $externalLabels }}",
    ),
}


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("name", GROUPS)
def test_what_a_template_says_is_what_promtool_says(name: str, tmp_path: Path) -> None:
    """To the letter; and what is an error there is an error here."""
    assert template_oracle.differences(tmp_path, GROUPS[name], VALUES, LABELS) == {}


def test_every_function_is_compared_or_named_here() -> None:
    """None is left out: what promtool 2.42 does not have, or has no URL for, is tested below."""
    later = {"now", "toDuration", "urlQueryEscape", "externalURL", "pathPrefix"}
    texts = " ".join(text for group in GROUPS.values() for text in group)
    assert {name for name in FUNCTIONS if f"{name} " not in texts} <= later | {"le"}


def said(text: str, value: float = 1.0) -> str:
    data = templates.Data({"x": "a b"}, value, {}, "https://h.example.com/a%20b/", at=1_700_000_000.5)
    return templates.parse(text).expand(data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ now }}", "1.7000000005e+09"),
        ("{{ now | toTime }}", "2023-11-14 22:13:20.5 +0000 UTC"),
        ("{{ toDuration 0 }} {{ toDuration 1 }} {{ toDuration -90.5 }}", "0s 1s -1m30.5s"),
        ("{{ toDuration 3600 }} {{ toDuration 100000.001 }} {{ toDuration `61` }}", "1h0m0s 27h46m40.001s 1m1s"),
        ("{{ toDuration 0.0015 }} {{ toDuration 0.000002 }} {{ toDuration 5e-9 }}", "1.5ms 2µs 5ns"),
        ("{{ (toDuration 5400).Hours }} {{ (toDuration 90).Minutes }} {{ (toDuration 90).Seconds }}", "1.5 1.5 90"),
        ("{{ toDuration 90 | humanizeDuration }} {{ printf `%s` (toDuration 5) }}", "1m 30s 5s"),
        ("{{ urlQueryEscape $labels.x }}{{ urlQueryEscape `/é?` }}", "a+b%2F%C3%A9%3F"),
        ("{{ externalURL }} {{ pathPrefix }}", "https://h.example.com/a%20b/ /a b/"),
        ("{{ externalURL | len }} {{ print externalURL `x` | len }} {{ le 1 2 }}", "28 29 true"),
        ("{{ with $labels.no }}a{{ else with $labels.x }}{{ . }}{{ else }}c{{ end }}", "a b"),
    ],
)
def test_what_is_newer_than_promtool(text: str, expected: str) -> None:
    """Functions and constructs of Prometheus 3, and the URL, which promtool does not give to its rules."""
    assert said(text) == expected


@pytest.mark.parametrize("seconds", ["`nan`", "`inf`", "1e300", "true", "`1h`"])
def test_what_is_no_time_is_an_error(seconds: str) -> None:
    """Neither a time nor a length of time."""
    for name in ("toTime", "toDuration"):
        assert said(f"{{{{ {name} {seconds} }}}}").startswith("<error expanding template: ")


@pytest.mark.parametrize(
    "text",
    [
        "{{ $x := `aaaaaaaaaa` }}{{ range query `m` }}{{ $x = print $x $x }}{{ end }}{{ $x }}",
        "{{ $x := `aaaaaaaaaa` }}{{ range query `m` }}{{ $x = reReplaceAll `a` `aa` $x }}{{ end }}",
        "{{ $x := args 1 1 }}{{ range query `m` }}{{ $x = args $x $x }}{{ end }}{{ $x }}",
        "{{ define `t` }}{{ template `t` }}{{ template `t` }}{{ end }}{{ template `t` }}",
        "{{ $x := `aaaa` }}{{ range query `m` }}{{ $x = html $x $x }}{{ end }}",
    ],
)
def test_no_template_fills_the_memory_or_goes_on_for_ever(text: str) -> None:
    """What would grow with every turn of a loop ends in an error text."""
    found = templates.expand(text, {}, 1.0, query=lambda _: [templates.Element({}, 1.0)] * 200)
    assert found.startswith("<error expanding template: ")


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("seed", range(4))
def test_random_templates_say_what_promtool_says(seed: int, tmp_path: Path) -> None:
    """Two hundred a seed: every function with arguments of every kind, nested, piped, in blocks."""
    maker = random_templates.Maker(seed)
    texts = [maker.template() for _ in range(200)]
    assert template_oracle.differences(tmp_path, texts, VALUES, {**LABELS, "e": "äé"}) == {}
