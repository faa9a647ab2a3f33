"""Checks of a labelled DNA dataset for leakage and shortcut features."""
