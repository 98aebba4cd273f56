"""Functions of apps in the workload: the apps, calls of them, what the calls must do, and faults of their code."""
