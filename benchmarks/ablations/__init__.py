"""Ablations of the world model at a small budget: which objectives, latents and mended mistakes matter."""
