"""Review page and prompt lab."""
