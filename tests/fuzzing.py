"""How much is fuzzed and from which seed: little by default, as much as FLEET_FUZZ says in the long form."""

import os

COUNT = int(os.environ.get("FLEET_FUZZ", "3000"))
SEED = int(os.environ.get("FLEET_FUZZ_SEED", "1"))
