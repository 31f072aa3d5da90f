"""The settings that each program reads."""

from collections.abc import Mapping

from bridge.settings.api import ApiSettings
from bridge.settings.bridge import BridgeSettings, ReplaySettings
from bridge.settings.development import SuiteSettings
from bridge.settings.group import Group
from bridge.settings.groups import AdministrationSettings, LogSettings, MigrationSettings
from bridge.settings.jetstream import JetStreamSettings, NatsStreamSettings
from bridge.settings.kafka import KafkaSettings, KafkaTopicSettings
from bridge.settings.keeper import KeeperSettings
from bridge.settings.local import BrokerHostSettings, ComposeSettings, LocalSettings
from bridge.settings.mqtt import MqttSettings
from bridge.settings.provisioning import ProvisioningSettings
from bridge.settings.relay import RelaySettings
from bridge.settings.simulator import SimulatorSettings, VerifySettings

Programs = Mapping[str, tuple[type[Group], ...]]

PROGRAMS: Programs = {
    "bridge run": (BridgeSettings, MqttSettings, JetStreamSettings, KafkaSettings),
    "bridge keep": (KeeperSettings,),
    "bridge relay": (RelaySettings, NatsStreamSettings, KafkaTopicSettings),
    "bridge rejected replay": (ReplaySettings,),
    "bridge migrate": (MigrationSettings,),
    "bridge rejected list": (AdministrationSettings,),
    "bridge rejected show": (AdministrationSettings,),
    "api run": (ApiSettings, NatsStreamSettings, KafkaTopicSettings),
    "api key": (AdministrationSettings,),
    "api openapi": (LogSettings,),
    "simulator run": (SimulatorSettings,),
    "simulator replay": (SimulatorSettings,),
    "simulator verify": (VerifySettings,),
    "mosquitto ca": (LogSettings,),
    "mosquitto device": (ProvisioningSettings,),
    "make up": (LocalSettings,),
    "local secrets": (BrokerHostSettings, LogSettings),
    "docker compose": (ComposeSettings,),
    "tests": (SuiteSettings,),
}
