"""What looks into answers and differences; nothing outside this room imports it."""
