"""Images in: manifests, readers, decoding, splits and the embedded surfaces."""
