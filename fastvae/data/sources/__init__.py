"""What people have on their disks, read as one kind of source."""
