"""The checks of the exercises, one module for each notebook. `exercises.check` imports them when they are needed."""
