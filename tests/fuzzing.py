"""How much is fuzzed and from which seed: little by default, as much as FLEET_FUZZ says in the long form."""

import os

from bridge.settings.development import SuiteSettings

_SETTINGS = SuiteSettings.read(os.environ)
COUNT = _SETTINGS.fuzz
SEED = _SETTINGS.fuzz_seed
