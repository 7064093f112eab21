"""What people read: tables, findings, the HTML page, and the paper side by side."""
