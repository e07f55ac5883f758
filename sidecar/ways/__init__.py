"""The ways in, seen from the app: what each runtime must be told. Values and texts; nothing is opened or started."""
