"""Container images: the product's own, built from the Dockerfile, and tiny ones around one static binary."""
