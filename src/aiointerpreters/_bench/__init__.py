"""The benchmark suite behind `python -m aiointerpreters bench`.

Nothing else in the package imports it. `_cli.py` is the command; each file without an underscore
measures one subject, with what `_harness.py` gives; `_sides.py` has what is compared, and each side
runs in a process of its own, `_child.py`.
"""
