"""DataFrames -> figures, Markdown tables and one HTML page."""
