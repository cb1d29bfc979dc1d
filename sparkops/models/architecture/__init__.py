"""What a model is made of: layers, tensors, sizes, formats; read from config.json by descriptions in `knowledge/`."""
