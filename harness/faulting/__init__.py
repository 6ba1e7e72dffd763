"""Faults: a vocabulary, plans drawn from it, and the nemesis that carries them out."""
