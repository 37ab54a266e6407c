"""The reference back-end: numpy, slow and obvious; it says what is right."""
