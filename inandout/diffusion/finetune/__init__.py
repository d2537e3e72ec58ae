"""DreamBooth fine-tuning of a LoRA-C3Lier adapter."""
