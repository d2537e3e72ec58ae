"""The human in the loop: decisions of reviewers, what they add up to, and the page they are made on."""
