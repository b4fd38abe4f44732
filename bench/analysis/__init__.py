"""Records -> one DataFrame -> sums, ratios, tables, comparisons. Pure: no file is read or written."""
