"""What people say of slides that are scored: regions drawn on them, and corrections of single cells."""
