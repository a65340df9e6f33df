"""The product: detects identifiable objects in pictures and obscures them."""
