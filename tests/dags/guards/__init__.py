"""The guards: each takes a DAG file, or what was measured or loaded from it, and returns what is wrong as a list of
strings. They hold for every DAG, now and later; test_every_dag.py applies them and test_guards_catch.py shows each
one fail on a planted DAG.
"""
