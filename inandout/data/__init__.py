"""Dataset input: readers, manifests, image decoding, checks, splits and the embedded surfaces dataset."""
