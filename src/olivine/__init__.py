"""Olivine: one config file, one command, from a language model to the artefact that ships."""

__version__ = "0.1.0"
