"""What is trained on: panels found, read, checked, kept, made and augmented."""
