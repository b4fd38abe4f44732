"""Parts of the documentation that are computed when the site is built."""
