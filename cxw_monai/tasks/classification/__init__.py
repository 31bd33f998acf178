"""Classification on a pretrained encoder."""
