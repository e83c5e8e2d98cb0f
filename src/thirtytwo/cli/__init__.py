"""The command line: one thin function per verb.

Internal: may change without notice; the commands, their options and exit codes are public.
"""
