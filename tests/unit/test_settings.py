"""A program reads the settings that it composes: a wrong one of them is named, any other does not matter."""

from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from bridge.settings.api import ApiSettings
from bridge.settings.bridge import BridgeSettings
from bridge.settings.group import RENAMED, Group, problems, variable
from bridge.settings.mqtt import MqttSettings
from bridge.settings.names import known, nearest
from bridge.settings.programs import PROGRAMS
from bridge.sources import SOURCES
from mosquitto import authority


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (BridgeSettings, "batch_size", "many"),
        (BridgeSettings, "bridge_name", "a/b"),
        (BridgeSettings, "bridge_http_port", "70000"),
        (BridgeSettings, "log_level", "loud"),
        (BridgeSettings, "stall_timeout_s", "0"),
        (BridgeSettings, "database_url", "postgresql://x/fleet?sslmode=verify-full&sslrootcert=/nowhere/ca.pem"),
        (BridgeSettings, "database_url", f"postgresql://x/fleet?sslmode=verify-full&sslrootcert={__file__}"),
        (BridgeSettings, "database_url", "nonsense"),
        (BridgeSettings, "database_url", "mysql://127.0.0.1/fleet"),
        (BridgeSettings, "database_url", "postgresql://127.0.0.1:port/fleet"),
        (BridgeSettings, "database_url", "postgresql://one:5432,two:port/fleet"),
        (BridgeSettings, "database_url", "postgresql://127.0.0.1/fleet?sslmode=wrong"),
        (BridgeSettings, "database_url", "postgresql://127.0.0.1/fleet?target_session_attrs=wrong"),
        (BridgeSettings, "database_url", "postgresql://127.0.0.1/fleet?sslmode"),
        (BridgeSettings, "database_url", "postgresql://127.0.0.1/fleet "),
        (BridgeSettings, "database_url", "postgresql://127.0.0.1/fleet\n"),
        (MqttSettings, "bridge_client_id", "a b"),
        (MqttSettings, "mqtt_receive_maximum", "0"),
        (MqttSettings, "mqtt_receive_maximum", "65536"),
        (MqttSettings, "bridge_mqtt_url", "http://127.0.0.1"),
        (MqttSettings, "bridge_mqtt_url", "127.0.0.1:1884"),
        (MqttSettings, "bridge_mqtt_url", "mqtt://"),
        (MqttSettings, "bridge_mqtt_url", "mqtt://127.0.0.1:port"),
        (MqttSettings, "bridge_mqtt_url", "mqtt://127.0.0.1:70000"),
        (MqttSettings, "bridge_mqtt_url", "mqtt://127.0.0.1:0"),
        (MqttSettings, "bridge_mqtt_url", "mqtt://one,two"),
        (MqttSettings, "bridge_mqtt_url", "mqtt://127.0.0.1/path"),
        (MqttSettings, "bridge_mqtt_url", "mqtt://127.0.0.1 "),
        (MqttSettings, "mqtt_ca_file", "/nowhere/ca.pem"),
        (MqttSettings, "mqtt_ca_file", __file__),
        (MqttSettings, "mqtt_ca_file", "/"),
        (ApiSettings, "query_pool_size", "0"),
    ],
)
def test_wrong_setting_is_refused_by_its_name(kind: type[Group], name: str, value: str) -> None:
    assert refusal(kind, {variable(name): value}).startswith(f"{variable(name)}: ")


@pytest.mark.parametrize(
    "password", ["s3cr/etpart", "12/34s3cr", "s3cr[part", "s3cr]", "s3cr@part", "s3cr#part", "1#s3cr"]
)
@pytest.mark.parametrize(
    ("kind", "name", "url"),
    [
        (MqttSettings, "bridge_mqtt_url", "mqtt://user:{}@127.0.0.1:1"),
        (BridgeSettings, "database_url", "postgresql://user:{}@127.0.0.1:1/fleet"),
    ],
)
def test_password_that_is_not_encoded_is_refused_and_not_shown(
    kind: type[Group], name: str, url: str, password: str
) -> None:
    said = refusal(kind, {variable(name): url.format(password)})
    assert "s3cr" not in said
    assert "must be percent-encoded" in said
    assert kind.read({variable(name): url.format(quote(password, safe=""))})


def refusal(kind: type[Group], environ: dict[str, str]) -> str:
    """What a program says of this environment; a line."""
    with pytest.raises(ValidationError) as raised:
        kind.read(environ)
    said = problems(raised.value, environ)
    assert len(said.splitlines()) == 1
    return said


def test_certificate_of_a_ca_is_taken(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.create()[1])
    url = f"postgresql://db.example/fleet?sslmode=verify-full&sslrootcert={ca}"
    assert MqttSettings.read({"FLEET_MQTT_CA_FILE": str(ca)}).mqtt_ca_file == ca
    assert BridgeSettings.read({"FLEET_DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (MqttSettings, "bridge_mqtt_url", "mqtts://user:p%40ss@broker.example"),
        (MqttSettings, "bridge_mqtt_url", "mqtt://[::1]:1884"),
        (BridgeSettings, "database_url", "postgres://fleet:secret@[::1]:5432/fleet"),
        (BridgeSettings, "database_url", "postgresql://fleet@one:5432,two:5433/fleet?target_session_attrs=read-write"),
        (BridgeSettings, "database_url", "postgresql:///fleet?host=/run/postgresql"),
    ],
)
def test_right_setting_is_taken(kind: type[Group], name: str, value: str) -> None:
    assert getattr(kind.read({variable(name): value}), name) == value
    assert kind.read({variable(name).lower(): value}) == kind()


@pytest.mark.parametrize("program", PROGRAMS)
def test_empty_variable_is_not_set(program: str) -> None:
    for kind in PROGRAMS[program]:
        assert kind.read({variable(name): "" for name in kind.model_fields}) == kind()


@pytest.mark.parametrize("program", PROGRAMS)
def test_setting_of_another_program_never_stops_a_program(program: str) -> None:
    for kind in PROGRAMS[program]:
        foreign = known() - kind.model_fields.keys()
        assert kind.read({variable(name): "\x00 wrong everywhere" for name in foreign}) == kind()


def test_settings_of_every_source_are_those_of_the_program() -> None:
    assert {kind.settings for kind in SOURCES.values()} == set(PROGRAMS["bridge run"]) - {BridgeSettings}


def test_bridge_and_its_source_compose_apart() -> None:
    shared = BridgeSettings.model_fields.keys() & MqttSettings.model_fields.keys()
    assert shared == {"bridge_name", "stall_timeout_s"}
    assert {"bridge_mqtt_url", "mqtt_ca_file"} <= MqttSettings.model_fields.keys()


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_name_of_a_setting_still_works(old: str, new: str) -> None:
    kinds = [kind for kinds in PROGRAMS.values() for kind in kinds if new in kind.model_fields]
    assert kinds
    assert old not in known()
    for kind in kinds:
        assert getattr(kind.read({variable(old): "7000"}), new) == 7000
        assert getattr(kind.read({variable(old): "7000", variable(new): "8000"}), new) == 8000
        assert refusal(kind, {variable(old): "many"}).startswith(f"{variable(old)}: ")
        assert refusal(kind, {variable(old): "7000", variable(new): "many"}).startswith(f"{variable(new)}: ")


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [("batchsize", "batch_size"), ("htp_port", "http_port"), ("mosquito_dir", "mosquitto_dir"), ("zzzzzzzz", None)],
)
def test_nearest_known_name_is_found(mistyped: str, meant: str | None) -> None:
    assert nearest(mistyped) == meant
