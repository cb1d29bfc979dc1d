"""What the kind `image` is made of: names, registries, builds and archives."""
