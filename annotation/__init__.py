"""Step 3: what people say is in the pictures, from the backend that holds it."""
