"""The only room that imports TensorFlow: a checkpoint goes in, a checkpoint comes out."""
