"""A harness that injects faults into a running stack (`python -m torture`), and a checker that finds every loss."""
