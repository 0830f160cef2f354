"""What users of attribution libraries reported: one file a kind, named after what went wrong."""
