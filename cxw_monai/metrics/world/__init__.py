"""What a world model knows: tests of its predictions and of its encoder, each with controls and chance level."""
