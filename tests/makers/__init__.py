"""Inputs made in code: each maker is written from the format's description, not by calling a reader."""
