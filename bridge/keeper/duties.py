"""Every duty of the keeper: a new one is its module and a line here."""

from bridge.alarms.delivery import Delivery
from bridge.alarms.judge import Judge
from bridge.keeper.attached import attached_days
from bridge.keeper.departed import departed
from bridge.keeper.partitions import partitions
from bridge.keeper.port import Companion, Duty
from bridge.keeper.quarters import Quarters
from bridge.keeper.rejects import rejects
from bridge.settings.keeper import KeeperSettings


def duties(settings: KeeperSettings) -> tuple[Duty, ...]:
    """The duties, as the settings have them."""
    quarters = Quarters(settings.quarters_delay_s, settings.keeper_timeout_s)
    old = rejects(settings.partitions_ahead_days, settings.rejects_kept_days)
    judge = Judge(settings, settings.reading_interval_s)
    return (partitions(settings.partitions_ahead_days), attached_days, quarters.duty, judge.duty, departed, old)


def companions(settings: KeeperSettings) -> tuple[Companion, ...]:
    """What runs beside them."""
    return (Delivery(settings),)
