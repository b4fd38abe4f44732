"""What doctest collection leaves out: a plug-in registers its backend when it is imported."""

collect_ignore = ["run/overhead.py"]
