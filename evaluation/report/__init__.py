"""The report of an evaluation: tables, pictures, page."""
