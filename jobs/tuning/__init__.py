"""The parts of the bundled scripts: rows, masks, methods, checkpoints and events."""
