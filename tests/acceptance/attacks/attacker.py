"""The attacker's process: `python -m tests.acceptance.attacks.attacker NAME SECONDS`, with the target as JSON on stdin.

It prints what it did as JSON. It runs with a lower priority than the stack: an attacker has a machine of its own.
"""

import asyncio
import json
import os
import resource
import sys

from tests.acceptance.attacks.attack import Target, run_for
from tests.acceptance.attacks.suite import ATTACKS

_NICE = 10


def main() -> None:
    name, seconds = sys.argv[1:]
    target = Target(**json.load(sys.stdin))
    os.nice(_NICE)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    done, took_s = asyncio.run(run_for(ATTACKS[name], target, float(seconds)))
    sys.stdout.write(json.dumps({"done": done, "took_s": took_s}))


if __name__ == "__main__":
    main()
