"""The containers have the settings of `make up`, read secrets from files, are confined, and publish ports on loopback
unless a setting says otherwise.
"""

import base64
import hashlib
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.settings.api import ApiSettings
from bridge.settings.group import variable
from bridge.settings.local import ComposeSettings
from local import replica, secrets
from local.postgres import LOGINS, SETTINGS
from mosquitto import provisioning
from mosquitto.directory import Directory
from tests.grafana import DASHBOARDS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def secrets_of(service: str) -> dict[str, str]:
    """Each file below /run/secrets of the service's containers, and which of the secrets it is."""
    listed = SERVICES[service].get("secrets", [])
    return dict((s, s) if isinstance(s, str) else (s["target"], s["source"]) for s in listed)


def test_every_image_has_an_exact_version() -> None:
    bases = re.findall(r"^FROM (\S+)(?: AS \w+)?$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    images = {*bases, *(service["image"] for service in SERVICES.values() if "build" not in service)}
    monitoring = {"prom/prometheus", "prom/alertmanager", "prom/node-exporter", "grafana/grafana"}
    assert {image.split(":")[0] for image in images} == {"python", "node", "postgres", "eclipse-mosquitto", *monitoring}
    # PostgreSQL's versions have two numbers.
    assert all(re.fullmatch(r"postgres:\d+\.\d+|[a-z/-]+:v?\d+\.\d+\.\d+(-slim)?", image) for image in images)


def test_provisioning_works_on_the_files_that_the_secrets_command_makes(tmp_path: Path) -> None:
    source, target = SERVICES["provision"]["volumes"][0].split(":")
    assert SERVICES["provision"]["environment"] == {"FLEET_MOSQUITTO_DIR": target}
    assert SERVICES["provision"]["command"][0] == "mosquitto"
    made = secrets.make(tmp_path / "secrets").parent / source
    assert (made / "registry.sqlite").is_file()
    assert (made / "ca.key").is_file()


_IN_CONTAINERS = {
    **SETTINGS,
    # Loopback inside a container would be out of reach; who may connect is said by `ports`, network and this file.
    "listen_addresses": "*",
    "hba_file": "/run/fleet/pg_hba.conf",
    # Compose cannot ask how much memory there is.
    "shared_buffers": "${FLEET_POSTGRES_SHARED_BUFFERS:-512MB}",
}


def test_postgres_has_the_settings_of_the_local_one() -> None:
    options = dict(o.removeprefix("-c").split("=", 1) for o in SERVICES["postgres"]["command"] if o.startswith("-c"))
    assert options == {**_IN_CONTAINERS, **replica.OF_PRIMARY}


def test_replica_has_the_settings_of_the_local_one_and_the_primary_accepts_it() -> None:
    made = SERVICES["replica"]
    assert made["profiles"] == ["replica"]
    options = dict(o.removeprefix("-c").split("=", 1) for o in made["command"])
    assert options == {**_IN_CONTAINERS, **replica.SETTINGS}
    assert made["image"] == SERVICES["postgres"]["image"]
    assert made["environment"]["PGHOST"] == "postgres"
    mounts = {there: ROOT / here for here, there, *_ in (str(v).split(":") for v in made["volumes"]) if here[0] == "."}
    assert made["entrypoint"][:2] == ["sh", "/run/fleet/replica.sh"]
    assert all(path.is_file() for path in mounts.values())
    assert f"host  replication {made['environment']['PGUSER']} " in mounts[options["hba_file"]].read_text()
    assert "fleet_read_database_url" in secrets_of("api")


def test_mosquitto_runs_with_our_configuration_and_the_files_of_provisioning(tmp_path: Path) -> None:
    mounts = dict(str(volume).split(":")[:2] for volume in SERVICES["mosquitto"]["volumes"])
    script = SERVICES["mosquitto"]["command"][-1]
    assert script.endswith(f"mosquitto -c {mounts['./mosquitto/mosquitto.conf']}")
    assert f"sh {mounts['./mosquitto/install.sh']}" in script
    install = (ROOT / "mosquitto" / "install.sh").read_text()
    assert f"{mounts['./secrets/mosquitto/broker']}/* /mosquitto/config/" in install
    made = {path.name for path in (secrets.make(tmp_path / "secrets") / "mosquitto" / "broker").iterdir()}
    conf = (ROOT / "mosquitto" / "mosquitto.conf").read_text().splitlines()
    read = {Path(line.split()[1]).name for line in conf if " /mosquitto/config/" in line and not line.startswith("#")}
    assert made == read
    location = next(line.split()[1] for line in conf if line.startswith("persistence_location"))
    assert mounts["mosquitto"] == location.rstrip("/")


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_published_on_loopback_by_default(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        address = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port).rsplit(":", 2)[0]
        assert address == "127.0.0.1"


def test_only_what_devices_and_clients_reach_can_be_published_elsewhere() -> None:
    published = {
        service: {port.split(":")[0].removeprefix("${") for port in SERVICES[service].get("ports", [])}
        for service in SERVICES
    }
    elsewhere = {service: names - {"127.0.0.1"} for service, names in published.items() if names - {"127.0.0.1"}}
    assert elsewhere == {"mosquitto": {"FLEET_MQTT_ADDRESS", "FLEET_MQTT_TLS_ADDRESS"}, "api": {"FLEET_HTTP_ADDRESS"}}


def test_limits_of_devices_are_those_of_the_published_tls_listeners() -> None:
    rules = (ROOT / "mosquitto" / "device-rate.nft").read_text()
    published = re.findall(r"FLEET_MQTT_TLS_ADDRESS.*:-(\d+)\}:(\d+)", "\n".join(SERVICES["mosquitto"]["ports"]))
    assert all(outside == inside for outside, inside in published)
    assert f"elements = {{ {', '.join(outside for outside, _ in published)} }}" in rules


_OF_POSTGRES = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
CAPABILITIES = {
    "postgres": _OF_POSTGRES,
    "replica": _OF_POSTGRES,
    "mosquitto": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"},
}
"""What the images need that start as root and become their own user."""


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_confined(service: str) -> None:
    made = SERVICES[service]
    assert made["read_only"] is True
    assert made["cap_drop"] == ["ALL"]
    assert set(made.get("cap_add", [])) == CAPABILITIES.get(service, set())
    assert made["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in made["tmpfs"]
    assert "privileged" not in made
    assert not any("docker.sock" in str(volume) for volume in made.get("volumes", []))


@pytest.mark.parametrize("service", SERVICES)
def test_service_has_limits(service: str) -> None:
    made = SERVICES[service]
    assert re.fullmatch(r"\d+[mg]|\$\{FLEET_\w+_MEMORY:-\d+g\}", made["mem_limit"])
    assert 64 <= made["pids_limit"] <= 256
    # A limit above the number of the machine's CPUs would be refused, and no program but PostgreSQL needs two.
    assert made["cpus"] == ("${FLEET_POSTGRES_CPUS:-0}" if service in ("postgres", "replica") else 1)
    options = made["logging"]["options"]
    assert made["logging"]["driver"] == "json-file"
    assert int(options["max-size"].removesuffix("m")) * int(options["max-file"]) <= 100


def test_limits_fit_what_runs_in_them() -> None:
    conf = dict(
        line.split(maxsplit=1)
        for line in (ROOT / "mosquitto" / "mosquitto.conf").read_text().splitlines()
        if line and not line.startswith("#")
    )
    limit = int(ComposeSettings.model_fields["mosquitto_memory"].default.removesuffix("g")) * 2**30
    assert limit > int(conf["max_queued_bytes"])
    listeners = (ROOT / "mosquitto" / "mosquitto.conf").read_text().splitlines()
    most = sum(int(line.split()[1]) for line in listeners if line.startswith("max_connections "))
    assert SERVICES["mosquitto"]["ulimits"]["nofile"] > most
    assert SERVICES["postgres"]["pids_limit"] > int(SETTINGS["max_connections"]) + 50
    clients = int(ApiSettings.model_fields["http_max_connections"].default)
    assert SERVICES["api"]["ulimits"]["nofile"] > 2 * clients


NETWORKS = {
    "database": {"postgres", "replica", "logins", "migrate", "analyst", "bridge", "keeper", "api", "grafana"},
    "broker": {"mosquitto", "bridge", "keeper", "simulator"},
    "clients": {"api", "simulator"},
    "monitoring": {"bridge", "keeper", "api", "prometheus", "alertmanager", "node-exporter", "grafana"},
}


def test_service_reaches_only_those_that_it_works_with() -> None:
    assert COMPOSE["networks"].keys() == NETWORKS.keys()
    members = {name: {s for s in SERVICES if name in SERVICES[s].get("networks", [])} for name in NETWORKS}
    assert members == NETWORKS
    alone = {service for service in SERVICES if not SERVICES[service].get("networks")}
    assert alone == {"provision"}
    assert SERVICES["provision"]["network_mode"] == "none"


@pytest.mark.parametrize("service", SERVICES)
def test_service_shares_a_network_with_what_it_waits_for(service: str) -> None:
    own = set(SERVICES[service].get("networks", []))
    for other in SERVICES[service].get("depends_on", {}):
        assert own & set(SERVICES[other]["networks"])


def test_bridge_listener_is_not_published() -> None:
    assert not [port for port in SERVICES["mosquitto"]["ports"] if port.endswith(":1884")]


@pytest.mark.parametrize("service", SERVICES)
def test_service_restarts_and_has_a_health_check_where_it_serves(service: str) -> None:
    assert SERVICES[service]["restart"] in ("unless-stopped", "on-failure")
    assert ("healthcheck" in SERVICES[service]) == ("ports" in SERVICES[service])


def test_variables_and_their_defaults_are_the_settings() -> None:
    used = set(re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "docker-compose.yml").read_text()))
    assert used == {(variable(name), str(field.default)) for name, field in ComposeSettings.model_fields.items()}


