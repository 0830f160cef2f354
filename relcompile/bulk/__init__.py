"""Many photographs: a callable for data engines, and a job that goes on where it stopped. Needs no torch."""
