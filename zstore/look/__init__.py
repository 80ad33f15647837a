"""How things show themselves: HTML with inline SVG, no scripts, nothing fetched."""
