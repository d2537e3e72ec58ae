"""The review page and the prompt lab as stages."""
