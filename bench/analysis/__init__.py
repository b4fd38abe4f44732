"""Records -> one DataFrame -> sums, ratios, tables, comparisons. Pure: it reads no file and writes none."""
