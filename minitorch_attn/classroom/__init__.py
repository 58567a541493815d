"""The classroom: hand exercises out, collect them, grade them behind a wall, give feedback."""
