"""Generated files: fresh in this tree, byte-stable, accepted by the real checkers, and told apart when stale."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from anvil_monitor.monitoring import generate
from anvil_monitor.targets import Configuration, ConfigurationError
from anvil_monitor.targets.load import parse

ROOT = Path(__file__).parents[2]
TWO = """
[[service]]
name = "shop"
url = "https://shop.example:8443/base"
metrics = "https://shop.example/internal/metrics?full=1"
metrics_token = "env:SHOP-TOKEN"
[[service]]
name = "blog"
url = "http://127.0.0.1:8001"
""".replace("SHOP-TOKEN", "SHOP_TOKEN")


@pytest.fixture(scope="module")
def configuration() -> Configuration:
    return generate.bundle_configuration()


def test_the_committed_files_are_fresh(configuration: Configuration) -> None:
    """What is committed is what `anvil-monitor generate` writes now."""
    assert generate.check(ROOT, configuration) == []


def test_generating_twice_gives_the_same_bytes(configuration: Configuration) -> None:
    """The same configuration gives the same bytes, in the order of the paths."""
    first = generate.files(configuration)
    assert first == generate.files(generate.bundle_configuration())
    assert list(first) == sorted(first)


def test_only_what_is_stale_is_written(tmp_path: Path, configuration: Configuration) -> None:
    """A first run writes everything, a second nothing, and a touched-up file is named and put right."""
    assert generate.write(tmp_path, configuration) == list(generate.files(configuration))
    assert generate.write(tmp_path, configuration) == []
    rules = tmp_path / "alerts/generated/rules.yml"
    rules.write_text(rules.read_text(encoding="utf-8") + "# by hand\n", encoding="utf-8")
    (tmp_path / "dashboards/generated/targets.json").unlink()
    stale = ["alerts/generated/rules.yml", "dashboards/generated/targets.json"]
    assert generate.check(tmp_path, configuration) == stale
    assert generate.write(tmp_path, configuration) == stale
    assert generate.check(tmp_path, configuration) == []
    assert [path.name for path in rules.parent.iterdir() if path.suffix != ".yml"] == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, configuration: Configuration) -> None:
    """A file where a folder must be is an error that names the path; nothing half-written is left."""
    (tmp_path / "alerts").write_text("in the way", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"alerts/generated/drift.yml: cannot be written"):
        generate.write(tmp_path, configuration)


def test_services_are_scraped_as_they_are_configured() -> None:
    """Scheme, path, parameters and token of a service arrive in Prometheus's file, all under job `server`."""
    text = generate.files(parse(TWO, None, {}))["monitoring/prometheus/prometheus.yml"]
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert jobs["server"]["static_configs"] == [{"targets": ["127.0.0.1:8001"], "labels": {"service": "blog"}}]
    guarded = jobs["server-shop"]
    assert guarded["authorization"] == {"credentials_file": "/run/secrets/shop_token"}
    assert guarded["relabel_configs"] == [{"target_label": "job", "replacement": "server"}]
    assert guarded["static_configs"] == [
        {
            "targets": ["shop.example:443"],
            "labels": {
                "service": "shop",
                "__scheme__": "https",
                "__metrics_path__": "/internal/metrics",
                "__param_full": "1",
            },
        }
    ]
    assert set(jobs) == {"exporter", "server", "server-shop", "prometheus", "alertmanager", "notifier"}


def test_no_secret_is_in_a_generated_file() -> None:
    """Generated files are committed: they name files of secrets and hold none, even when the secret is at hand."""
    os.environ["SHOP_TOKEN"] = "hush-hush-7719"
    try:
        texts = generate.files(parse(TWO, None, dict(os.environ))).values()
    finally:
        del os.environ["SHOP_TOKEN"]
    assert not any("hush-hush-7719" in text for text in texts)


OWN = '[targets.queue]\nkind = "gauge"\nmetric = "jobs_waiting"\nat_most = 100\n'


@pytest.mark.needs("promtool", "amtool")
@pytest.mark.parametrize("text", ["", TWO + OWN], ids=["the bundle", "two services and a target of one's own"])
def test_prometheus_and_alertmanager_accept_the_files(tmp_path: Path, text: str) -> None:
    """promtool and amtool find nothing wrong with the files, and the committed rules pass their own tests."""
    configuration = parse(text, None, {}) if text else generate.bundle_configuration()
    generate.write(tmp_path, configuration)
    config = tmp_path / "monitoring/prometheus/prometheus.yml"
    rules = tmp_path / "alerts/generated/rules.yml"
    # in a container the rules lie elsewhere; here promtool must find them to check them
    config.write_text(config.read_text().replace(generate.RULES, str(rules.parent)))
    listed = yaml.safe_load(config.read_text())["rule_files"]
    assert len(listed) == 2 + 2 * ("targets.queue" in text)
    tests = [["promtool", "test", "rules", str(rules.with_name(f"{name}_test.yml"))] for name in ("rules", "drift")]
    for command in (
        ["promtool", "check", "config", "--syntax-only", str(config)],
        ["promtool", "check", "rules", "--lint-fatal", *listed],
        ["amtool", "check-config", str(tmp_path / "monitoring/alertmanager/alertmanager.yml")],
        *([] if text else tests),
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, f"{command[:3]}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
