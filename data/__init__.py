"""Steps 1, 2, 4 and 7: collection, review, preparation and validation of pictures and labels."""
