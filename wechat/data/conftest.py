"""What is here is tested where it is copied to."""

collect_ignore_glob = ["*"]
