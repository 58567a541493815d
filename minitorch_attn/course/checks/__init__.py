"""The checks of each exercise set, one file a lesson; exercise.py says how they are written."""
