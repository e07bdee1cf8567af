"""What every room needs: checks of integers, keys and names, and tables of text."""
