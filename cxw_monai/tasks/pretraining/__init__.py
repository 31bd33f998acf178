"""Pretraining of a world model."""
