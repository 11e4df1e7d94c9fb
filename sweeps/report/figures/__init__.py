"""The report's figures, a module for each kind. Accuracies are drawn in percent."""
