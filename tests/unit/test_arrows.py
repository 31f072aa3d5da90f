"""The import graph of the project, exactly: a new module or import must be added here."""

import ast
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bridge", "api", "simulator", "local", "mosquitto")

BRIDGE = {
    "errors": "",
    "logs": "",
    "memory": "",
    "version": "",
    "extras": "version",
    "command_line": "version",
    "backoff": "",
    "clock": "errors",
    "batch": "",
    "audit": "",
    "private_file": "errors",
    "certificates": "",
    "progress": "",
    "url": "",
    "reject_rate": "",
    "connect_rate": "",
    "quota": "",
    "schema": "",
    "health": "errors",
    "contract": "",
    "reading": "contract",
    "delivery": "errors reading",
    "formats.document": "",
    "formats.elements": "formats.document",
    "formats.payload": "contract reading",
    "formats.extra": "contract formats.document formats.payload reading",
    "formats.port": "delivery",
    "formats.bounds": "",
    "formats.element": "contract delivery errors formats.document formats.extra formats.payload formats.port reading",
    "formats.contract_json": "contract delivery errors formats.document formats.element formats.elements "
    "formats.payload formats.port reading",
    "formats.ndjson": "delivery formats.contract_json formats.document formats.element formats.port",
    "formats": "delivery errors formats.bounds formats.contract_json formats.element formats.elements formats.ndjson "
    "formats.port",
    "settings": "",
    "settings.group": "",
    "settings.options": "settings.group",
    "settings.values": "url",
    "settings.groups": "formats.port quota settings.group settings.values",
    "settings.bridge": "settings.group settings.groups settings.values",
    "settings.mqtt": "settings.bridge settings.group settings.groups settings.values",
    "settings.jetstream": "settings.bridge settings.group settings.groups settings.values",
    "settings.kafka": "settings.bridge settings.group settings.groups settings.values",
    "settings.api": "settings.group settings.groups settings.values",
    "settings.alarms": "settings.group settings.values",
    "settings.keeper": "settings.alarms settings.group settings.groups settings.mqtt settings.values",
    "settings.simulator": "settings.group settings.groups settings.mqtt settings.values",
    "settings.relay": "settings.groups settings.mqtt settings.values",
    "settings.provisioning": "settings.groups",
    "settings.local": "settings.api settings.bridge settings.group settings.groups settings.keeper settings.values",
    "settings.development": "settings.group",
    "settings.programs": "settings.api settings.bridge settings.development settings.group settings.groups "
    "settings.jetstream settings.kafka settings.keeper settings.local settings.mqtt settings.provisioning "
    "settings.relay settings.simulator",
    "settings.names": "settings.programs",
    "metrics": "clock delivery errors reading version",
    "ingest": "backoff batch clock delivery errors metrics reject_rate",
    "store": "",
    "store.copy_format": "contract reading",
    "store.ratings": "contract reading",
    "store.verdict": "contract delivery errors formats.contract_json reading store.ratings",
    "store.tables": "contract errors reading",
    "store.quotas": "contract delivery errors quota reading store.verdict",
    "store.projection": "contract reading store.tables",
    "store.live_rows": "contract reading store.projection store.tables",
    "store.late_marks": "contract reading store.projection store.tables",
    "store.projections": "store.late_marks store.live_rows store.projection",
    "store.few": "contract errors store.late_marks store.projection store.projections store.tables store.verdict",
    "store.database_errors": "errors",
    "store.singly": "contract reading store.projections store.tables",
    "store.migrate": "errors store.database_errors",
    "store.analyst": "errors",
    "store.session": "errors store.database_errors url",
    "store.synchronous": "errors store.session",
    "store.timeline": "errors store.database_errors store.session",
    "store.pooler": "errors store.database_errors store.session",
    "store.ownership": "errors store.database_errors store.pooler store.session",
    "store.database_clock": "clock store.session",
    "status": "errors store.database_errors store.session version",
    "writer_status": "ingest metrics status",
    "store.postgres": "clock contract delivery errors reading store.copy_format store.database_clock "
    "store.database_errors store.few "
    "store.late_marks store.migrate store.pooler store.projection store.projections store.quotas store.ratings "
    "store.session store.singly store.synchronous store.tables store.timeline store.verdict",
    "replay": "audit clock delivery errors formats formats.port store.database_clock",
    "rejects": "progress replay",
    "mqtt": "",
    "mqtt.url": "url",
    "mqtt.codec": "",
    "mqtt.session": "mqtt.codec",
    "mqtt.transport": "mqtt.session mqtt.url",
    "mqtt.publishing": "mqtt.session mqtt.transport mqtt.url",
    "streams": "",
    "streams.port": "settings.group",
    "streams.jetstream_client": "extras streams.port",
    "streams.jetstream_subjects": "contract formats",
    "streams.jetstream_partitions": "settings.jetstream streams.jetstream_subjects",
    "streams.jetstream_setup": "errors settings.jetstream streams.jetstream_client streams.jetstream_partitions "
    "streams.jetstream_subjects",
    "streams.jetstream_target": "errors settings.jetstream streams.jetstream_client streams.jetstream_setup "
    "streams.jetstream_subjects streams.port url",
    "streams.kafka_client": "extras streams.port url",
    "streams.kafka_setup": "errors settings.kafka streams.kafka_client",
    "streams.kafka_target": "settings.kafka streams.kafka_client streams.kafka_setup streams.port",
    "streams.targets": "streams.jetstream_target streams.kafka_target streams.port",
    "streams.publishing": "backoff streams.port",
    "sources.port": "delivery settings.group",
    "sources.mqtt_topics": "contract",
    "sources.mqtt_arrival": "delivery sources.mqtt_topics",
    "sources.shares": "",
    "sources.notices": "delivery errors sources.shares",
    "sources.turns": "",
    "sources.mqtt_mistakes": "sources.mqtt_topics",
    "sources.mqtt_metrics": "sources.mqtt_mistakes",
    "sources.mqtt": "backoff connect_rate contract delivery errors formats formats.port mqtt.codec mqtt.session "
    "mqtt.transport mqtt.url settings.mqtt sources.mqtt_arrival sources.mqtt_metrics sources.mqtt_topics "
    "sources.notices sources.port sources.shares sources.turns",
    "sources.jetstream_metrics": "",
    "sources.jetstream_order": "",
    "sources.jetstream_reading": "delivery errors formats formats.port settings.jetstream streams.jetstream_client "
    "sources.jetstream_metrics sources.jetstream_order sources.notices streams.jetstream_partitions "
    "sources.port streams.jetstream_subjects",
    "sources.jetstream_partition": "backoff settings.jetstream streams.jetstream_client sources.jetstream_metrics "
    "streams.jetstream_partitions sources.jetstream_reading streams.jetstream_setup sources.port url",
    "sources.jetstream": "settings.jetstream streams.jetstream_client sources.jetstream_metrics "
    "sources.jetstream_partition sources.port",
    "sources.kafka_metrics": "",
    "sources.kafka_offsets": "",
    "sources.kafka": "backoff delivery errors formats settings.kafka streams.kafka_client sources.kafka_metrics "
    "sources.kafka_offsets streams.kafka_setup sources.port",
    "sources.mqtt_raw": "backoff mqtt.codec mqtt.session mqtt.transport mqtt.url settings.relay sources.mqtt "
    "sources.mqtt_mistakes streams.port",
    "relay": "health metrics settings.relay sources.mqtt_mistakes sources.mqtt_raw streams.port streams.publishing",
    "sources": "errors sources.jetstream sources.kafka sources.mqtt sources.port",
    "service": "clock errors health ingest metrics settings.bridge settings.group sources sources.port status "
    "store.ownership store.postgres store.quotas url writer_status",
    "keeper": "",
    "keeper.port": "contract status store.session",
    "keeper.quarter_sql": "contract",
    "keeper.hour_sql": "contract keeper.quarter_sql",
    "keeper.pace": "",
    "keeper.chunks": "contract keeper.pace store.session",
    "keeper.hours": "contract keeper.chunks keeper.hour_sql keeper.pace store.session",
    "keeper.writers": "contract store.database_errors store.session",
    "keeper.quarters": "contract errors keeper.chunks keeper.hours keeper.pace keeper.port keeper.quarter_sql "
    "keeper.writers status store.database_errors store.session",
    "keeper.schedule": "backoff keeper.port",
    "keeper.partitions": "errors keeper.port store.database_errors store.session store.tables",
    "keeper.attached": "contract keeper.port store.database_errors store.session",
    "keeper.rejects": "keeper.port store.database_errors store.session",
    "keeper.departed": "keeper.port status store.database_errors store.session",
    "alarms": "",
    "alarms.measures": "contract",
    "alarms.judge_sql": "alarms.measures contract",
    "alarms.judge": "alarms.judge_sql alarms.measures certificates contract keeper.port settings.alarms status "
    "store.session",
    "alarms.notification": "reading",
    "alarms.outbox": "alarms.notification store.database_errors",
    "alarms.webhook": "alarms.notification",
    "alarms.mqtt": "alarms.notification mqtt.publishing mqtt.url settings.mqtt",
    "alarms.delivery": "alarms.mqtt alarms.notification alarms.outbox alarms.webhook backoff errors mqtt.publishing "
    "settings.keeper store.database_errors store.session",
    "keeper.duties": "alarms.delivery alarms.judge keeper.attached keeper.departed keeper.partitions keeper.port "
    "keeper.quarters keeper.rejects settings.keeper",
    "keeper.metrics": "contract keeper.port",
    "keeper.leader": "settings.keeper store.database_errors store.migrate store.pooler store.session",
    "keeper.service": "backoff certificates errors health keeper.leader keeper.metrics keeper.port keeper.schedule "
    "metrics settings.keeper status store.database_errors store.session url",
    "startup": "logs settings.group settings.groups settings.names",
    "cli": "audit clock command_line errors keeper.duties keeper.service memory private_file progress rejects relay "
    "replay service settings.bridge settings.groups settings.keeper settings.relay sources startup store.analyst "
    "store.database_errors store.migrate store.postgres streams.targets url",
    "__main__": "cli memory",
}
"""What each module imports of the bridge. `store` and `sources` never import each other; nobody needs the keeper."""

