"""What is run: the grammar of presets, specs, plans and search spaces. Never imports torch."""
