"""The bundled recipes, one TOML file each.

Internal: may change without notice; names of recipes and their keys are public.
"""
