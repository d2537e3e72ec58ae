"""Human review: decisions of reviewers, their summary, and the web page."""
