"""The JSON files of a run, an adapter or an export: what each must hold, seen before anybody counts on it."""
