"""Containers: pictures inside zip files, tar files and Parquet shards, read without unpacking."""
