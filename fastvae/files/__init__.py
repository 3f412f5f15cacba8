"""Files: paths, safe reading, atomic writing, locks, downloads and the cache."""
