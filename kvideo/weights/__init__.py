"""Readers of foreign checkpoints, and maps from their names to ours."""
