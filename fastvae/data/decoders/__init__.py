"""JPEG and PNG files to pixels: by Pillow or by DALI, with the same results."""
