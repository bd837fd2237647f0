"""How good a run is, with intervals."""
