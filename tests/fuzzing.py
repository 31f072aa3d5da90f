"""The amount of fuzzing (FLEET_FUZZ, small by default) and its seed (FLEET_FUZZ_SEED)."""

import os

from bridge.settings.development import SuiteSettings

_SETTINGS = SuiteSettings.read(os.environ)
COUNT = _SETTINGS.fuzz
SEED = _SETTINGS.fuzz_seed
