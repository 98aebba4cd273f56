"""Nothing lost, under fault: a harness that breaks things (`python -m torture`), and a checker that would notice."""
