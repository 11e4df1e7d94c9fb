"""What slimnet claims, measured: speed as ratios within one run, accuracy over seeds."""
