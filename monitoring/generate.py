"""Every file that is made from the targets, in one list: rules, their tests, boards, and what the bundle mounts.

The files are committed, so that the bundle runs and a rule can be read without this project installed;
:func:`check` proves them fresh. Prometheus's and Alertmanager's files stay within what Prometheus 2.42 and
Alertmanager 0.25 accept (and 3.x and 0.28 too).
"""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from anvil_monitor import dashboards
from anvil_monitor.alerts import alertmanager, drift, drifttests, rulefile, rules, ruletests, yamltext
from anvil_monitor.targets import (
    Configuration,
    ConfigurationError,
    Problem,
    Secret,
    Service,
    Target,
    format_promql_duration,
)
from anvil_monitor.targets.load import parse

from . import ruletest

COMMENT: Final = rulefile.COMMENT
GENERATED: Final = "alerts/generated"

# Where things are inside the bundle; docker-compose.yml says the same (tests/bundle holds the two together).
EXPORTER: Final = "exporter:9464"
NOTIFIER: Final = "notifier:9095"
PROMETHEUS: Final = "prometheus:9090"
ALERTMANAGER: Final = "alertmanager:9093"
RULES: Final = "/etc/prometheus/rules"
GRAFANA: Final = "http://127.0.0.1:3000"  # as a person reaches it: messages link there
BOARDS: Final = "/etc/anvil-monitor/dashboards"


def bundle_configuration() -> Configuration:
    """What ``bundle.toml`` beside this file says: the configuration that the committed files are made from."""
    text = (resources.files(__package__) / "bundle.toml").read_text(encoding="utf-8")
    return parse(text, Path("monitoring/bundle.toml"), {})


def files(configuration: Configuration) -> dict[str, str]:
    """The text of every generated file by its path in the tree. Pure: the same configuration gives the same bytes."""
    runbooks = configuration.monitor.runbooks or f"{GRAFANA}/d/{dashboards.RUNBOOK_UID}{{alert}}"
    links = rules.Links(f"{GRAFANA}/d/{dashboards.UID}?var-service={{service}}", runbooks)
    early = drift.drift_groups(configuration, links)  # a file of their own: their tests play hours, the others seconds
    made = {
        "alerts/generated/drift.yml": rulefile.dump(early),
        "alerts/generated/drift_test.yml": drifttests.dump(configuration, links),
        "alerts/generated/rules.yml": rulefile.dump(rules.shared_groups(configuration, links)),
        "alerts/generated/rules_test.yml": ruletests.dump(configuration, links),
        "monitoring/alertmanager/alertmanager.yml": alertmanager.dump(configuration),
        "monitoring/grafana/provisioning/dashboards/anvil-monitor.yml": _yaml(_board_provider()),
        "monitoring/grafana/provisioning/datasources/anvil-monitor.yml": _yaml(_data_sources(configuration)),
        "monitoring/prometheus/prometheus.yml": _yaml(_prometheus(configuration)),
    }
    for target in own_targets(configuration):  # files of their own: their tests play with their rules alone
        folder = f"{GENERATED}/{own_folder(target)}"
        made[f"{folder}/rules.yml"] = rulefile.dump(rules.own_groups(configuration, target, links))
        made[f"{folder}/rules_test.yml"] = ruletests.dump_own(configuration, target, ruletest.evaluator, links)
    made |= {f"dashboards/generated/{name}": text for name, text in dashboards.generated(configuration).items()}
    return dict(sorted(made.items()))


def own_targets(configuration: Configuration) -> list[Target]:
    """The targets of the user's own, of every service."""
    return [target for service in configuration.services for target in rules.own(configuration, service)]


def own_folder(target: Target) -> str:
    return f"own/{target.service}/{target.name}"


def write(root: Path, configuration: Configuration) -> list[str]:
    """Write what is not fresh below ``root``, each file whole or not at all; the paths written or taken away.

    Raises :class:`ConfigurationError` naming the file that cannot be written.
    """
    texts = files(configuration)
    written: list[str] = []
    for path in check(root, configuration):
        try:
            if path in texts:
                _replace(root / path, texts[path])
            else:
                (root / path).unlink()
        except OSError as error:
            raise ConfigurationError([Problem(f"cannot be written: {error.strerror}", root / path)]) from None
        written.append(path)
    return written


