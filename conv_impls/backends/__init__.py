"""One file, one backend, named like the file and found by being here. See CONTRIBUTING.md to add one."""
