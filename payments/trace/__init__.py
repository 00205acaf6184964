"""From any row of a model down to the raw rows and the batches behind it."""
