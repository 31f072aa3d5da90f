"""The rules, the configuration of Prometheus and that of Alertmanager, by promtool and amtool."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from local.alarms_page import alarms
from tests.grafana import MONITORING
from tests.prometheus import run

BROKEN = {
    "FleetBridgeLeader": "sum(fleet_bridge_leader) != 1",
    "FleetKeeperLeader": "sum(fleet_keeper_leader) != 1",
    "FleetBridgeNotReady": 'max(fleet_ready{job="fleet-bridge"}) < 1',
    "FleetBrokerSessionLost": "increase(fleet_mqtt_session_lost_total[1h]) > 0",
    "FleetBrokerDropsMessages": "delta(fleet_broker_dropped_messages[10m]) > 0",
}
"""Expressions that are obvious and wrong: empty when a metric is absent, or blind to a counter that starts at 1."""


def failures(directory: Path, rules: str) -> str:
    """What promtool says about these rules, with the shipped tests; empty if they pass."""
    shutil.copy(MONITORING / "rules_test.yml", directory)
    (directory / "rules.yml").write_text(rules)
    result = run("promtool", "test", "rules", directory / "rules_test.yml")
    return result.stdout + result.stderr if result.returncode else ""


def test_alarms_are_raised_in_their_case_and_not_otherwise(tmp_path: Path) -> None:
    assert failures(tmp_path, (MONITORING / "rules.yml").read_text()) == ""


def changed(expressions: Mapping[str, str]) -> str:
    """The rules with these expressions instead."""
    rules = yaml.safe_load((MONITORING / "rules.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = expressions.get(rule["alert"], rule["expr"])
    return yaml.safe_dump(rules)


def test_obvious_expressions_do_not_pass(tmp_path: Path) -> None:
    found = failures(tmp_path, changed(BROKEN))
    assert [name for name in BROKEN if f"alertname: {name}" not in found and f'"{name}"' not in found] == []


@pytest.mark.parametrize("expression", ["vector(1)", "vector(1) < 0"])
def test_no_alarm_passes_that_is_always_or_never_raised(expression: str, tmp_path: Path) -> None:
    """Each alarm has a case in which it is raised, and one in which it is not."""
    names = [alarm.name for alarm in alarms()]
    found = failures(tmp_path, changed(dict.fromkeys(names, expression)))
    assert [name for name in names if name not in found] == []


def test_rules_and_configuration_are_valid(tmp_path: Path) -> None:
    assert run("promtool", "check", "rules", "--lint=all", "--lint-fatal", MONITORING / "rules.yml").returncode == 0
    shutil.copy(MONITORING / "rules.yml", tmp_path)
    (tmp_path / "key").touch()
    config = (MONITORING / "prometheus.yml").read_text()
    here = config.replace("/run/secrets/fleet_prometheus_api_key", str(tmp_path / "key"))
    assert here != config
    (tmp_path / "prometheus.yml").write_text(here)
    result = run("promtool", "check", "config", "--lint=all", "--lint-fatal", tmp_path / "prometheus.yml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_alertmanager_accepts_its_example() -> None:
    result = run("amtool", "check-config", MONITORING / "alertmanager.yml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("severity", "receivers"), [("critical", "webhook,mail"), ("warning", "mail")])
def test_critical_alarms_go_to_the_webhook_too(severity: str, receivers: str) -> None:
    file = f"--config.file={MONITORING / 'alertmanager.yml'}"
    result = run("amtool", "config", "routes", "test", file, "alertname=FleetBridgeLeader", f"severity={severity}")
    assert result.stdout.strip() == receivers


def test_inhibition_names_alarms_that_exist() -> None:
    config = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())
    named = {m for rule in config["inhibit_rules"] for side in rule.values() for m in side}
    assert named <= {f"alertname = {alarm.name}" for alarm in alarms()}
