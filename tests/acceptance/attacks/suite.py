"""All attacks by name, in the order in which they run."""

from tests.acceptance.attacks import answers, bodies, broker, connections, keys, many, messages, rejects
from tests.acceptance.attacks.attack import Attack

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for module in (bodies, connections, answers, keys, messages, broker, rejects, many)
    for attack in module.ATTACKS
}
