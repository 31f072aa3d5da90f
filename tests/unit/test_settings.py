"""A setting that is wrong stops the start with its name and the reason."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bridge.settings import Settings
from mosquitto import authority


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", "many"),
        ("bridge_name", "a/b"),
        ("bridge_client_id", "a b"),
        ("bridge_http_port", "70000"),
        ("log_level", "loud"),
        ("receive_maximum", "0"),
        ("receive_maximum", "65536"),
        ("stall_s", "0"),
        ("bridge_mqtt_url", "http://127.0.0.1"),
        ("bridge_mqtt_url", "127.0.0.1:1884"),
        ("bridge_mqtt_url", "mqtt://"),
        ("bridge_mqtt_url", "mqtt://127.0.0.1:port"),
        ("bridge_mqtt_url", "mqtt://127.0.0.1:70000"),
        ("mqtt_ca_file", "/nowhere/ca.pem"),
        ("mqtt_ca_file", __file__),
        ("mqtt_ca_file", "/"),
        ("database_url", "postgresql://db.example/fleet?sslmode=verify-full&sslrootcert=/nowhere/ca.pem"),
        ("database_url", f"postgresql://db.example/fleet?sslmode=verify-full&sslrootcert={__file__}"),
        ("database_url", "nonsense"),
        ("database_url", "mysql://127.0.0.1/fleet"),
        ("database_url", "postgresql://127.0.0.1:port/fleet"),
        ("database_url", "postgresql://one:5432,two:port/fleet"),
    ],
)
def test_wrong_setting_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings.model_validate({name: value})
    assert [problem["loc"] for problem in refusal.value.errors()] == [(name,)]


def test_certificate_of_a_ca_is_taken(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.create()[1])
    url = f"postgresql://db.example/fleet?sslmode=verify-full&sslrootcert={ca}"
    assert Settings.model_validate({"mqtt_ca_file": str(ca), "database_url": url}).mqtt_ca_file == ca


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bridge_mqtt_url", "mqtts://user:p%40ss@broker.example"),
        ("bridge_mqtt_url", "mqtt://[::1]:1884"),
        ("database_url", "postgres://fleet:secret@[::1]:5432/fleet"),
        ("database_url", "postgresql://fleet@one:5432,two:5433/fleet?target_session_attrs=read-write"),
        ("database_url", "postgresql:///fleet?host=/run/postgresql"),
    ],
)
def test_right_setting_is_taken(name: str, value: object) -> None:
    assert getattr(Settings.model_validate({name: value}), name) == value
