"""The explainer, its files and the checks that they are right."""
