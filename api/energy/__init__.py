"""The energy algebra (DESIGN 5): pure functions from a device's readings to what flowed, when, and how sure that is.

    readings -> curve.curve_of -> Curve (segments of energy in time) -> shares of assignments, coverage, efficiency

Times are whole microseconds since 1970 UTC and energies whole units of 1e-12 kWh, so sums are exact in every order and
the parts of a divided interval add up to the whole. No clock, no database, no await.
"""
