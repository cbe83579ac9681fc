"""The page that shows a run, and the comparison of several: made from the records of runs, and nothing else."""
