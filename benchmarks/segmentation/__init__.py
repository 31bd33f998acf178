"""What the shipped segmenter is made of and worth: its training films, its comparison, its scores on films never seen."""
