"""The tiny Phi-3 model that ships with the project, and the scripts that make it."""