OUTSIDE = {
    "bridge": set[str](),
    "mosquitto": {"bridge"},
    "api": {"bridge"},
    "simulator": {"bridge"},
    "local": {"bridge", "api", "simulator", "mosquitto"},
}
SIMULATOR_KNOWS = {
    *(
        f"bridge.{name}"
        for name in (
            "backoff",
            "command_line",
            "contract",
            "progress",
            "reading",
            "errors",
            "extras",
            "memory",
            "private_file",
            "url",
        )
    ),
    "bridge.startup",
    *(f"bridge.settings.{name}" for name in ("groups", "options", "simulator")),
    *(f"bridge.formats.{name}" for name in ("contract_json", "payload", "port")),
    *(f"bridge.mqtt.{name}" for name in ("url", "codec", "session", "transport")),
}
PURE = (
    *("bridge.formats", "bridge.batch", "bridge.contract", "bridge.reading", "bridge.delivery"),
    *(f"bridge.formats.{name}" for name in ("payload", "extra", "document", "elements", "element", "port")),
    *("bridge.formats.contract_json", "bridge.formats.ndjson"),
    *(
        f"bridge.store.{name}"
        for name in ("ratings", "verdict", "quotas", "tables", "projection", "live_rows", "late_marks", "projections")
    ),
    *("bridge.store.few", "bridge.store.copy_format"),
    *("bridge.alarms.measures", "bridge.alarms.judge_sql", "bridge.alarms.notification"),
    *("bridge.keeper.port", "bridge.keeper.schedule", "bridge.keeper.quarter_sql", "bridge.keeper.hour_sql"),
    "bridge.keeper.pace",
    *("bridge.mqtt.codec", "bridge.mqtt.session", "bridge.sources.mqtt_arrival"),
    *("bridge.sources.jetstream_order", "bridge.streams.jetstream_subjects"),
    "bridge.streams.jetstream_partitions",
    "bridge.sources.kafka_offsets",
    "api.replicas.position",
)
IMPURE = {"asyncio", "socket", "ssl", "time", "asyncpg", "threading", "os", "random"}


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    files = itertools.chain.from_iterable((ROOT / package).rglob("*.py") for package in PACKAGES)
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