def test_published_ports_are_those_on_which_the_programs_listen() -> None:
    for service, setting in (("api", "http_port"), ("bridge", "bridge_http_port"), ("keeper", "keeper_http_port")):
        default = ComposeSettings.model_fields[setting].default
        address = "${FLEET_HTTP_ADDRESS:-127.0.0.1}" if service == "api" else "127.0.0.1"
        assert SERVICES[service]["ports"] == [f"{address}:${{{variable(setting)}:-{default}}}:{default}"]


def test_secrets_command_makes_every_file_that_compose_mounts(tmp_path: Path) -> None:
    directory = secrets.make(tmp_path / "secrets")
    mounted = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert mounted == {path.name for path in directory.iterdir() if path.is_file()}
    assert {source for name in SERVICES for source in secrets_of(name).values()} == COMPOSE["secrets"].keys()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_secrets_command_adds_the_names_of_the_broker_to_its_certificate(tmp_path: Path) -> None:
    broker = Directory(secrets.make(tmp_path) / "mosquitto")
    assert provisioning.server_hosts(broker) == ["localhost", "mosquitto", "127.0.0.1"]
    before = broker.ca_certificate.read_bytes()
    secrets.make(tmp_path, ["mqtt.example.org", "192.0.2.7"])
    every = ["localhost", "mosquitto", "mqtt.example.org", "127.0.0.1", "192.0.2.7"]
    assert provisioning.server_hosts(broker) == every
    certificate = broker.server_certificate.read_bytes()
    secrets.make(tmp_path, ["mqtt.example.org"])
    assert broker.server_certificate.read_bytes() == certificate
    assert broker.ca_certificate.read_bytes() == before


