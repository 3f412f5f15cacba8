"""The embedded data set: faces drawn by fastvae itself."""