MODULES = modules()


def imports(module: str) -> set[str]:
    """What a module imports, at its top or anywhere in it; of the project's packages down to the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            assert node.module is not None
            found |= {_module_of(node.module, alias.name) for alias in node.names}
    return found


def _module_of(package: str, name: str) -> str:
    return f"{package}.{name}" if f"{package}.{name}" in MODULES else package


def of_project(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in PACKAGES}


def reached(module: str) -> set[str]:
    """Everything of the project that importing this module brings in."""
    seen: set[str] = set()
    todo = {module}
    while todo:
        seen |= todo
        todo = {name for known in todo if known in MODULES for name in of_project(imports(known))} - seen
    return seen


def test_bridge_modules_are_the_drawn_ones() -> None:
    assert {name.removeprefix("bridge.") for name in MODULES if name.startswith("bridge.")} == BRIDGE.keys()


@pytest.mark.parametrize("name", BRIDGE)
def test_bridge_module_knows_exactly_what_is_drawn(name: str) -> None:
    drawn = {f"bridge.{known}" for known in BRIDGE[name].split()}
    assert {known for known in imports(f"bridge.{name}") if known.startswith("bridge.")} == drawn


def test_bridge_arrows_have_no_circle() -> None:
    drawn_so_far: set[str] = set()
    for name, known in BRIDGE.items():
        assert set(known.split()) <= drawn_so_far, f"{name} imports a module that the graph forbids"
        drawn_so_far.add(name)


@pytest.mark.parametrize("module", MODULES)
def test_package_knows_only_what_its_arrows_allow(module: str) -> None:
    package = module.split(".")[0]
    foreign = {name.split(".")[0] for name in of_project(imports(module))} - {package}
    assert foreign <= OUTSIDE[package]


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "api"])
def test_api_never_reaches_mqtt(module: str) -> None:
    assert not {name for name in reached(module) if name.startswith("bridge.mqtt")}


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "simulator"])
def test_simulator_knows_the_wire_and_nothing_behind_it(module: str) -> None:
    assert {name for name in imports(module) if name.startswith("bridge")} <= SIMULATOR_KNOWS


@pytest.mark.parametrize("module", PURE)
def test_pure_module_has_no_clock_and_no_socket(module: str) -> None:
    assert not {name.split(".")[0] for name in imports(module)} & IMPURE
    assert not [n for n in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(n, ast.Await)]


def test_mqtt_codec_is_known_to_its_package_alone() -> None:
    assert all(name.startswith(("bridge.mqtt.", "bridge.sources.mqtt")) for name in MODULES if "mqtt5" in imports(name))


def test_nats_client_is_known_to_one_module_alone() -> None:
    """In others it is imported for types only, so that no program needs it unless it reads from a stream."""
    known = {
        name for name in MODULES if name.startswith("bridge.") and any(i.startswith("nats") for i in imports(name))
    }
    assert known == {
        "bridge.streams.jetstream_client",
        "bridge.sources.jetstream_reading",
        "bridge.streams.jetstream_target",
    }


def test_kafka_client_is_known_to_one_module_alone() -> None:
    """In the source it is imported for types only."""
    known = {name for name in MODULES if any(i.startswith("confluent_kafka") for i in imports(name))}
    assert known == {"bridge.streams.kafka_client", "bridge.sources.kafka"}


def test_database_errors_are_named_in_one_module_alone() -> None:
    """Elsewhere asyncpg is only connected with; `storing` and `asking` turn its errors into ours."""
    named = {name for name in MODULES if name.startswith("bridge") and _names_database_errors(MODULES[name])}
    assert named == {"bridge.store.database_errors"}


def _names_database_errors(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "asyncpg"
        and (node.attr.endswith("Error") or node.attr == "exceptions")
        for node in ast.walk(ast.parse(path.read_text()))
    )
