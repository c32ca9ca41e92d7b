"""From session rows to what can be relied on: stays, features, score, forecast. Columns in, columns out; no I/O."""
