"""Mutants that compute the same as the module: (module, lines before, lines after) and why."""

EQUIVALENT: dict[tuple[str, str, str], str] = {}
