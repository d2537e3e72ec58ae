"""LoRA-C3Lier adapters: layers, files, kohya's format, and merging into a base."""
