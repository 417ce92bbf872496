"""Getting the course onto a machine, and saying what is missing.

Nothing is imported here: on Colab the first cell runs before anything is installed.
"""
