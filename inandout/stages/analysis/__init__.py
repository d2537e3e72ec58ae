"""A trained classifier as a measure: filtering pools, distances, the shortcut probe."""
