"""Mean and second moment of what enters each kernel."""
