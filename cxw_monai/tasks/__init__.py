"""What the package trains: a folder per task, with its step, settings, data, evaluation and pictures."""
