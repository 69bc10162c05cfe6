"""What people look at: pages and sheets of pictures."""
