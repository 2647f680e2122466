"""Who else is told how a study goes: trials in, as plain values; nothing comes back.

The command line alone names them (``run --callback``): a stranger's study file tells nobody.
"""
