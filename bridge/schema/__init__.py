"""The tables, as SQL files applied in the order of their names; the only truth about them."""
