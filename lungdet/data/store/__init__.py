"""Radiographs decoded once, kept beside their manifest."""
