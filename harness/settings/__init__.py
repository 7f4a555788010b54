"""Settings: declared once, composed once per command, and the cells they make."""
