"""The learning benchmark: what an encoder is worth after some training, frozen, in one table."""
