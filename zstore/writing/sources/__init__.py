"""Where rows come from: plan a source into blocks, read a block into typed columns."""
