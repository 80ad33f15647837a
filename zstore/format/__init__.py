"""What lies on disk: schema, layout, packing, index, moments, manifest, commit."""
