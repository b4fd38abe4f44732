"""One backend in each file, with the file's name; files in this folder are found. See CONTRIBUTING.md to add one."""
