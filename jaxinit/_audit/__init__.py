"""What initialization a tree of parameters has: laws that are named, and findings."""
