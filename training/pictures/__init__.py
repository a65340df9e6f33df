"""What a network sees: pictures read, augmented, joined, and put into batches."""
