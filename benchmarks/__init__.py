"""What tracking costs, measured on this machine and reported as ratios within one run."""
