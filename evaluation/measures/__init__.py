"""What evaluation measures beside recall, precision and coverage."""
