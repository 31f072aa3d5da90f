"""Attacks by 20 devices, each with a certificate and a key of its own: what one may have, each of them may have."""

import asyncio
from collections.abc import Sequence

from tests.acceptance.attacks import answers, bodies, broker, messages, payloads, rejects
from tests.acceptance.attacks.attack import Attack, Done, Target
from tests.acceptance.attacks.messages import acknowledged, sending


def _by_many(attack: Attack) -> Attack:
    """The same attack by all devices at a time."""

    async def run(target: Target, done: Done) -> None:
        await asyncio.gather(*(attack.run(each, done) for each in target.each()))

    return Attack(f"many-{attack.name}", "many devices", attack.what, run, max(512, attack.most_disk_mib))


def _of(attacks: Sequence[Attack], *names: str) -> list[Attack]:
    return [attack for attack in attacks if attack.name in names]


_LIGHTER = (
    Attack("nested-messages", "messages", "250 kB of nested unknown fields", sending(payloads.nested, distinct=3)),
    Attack("nested-qos-1", "messages", "the same, QoS 1", acknowledged(payloads.nested, distinct=3)),
    Attack(
        "damaged-qos-1", "messages", "1,000 readings, each second one damaged, QoS 1", acknowledged(payloads.damaged)
    ),
    Attack("backlogs-qos-1", "messages", "1,000 valid readings, QoS 1", acknowledged(payloads.readings)),
)

ATTACKS = [
    _by_many(attack)
    for attack in (
        *_of(bodies.ATTACKS, "announced", "half-sent", "gzip-bombs", "nested-bodies", "damaged-bodies"),
        *_of(answers.ATTACKS, "history", "gone", "streams", "questions"),
        *_LIGHTER,
        *_of(messages.ATTACKS, "noted-qos-1", "correlation", "receipts", "flood"),
        *_of(broker.ATTACKS, "queued-payloads", "deep-filters"),
        *_of(rejects.ATTACKS, "conflicts", "forbidden"),
    )
]
