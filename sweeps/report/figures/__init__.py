"""The report's figures, one kind per module. Accuracies are in percent."""