def test_secrets_command_keeps_what_is_there(tmp_path: Path) -> None:
    (secrets.make(tmp_path) / "fleet_api_key").write_text("made later")
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in ("", ".json", ".key", ".crt")]
    kept = [path for path in kept if path.parent.name != "broker" or path.name.startswith(("ca", "server"))]
    first = {path: path.read_text() for path in kept}
    secrets.make(tmp_path)
    assert {path: path.read_text() for path in kept} == first
    assert len(kept) == 20


def test_secrets_command_adds_what_an_earlier_version_did_not_make(tmp_path: Path) -> None:
    secrets.make(tmp_path)
    kept = {path: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    for path in kept:
        if path.name.endswith(("_bridge", "_api")):
            path.unlink()
    secrets.make(tmp_path)
    now = {path: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert now.keys() == kept.keys()
    assert {path.name for path in kept if now[path] != kept[path]} == {
        f"{name}_{login}" for name in ("postgres_password", "fleet_database_url") for login in LOGINS
    }


@pytest.mark.parametrize(
    ("service", "login"), [("migrate", "fleet"), ("bridge", "bridge"), ("keeper", "bridge"), ("api", "api")]
)
def test_each_program_has_its_login(tmp_path: Path, service: str, login: str) -> None:
    directory = secrets.make(tmp_path)
    url = (directory / secrets_of(service)["fleet_database_url"]).read_text()
    password = (directory / ("postgres_password" if login == "fleet" else f"postgres_password_{login}")).read_text()
    assert url == f"postgresql://{login}:{password}@postgres:5432/fleet"


def test_owner_and_superuser_are_for_migrations_and_logins_only() -> None:
    assert [name for name in SERVICES if "fleet_database_url" in secrets_of(name).values()] == ["migrate", "analyst"]
    assert [name for name in SERVICES if "postgres_password" in secrets_of(name).values()] == [
        *("postgres", "logins", "replica")
    ]


def test_logins_are_there_before_the_migration_and_that_before_the_programs() -> None:
    done = "service_completed_successfully"
    assert SERVICES["migrate"]["depends_on"] == {"logins": {"condition": done}}
    assert all(SERVICES[name]["depends_on"]["migrate"] == {"condition": done} for name in ("bridge", "keeper", "api"))
    mounts = [str(volume).split(":")[0] for volume in SERVICES["logins"]["volumes"]]
    assert all((ROOT / mount).is_file() for mount in mounts)
    script, directory = SERVICES["logins"]["command"][1:]
    assert directory == "/run/secrets"
    assert script in {str(volume).split(":")[1] for volume in SERVICES["logins"]["volumes"]}


def test_broker_password_file_fits_the_urls(tmp_path: Path) -> None:
    directory = secrets.make(tmp_path)
    lines = (directory / "mosquitto" / "broker" / "passwords").read_text().splitlines()
    urls = [(directory / f"fleet_{name}").read_text() for name in ("bridge_mqtt_url", "mqtt_url")]
    assert [line.partition(":")[0] for line in lines] == ["bridge", "gateway", "provisioner"]
    for line, url in zip(lines, urls, strict=False):
        user, password = url.removeprefix("mqtt://").split("@")[0].split(":")
        name, _, rest = line.partition(":")
        _, _, iterations, salt, digest = rest.strip().split("$")
        expected = hashlib.pbkdf2_hmac("sha512", password.encode(), base64.b64decode(salt), int(iterations))
        assert (name, base64.b64decode(digest)) == (user, expected)


def test_no_secret_is_in_a_container_s_environment() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            secret = any(word in name for word in ("PASSWORD", "KEY", "DATABASE_URL", "MQTT_URL"))
            assert name.endswith("_FILE") or not secret
            assert "@" not in str(value)


# -- the profile `monitoring`


def mounted(service: str) -> dict[str, Path]:
    """What of the repository the service's containers have, by their paths."""
    volumes = [str(volume).split(":") for volume in SERVICES[service]["volumes"]]
    return {there: ROOT / here for here, there, *_ in volumes if here.startswith("./")}


def test_monitoring_starts_on_request_only() -> None:
    started = {name for name, service in SERVICES.items() if "monitoring" in service.get("profiles", ())}
    assert started == {"analyst", "node-exporter", "prometheus", "alertmanager", "grafana"}
    assert all(path.exists() for name in ("prometheus", "alertmanager", "grafana") for path in mounted(name).values())


def test_prometheus_reads_every_program_on_its_port_with_the_key_that_it_has() -> None:
    config = yaml.safe_load(mounted("prometheus")["/etc/prometheus/prometheus.yml"].read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    targets = {name: target for name, job in jobs.items() for c in job["static_configs"] for target in c["targets"]}
    published = {name: f"{name}:{SERVICES[name]['ports'][0].rsplit(':', 1)[1]}" for name in ("bridge", "keeper", "api")}
    assert targets == {f"fleet-{name}": at for name, at in published.items()} | {"node": "node-exporter:9100"}
    key = Path(jobs["fleet-api"]["authorization"]["credentials_file"])
    assert key.parent == Path("/run/secrets")
    assert key.name in secrets_of("prometheus")
    (to,) = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert to == f"alertmanager:{SERVICES['alertmanager']['ports'][0].rsplit(':', 1)[1]}"
    directory = Path("/etc/prometheus")
    assert {str(directory / name) for name in config["rule_files"]} <= mounted("prometheus").keys()


def test_grafana_has_the_sources_that_its_dashboards_choose_first() -> None:
    provisioning = mounted("grafana")["/etc/grafana/provisioning"]
    sources = yaml.safe_load((provisioning / "datasources" / "fleet.yml").read_text())["datasources"]
    found = {(source["type"], source["uid"]) for source in sources}
    for dashboard in DASHBOARDS.values():
        variables = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
        assert {(v["query"], v["current"]["value"]) for v in variables} == found
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "fleet.yml").read_text())["providers"]
    assert provider["options"]["path"] in mounted("grafana")


def test_grafana_reads_the_database_with_the_login_that_is_made_for_it() -> None:
    sources = (mounted("grafana")["/etc/grafana/provisioning"] / "datasources" / "fleet.yml").read_text()
    database, prometheus = yaml.safe_load(sources)["datasources"]
    program, command, _, name, _, password_file = SERVICES["analyst"]["command"]
    assert (program, command, name) == ("bridge", "migrate", database["user"])
    assert database["secureJsonData"]["password"] == f"$__file{{{password_file}}}"
    for service in ("analyst", "grafana"):
        assert Path(password_file).name in secrets_of(service)
    assert "postgres_password_grafana" not in secrets_of("api")
    assert prometheus["url"] == "http://prometheus:9090"
    assert SERVICES["grafana"]["depends_on"] == {"analyst": {"condition": "service_completed_successfully"}}


def test_image_copies_only_what_docker_may_see() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    shown = {line[1:] for line in ignored if line.startswith("!")}
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if "--from=" not in line]
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1] if word[:2] != "--"}
    assert copied == shown
    assert all((ROOT / path).exists() for path in copied)
    assert any(line.startswith("USER 10001") for line in lines)