def check(root: Path, configuration: Configuration) -> list[str]:
    """The paths below ``root`` that are missing, say something else than :func:`files`, or are of a target no more."""
    texts = files(configuration)
    left = (path.relative_to(root).as_posix() for path in (root / GENERATED / "own").glob("*/*/rules*.yml"))
    gone = [
        path for path in sorted(left) if path not in texts and (_read(root / path) or "").startswith(f"# {COMMENT}")
    ]
    return [*(path for path, text in texts.items() if _read(root / path) != text), *gone]


def _prometheus(configuration: Configuration) -> dict[str, Any]:
    monitor = configuration.monitor
    open_services = [each for each in configuration.services if each.metrics_token is None and not each.pushes]
    jobs: list[dict[str, Any]] = [{"job_name": "exporter", "static_configs": [{"targets": [EXPORTER]}]}]
    if open_services:
        jobs.append({"job_name": "server", "static_configs": [_scraped(service) for service in open_services]})
    # credentials belong to a whole job, so a service with a token has one of its own, under the same label
    jobs += [_guarded(service, service.metrics_token) for service in configuration.services if service.metrics_token]
    jobs.append({"job_name": "prometheus", "static_configs": [{"targets": ["localhost:9090"]}]})
    jobs.append({"job_name": "alertmanager", "static_configs": [{"targets": [ALERTMANAGER]}]})
    jobs.append({"job_name": "notifier", "static_configs": [{"targets": [NOTIFIER]}]})
    return {
        "global": {
            "scrape_interval": format_promql_duration(monitor.scrape_interval),
            "scrape_timeout": format_promql_duration(monitor.scrape_timeout),
            "evaluation_interval": format_promql_duration(monitor.evaluation_interval),
        },
        "rule_files": [
            *(f"{RULES}/{name}.yml" for name in ("rules", "drift")),
            *(f"{RULES}/{own_folder(target)}/rules.yml" for target in own_targets(configuration)),
        ],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [ALERTMANAGER]}]}]},
        "scrape_configs": jobs,
    }


def _scraped(service: Service) -> dict[str, Any]:
    """Where Prometheus finds ``service``; a ``__`` label sets what else would need a job of its own."""
    parts = urlsplit(service.metrics_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    labels = {"service": service.name}
    if parts.scheme != "http":
        labels["__scheme__"] = parts.scheme
    if parts.path != "/metrics":
        labels["__metrics_path__"] = parts.path or "/"
    labels |= {f"__param_{name}": value for name, value in parse_qsl(parts.query)}
    return {"targets": [f"{host}:{port}"], "labels": labels}


def _guarded(service: Service, token: Secret) -> dict[str, Any]:
    return {
        "job_name": f"server-{service.name}",
        "authorization": {"credentials_file": alertmanager.secret_file(token)},
        "relabel_configs": [{"target_label": "job", "replacement": "server"}],
        "static_configs": [_scraped(service)],
    }


def _data_sources(configuration: Configuration) -> dict[str, Any]:
    interval = format_promql_duration(configuration.monitor.scrape_interval)
    source = {
        "name": "Prometheus",
        "uid": "anvil-monitor-prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": f"http://{PROMETHEUS}",
        "isDefault": True,
        "editable": False,
        "jsonData": {"httpMethod": "POST", "timeInterval": interval, "manageAlerts": False},
    }
    handler = {
        "name": "Alertmanager",
        "uid": "anvil-monitor-alertmanager",
        "type": "alertmanager",
        "access": "proxy",
        "url": f"http://{ALERTMANAGER}",
        "editable": False,
        "jsonData": {"implementation": "prometheus", "handleGrafanaManagedAlerts": False},
    }
    return {"apiVersion": 1, "prune": True, "datasources": [source, handler]}


def _board_provider() -> dict[str, Any]:
    provider = {
        "name": "anvil-monitor",
        "type": "file",
        "allowUiUpdates": False,
        "disableDeletion": True,
        "updateIntervalSeconds": 30,
        "options": {"path": BOARDS},
    }
    return {"apiVersion": 1, "providers": [provider]}


def _yaml(document: dict[str, Any]) -> str:
    return yamltext.dump(document, COMMENT)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", dir=path.parent, delete=False) as file:
        part = Path(file.name)
        try:
            file.write(text)
            part.chmod(0o644)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
