"""Pools of synthetic images: made, extended, and with the decisions of reviewers."""
