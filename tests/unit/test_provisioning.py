"""The provisioning operations, without a broker: atomic, with private files, every credential registered."""

import json
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from typer.testing import CliRunner

from mosquitto import provisioning, registry
from mosquitto.cli import app
from mosquitto.device import BadDevice, device, read_csv
from mosquitto.directory import Directory

LIFE = timedelta(days=1)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """The command line sends the logs to the stderr of its test, which is closed after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def place(tmp_path: Path) -> Directory:
    """A new CA."""
    directory = Directory(tmp_path / "fleet")
    provisioning.initialise(directory, ["localhost", "127.0.0.1"])
    return directory


def run(place: Directory, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["device", *arguments, "--dir", str(place.root)])
    return result.exit_code, result.output


def test_everything_is_private(place: Directory) -> None:
    run(place, "add", "EV_1", "--kind", "vehicle")
    run(place, "add", "M_1", "--kind", "meter", "--password")
    for path in [place.root, *place.root.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_ca_is_made_once(place: Directory) -> None:
    before = {path: path.read_bytes() for path in (place.ca_key, place.ca_certificate, place.root / "accounts.json")}
    assert provisioning.initialise(place, ["elsewhere"]) is False
    assert {path: path.read_bytes() for path in before} == before


def test_certificate_names_kind_and_id_and_its_serial_is_known(place: Directory) -> None:
    code, output = run(place, "add", "EV_1", "--kind", "vehicle")
    assert code == 0
    assert str(place.root / "devices" / "vehicle" / "EV_1") in output
    pem = (place.credentials("vehicle/EV_1") / "device.crt").read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.subject.rfc4514_string() == "CN=vehicle/EV_1"
    run(place, "revoke", "EV_1")
    crl = x509.load_pem_x509_crl((place.broker / "crl.pem").read_bytes())
    assert [entry.serial_number for entry in crl] == [certificate.serial_number]
    assert crl.next_update_utc == x509.load_pem_x509_certificate(place.ca_certificate.read_bytes()).not_valid_after_utc


def test_password_is_kept_as_a_hash_only(place: Directory) -> None:
    run(place, "add", "M_1", "--kind", "meter", "--password")
    password = (place.credentials("meter/M_1") / "password").read_bytes()
    assert password not in place.registry.read_bytes() + (place.broker / "passwords").read_bytes()
    assert "\nmeter/M_1:$7$" in (place.broker / "passwords").read_text()
    run(place, "revoke", "M_1")
    assert "meter/M_1" not in (place.broker / "passwords").read_text()


def test_csv_provisions_all_or_none(place: Directory, tmp_path: Path) -> None:
    run(place, "add", "EV_3", "--kind", "vehicle")
    csv = tmp_path / "fleet.csv"
    csv.write_text("id,kind\nEV_1,vehicle\nEV_2,meter\nEV_3,vehicle\n")
    code, output = run(place, "add", "--csv", str(csv))
    assert (code, "vehicle/EV_3: already provisioned" in output) == (1, True)
    assert not place.credentials("vehicle/EV_1").exists()
    csv.write_text("id\nEV_1\nEV_2\n")
    assert run(place, "add", "--csv", str(csv), "--kind", "vehicle")[0] == 0
    names = [json.loads(line)["name"] for line in run(place, "list")[1].splitlines()]
    assert names == ["vehicle/EV_1", "vehicle/EV_2", "vehicle/EV_3"]
    assert run(place, "revoke", "--csv", str(csv), "--kind", "vehicle")[0] == 0
    assert (
        (place.broker / "acl")
        .read_text()
        .endswith("user vehicle/EV_1\ntopic deny #\n\nuser vehicle/EV_2\ntopic deny #\n")
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("name\nEV_1\n", "no column `id`"),
        ("id,kind\nEV_1,vehicle\nEV_2,lorry\n", "line 3: EV_2: the kind must be vehicle or meter"),
        ("id,kind\nEV_1,\n", "vehicle or meter"),
        ("id,kind\nEV_1,vehicle\nEV_1,vehicle\n", "occurs twice"),
        ("id,kind\n#,vehicle\n", "1 to 64"),
        ("id,kind\n../x,vehicle\n", "1 to 64"),
        ("id,kind\n" + "x" * 65 + ",vehicle\n", "1 to 64"),
    ],
)
def test_csv_that_is_wrong_says_why(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "fleet.csv").write_text(content)
    with pytest.raises(BadDevice, match=why):
        read_csv(tmp_path / "fleet.csv", None)


def test_id_that_two_kinds_have_needs_the_kind(place: Directory) -> None:
    for kind in ("vehicle", "meter"):
        run(place, "add", "X", "--kind", kind)
    code, output = run(place, "revoke", "X")
    assert (code, "--kind" in output) == (1, True)
    assert run(place, "revoke", "X", "--kind", "meter")[0] == 0
    assert run(place, "revoke", "X")[0] == 0
    code, output = run(place, "revoke", "X")
    assert (code, "is not provisioned" in output) == (1, True)


def test_id_too_long_for_a_common_name_needs_a_password(place: Directory) -> None:
    code, output = run(place, "add", "x" * 57, "--kind", "vehicle")
    assert (code, "--password" in output) == (1, True)
    assert run(place, "add", "x" * 57, "--kind", "vehicle", "--password")[0] == 0
    assert run(place, "add", "x" * 56, "--kind", "vehicle")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("device", "list", "--dir"),
        ("device", "add", "EV_1", "--kind", "vehicle", "--dir"),
        ("device", "add", "EV_1", "--kind", "vehicle", "--password", "--dir"),
        ("device", "rotate", "EV_1", "--dir"),
        ("device", "revoke", "EV_1", "--dir"),
        ("ca", "server"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_command_without_a_ca_says_what_to_do_and_creates_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    empty = tmp_path / "empty"
    result = CliRunner().invoke(app, [*arguments, str(empty)])
    assert result.exit_code == 1
    assert f"{empty}: there is no CA yet; run `python -m mosquitto ca init {empty}`" in result.output
    assert not empty.exists()


def test_every_act_is_written_down(place: Directory) -> None:
    run(place, "add", "EV_1", "--kind", "vehicle")
    run(place, "rotate", "EV_1")
    run(place, "revoke", "EV_1")
    with registry.registry(place.registry) as db:
        assert [row[0] for row in db.execute("SELECT act FROM act WHERE device = 'vehicle/EV_1'")] == [
            "add",
            "rotate",
            "revoke",
        ]
        assert registry.live(db, [device("vehicle", "EV_1")]) == []
