"""What a rule is, what it is told and what it says."""
