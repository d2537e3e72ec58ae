"""Pools of synthetic images: generate, extend, and read review decisions."""
