"""What the shipped segmenter is made of and worth: its training films, and its scores on films that it never saw."""
