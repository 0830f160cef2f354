"""The form that rules are written for: few operators, one spelling each."""
